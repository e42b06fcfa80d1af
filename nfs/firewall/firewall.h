// firewall: stateful packet filter for IPv4 and IPv6. Every option: docs/firewall.md.
//
// Rules are searched for a flow's first packet only: whoever opens a flow must be allowed to, and
// both directions of it pass from then on, because its record exists. What no rule matches is
// denied. After a change of revision each flow is judged once more by the new rules.
//
//   firewall.cc    what happens to a packet
//   rules.h        a rule of the configuration to entries of the search; words in rule_text.h,
//   named
//                  sets in sets.h
//   classifier.h   the search
//   reject.h       what the sender of a rejected packet is told
//   token_bucket.h rate limits
//   half_open.h    how many TCP connections may wait for the end of their handshake
//   tcp_tracker.h  does a segment belong to its connection
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nfs/firewall/classifier.h"
#include "nfs/firewall/firewall.pb.h"
#include "nfs/firewall/half_open.h"
#include "nfs/firewall/tcp_tracker.h"
#include "nfs/firewall/token_bucket.h"
#include "nfs/function.h"

namespace flowkeep {

class Firewall {
 public:
  using Config = nfs::FirewallConfig;
  static constexpr std::string_view kType = "firewall";
  static constexpr Scope kScope = Scope::kFlow;
  static constexpr size_t kMaxRules = 16'000;
  static constexpr size_t kMaxEntries =
      131'072;  // prefixes times ports, over all rules and both families
  struct Hard {};
  struct Soft {
    std::vector<TokenBucket> buckets;    // of the rules with a rate limit
    std::vector<uint32_t> until_logged;  // of each rule: matches until the next one is logged
    HalfOpen half_open;
  };

  static Result<Firewall> create(const Config& config, const FunctionContext& context);
  Soft make_soft() const;
  Decision open(NewFlow<Firewall>& flow, Soft& soft) const;
  void not_opened(NewFlow<Firewall>& flow, Soft& soft) const;
  Decision stray(NewFlow<Firewall>& packet, Soft& soft) const;
  bool still_allowed(const FlowRecord& flow, const Hard& hard, Soft& soft) const;
  bool inspects() const { return tcp_tracking_.has_value(); }
  Inspection inspect(InspectedPacket<Firewall>& packet, Soft& soft) const;
  // Of each rule, in order, then of what no rule matched: packets that were judged by it.
  std::vector<std::string> counter_names() const;

 private:
  enum class Action : uint8_t { kAccept, kDrop, kReject };
  struct Rule {
    std::string name;
    Action action = Action::kDrop;
    uint32_t log_every = 0;  // 0: never
    int32_t bucket = -1;     // of Soft::buckets; -1: no rate limit
    uint32_t per_second = 0;
    uint32_t burst = 0;
  };
  Firewall(std::vector<Rule> rules, std::unique_ptr<Classifier> classifier,
           std::optional<TcpStrictness> tcp_tracking, const HalfOpenLimits& half_open);
  static Result<Rule> create_rule(const nfs::FirewallRule& rule, const std::string& field);
  uint32_t first_match(const HeaderTuple& tuple) const;
  void note(NewFlow<Firewall>& flow, uint32_t rule, Soft& soft) const;
  static Decision refuse(NewFlow<Firewall>& flow, Action action);
  Inspection follow_handshake(InspectedPacket<Firewall>& packet, Soft& soft) const;

  std::vector<Rule> rules_;
  std::unique_ptr<Classifier> classifier_;
  std::optional<TcpStrictness> tcp_tracking_;  // nothing: off
  HalfOpenLimits half_open_;
};

}  // namespace flowkeep
