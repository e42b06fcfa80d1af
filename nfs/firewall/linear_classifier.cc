#include "nfs/firewall/linear_classifier.h"

#include <cassert>
#include <utility>

#include "nfs/ipv4_prefix.h"

namespace flowkeep {
namespace {

bool within(Be16 port, uint16_t first, uint16_t last) {
  return first <= port.host() && port.host() <= last;
}

bool direction_matches(RuleDirection direction, Side side) {
  return direction == RuleDirection::kAny ||
         (direction == RuleDirection::kFromInside) == (side == Side::kInside);
}

// A prefix of IPv4 says nothing of IPv6's addresses, of which a key has folds alone.
bool is_of_family(const ClassifierRule& rule, Family family) {
  return family == Family::kIpv4 || (rule.src_bits == 0 && rule.dst_bits == 0);
}

bool matches(const ClassifierRule& rule, const FlowKey& tuple) {
  return is_of_family(rule, tuple.family) &&
         (rule.protocol == 0 || rule.protocol == tuple.protocol) &&
         direction_matches(rule.direction, tuple.side) &&
         Ipv4Prefix{rule.src, rule.src_bits}.contains(tuple.src) &&
         Ipv4Prefix{rule.dst, rule.dst_bits}.contains(tuple.dst) &&
         within(tuple.src_port, rule.src_port_first, rule.src_port_last) &&
         within(tuple.dst_port, rule.dst_port_first, rule.dst_port_last);
}

}  // namespace

Result<void> LinearClassifier::build(std::vector<ClassifierRule> rules) {
  rules_ = std::move(rules);
  return {};
}

void LinearClassifier::classify(std::span<const FlowKey> tuples, std::span<uint32_t> rules) const {
  assert(tuples.size() == rules.size());
  for (size_t i = 0; i < tuples.size(); ++i) {
    rules[i] = kNoRule;
    for (const ClassifierRule& rule : rules_) {
      if (!matches(rule, tuples[i])) continue;
      rules[i] = rule.rule;
      break;
    }
  }
}

}  // namespace flowkeep
