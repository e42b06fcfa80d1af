// firewall: stateful packet filter for IPv4.
//
// Rules are searched for a flow's first packet only: whoever opens a flow must be allowed to, and
// both directions of it pass from then on, because its record exists. What no rule matches is
// denied. After a change of revision each flow is judged once more by the new rules.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nfs/firewall/classifier.h"
#include "nfs/firewall/firewall.pb.h"
#include "nfs/function.h"

namespace flowkeep {

class Firewall {
 public:
  using Config = nfs::FirewallConfig;
  static constexpr std::string_view kType = "firewall";
  static constexpr Scope kScope = Scope::kFlow;
  static constexpr size_t kMaxEntries = 65536;  // prefixes times ports, over all rules
  struct Hard {};
  struct Soft {
    std::vector<uint64_t> hits;  // of each rule: first packets that it decided
    uint64_t unmatched = 0;      // denied because no rule matched
  };

  static Result<Firewall> create(const Config& config, const FunctionContext& context);
  Soft make_soft() const;
  Decision open(NewFlow<Firewall>& flow, Soft& soft) const;
  bool still_allowed(const FlowKey& inside, Side initiator, const Hard& hard, Soft& soft) const;

 private:
  struct Rule {
    std::string name;
    bool accept;
  };
  Firewall(std::vector<Rule> rules, std::unique_ptr<Classifier> classifier);
  uint32_t first_match(const FlowKey& inside, Side initiator) const;

  std::vector<Rule> rules_;
  std::unique_ptr<Classifier> classifier_;
};

}  // namespace flowkeep
