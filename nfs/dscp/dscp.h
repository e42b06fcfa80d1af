// dscp: marks every packet of a flow with the flow's DSCP (RFC 2474), both ways.
//
// The port to which a flow's first packet goes decides. The mark is hard state: queues on the way
// treat marks differently, so packets of one flow with different marks would overtake each other. A
// flow keeps its mark when its worker dies, and when a new revision would give it another one.
#pragma once

#include <cstdint>
#include <string_view>

#include "nfs/dscp/dscp.pb.h"
#include "nfs/function.h"

namespace flowkeep {

class Dscp {
 public:
  using Config = nfs::DscpConfig;
  static constexpr std::string_view kType = "dscp";
  static constexpr Scope kScope = Scope::kFlow;
  struct Hard {
    uint8_t dscp;  // losing it reorders a connection
  };
  struct Soft {};

  static Result<Dscp> create(const Config& config, const FunctionContext& context);
  Soft make_soft() const { return {}; }
  Decision open(NewFlow<Dscp>& flow, Soft& soft) const;
  bool still_allowed(const FlowKey&, Side, const Hard&, Soft&) const { return true; }
  std::optional<Hard> adopt(const FlowKey& inside, Side initiator) const;
  void process(Burst<Dscp>& burst, Soft& soft) const;

 private:
  explicit Dscp(Config config) : config_(std::move(config)) {}
  Hard mark_of(Be16 port) const;

  Config config_;
};

}  // namespace flowkeep
