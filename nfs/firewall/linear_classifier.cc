#include "nfs/firewall/linear_classifier.h"

#include <cassert>
#include <utility>

#include "nfs/firewall/ip_prefix.h"

namespace flowkeep {
namespace {

bool within(uint16_t port, uint16_t first, uint16_t last) {
  return first <= port && port <= last;
}

bool direction_matches(RuleDirection direction, Side side) {
  return direction == RuleDirection::kAny ||
         (direction == RuleDirection::kFromInside) == (side == Side::kInside);
}

bool matches(const ClassifierRule& rule, const HeaderTuple& tuple) {
  return rule.family == tuple.family && (rule.any_protocol || rule.protocol == tuple.protocol) &&
         (tuple.tcp_flags & rule.tcp_flags_mask) == rule.tcp_flags &&
         direction_matches(rule.direction, tuple.side) &&
         same_prefix(rule.src, tuple.src, rule.src_bits) &&
         same_prefix(rule.dst, tuple.dst, rule.dst_bits) &&
         within(tuple.src_port, rule.src_port_first, rule.src_port_last) &&
         within(tuple.dst_port, rule.dst_port_first, rule.dst_port_last);
}

}  // namespace

Result<void> LinearClassifier::build(std::vector<ClassifierRule> rules) {
  rules_ = std::move(rules);
  return {};
}

void LinearClassifier::classify(std::span<const HeaderTuple> tuples,
                                std::span<uint32_t> rules) const {
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
