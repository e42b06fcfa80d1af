// Classifier: which rule is the first to match a tuple. The firewall's only idea of how rules are
// searched: a node plugs in rte_acl, tests and the controller's validation a linear search.
//
// Thread rule: immutable after build(); classify() may then be called from many processes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "state/flow_key.h"
#include "state/result.h"

namespace flowkeep {

inline constexpr uint32_t kNoRule = UINT32_MAX;

enum class RuleDirection : uint8_t { kAny, kFromInside, kFromOutside };

// One entry of the search: a rectangle in the space of tuples. A firewall rule with lists of
// prefixes or ports becomes several entries with the same `rule`.
struct ClassifierRule {
  Be32 src;
  Be32 dst;
  uint8_t src_bits = 0;  // prefix lengths; 0 matches every address
  uint8_t dst_bits = 0;
  uint8_t protocol = 0;  // 0 matches every protocol
  RuleDirection direction = RuleDirection::kAny;
  uint16_t src_port_first = 0;  // host byte order, inclusive
  uint16_t src_port_last = 65535;
  uint16_t dst_port_first = 0;
  uint16_t dst_port_last = 65535;
  uint32_t rule = 0;  // index of the firewall's rule, ascending over the entries: lower ones win
};

class Classifier {
 public:
  virtual ~Classifier() = default;
  // Once, before any classify(). No entries: nothing matches.
  virtual Result<void> build(std::vector<ClassifierRule> rules) = 0;
  // Tuples as the packets that open the flows carry them (`side` is where they entered). Writes,
  // for each, ClassifierRule::rule of the first entry that matches, or kNoRule. `rules` is as long
  // as `tuples`.
  virtual void classify(std::span<const FlowKey> tuples, std::span<uint32_t> rules) const = 0;
};

}  // namespace flowkeep
