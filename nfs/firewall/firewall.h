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
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nfs/firewall/classifier.h"
#include "nfs/firewall/firewall.pb.h"
#include "nfs/firewall/token_bucket.h"
#include "nfs/function.h"

namespace flowkeep {

class Firewall {
 public:
  using Config = nfs::FirewallConfig;
  static constexpr std::string_view kType = "firewall";
  static constexpr Scope kScope = Scope::kFlow;
  static constexpr size_t kMaxRules = 16'000;
  static constexpr size_t kMaxEntries = 65'536;  // prefixes times ports, over all rules
  struct Hard {};
  struct Soft {
    std::vector<TokenBucket> buckets;    // of the rules with a rate limit
    std::vector<uint32_t> until_logged;  // of each rule: matches until the next one is logged
  };

  static Result<Firewall> create(const Config& config, const FunctionContext& context);
  Soft make_soft() const;
  Decision open(NewFlow<Firewall>& flow, Soft& soft) const;
  Decision stray(NewFlow<Firewall>& packet, Soft& soft) const;
  bool still_allowed(const FlowKey& inside, Side initiator, const Hard& hard, Soft& soft) const;
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
  Firewall(std::vector<Rule> rules, std::unique_ptr<Classifier> classifier);
  static Result<Rule> create_rule(const nfs::FirewallRule& rule, const std::string& field);
  uint32_t first_match(const HeaderTuple& tuple) const;
  void note(NewFlow<Firewall>& flow, uint32_t rule, Soft& soft) const;
  static Decision refuse(NewFlow<Firewall>& flow, Action action);

  std::vector<Rule> rules_;
  std::unique_ptr<Classifier> classifier_;
};

}  // namespace flowkeep
