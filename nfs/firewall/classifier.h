// Classifier: which rule is the first to match a packet's headers. The firewall's only idea of how
// rules are searched: a node plugs in rte_acl, tests and the controller's validation a linear
// search.
//
// Thread rule: immutable after build(); classify() may then be called from many processes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "nfs/firewall/header_tuple.h"
#include "state/result.h"

namespace flowkeep {

inline constexpr uint32_t kNoRule = UINT32_MAX;

enum class RuleDirection : uint8_t { kAny, kFromInside, kFromOutside };

// One entry of the search: a rectangle in the space of headers. A firewall rule with lists of
// prefixes or ports becomes several entries with the same `rule`.
struct ClassifierRule {
  AddressFamily family = AddressFamily::kIpv4;
  uint8_t src_bits = 0;  // prefix lengths; 0 matches every address of the family
  uint8_t dst_bits = 0;
  bool any_protocol = true;
  uint8_t protocol = 0;
  uint8_t tcp_flags_mask = 0;  // flags that are looked at
  uint8_t tcp_flags = 0;       // of these, those that must be set
  RuleDirection direction = RuleDirection::kAny;
  AddressBytes src{};  // host bits are zero
  AddressBytes dst{};
  uint16_t src_port_first = 0;  // host byte order, inclusive. ICMP and ICMPv6: the type
  uint16_t src_port_last = 65535;
  uint16_t dst_port_first = 0;  // ICMP and ICMPv6: the code
  uint16_t dst_port_last = 65535;
  uint32_t rule = 0;  // index of the firewall's rule, ascending over the entries: lower ones win
};

class Classifier {
 public:
  virtual ~Classifier() = default;
  // Once, before any classify(). No entries: nothing matches.
  virtual Result<void> build(std::vector<ClassifierRule> rules) = 0;
  // Writes, for each tuple, ClassifierRule::rule of the first entry that matches, or kNoRule.
  // `rules` is as long as `tuples`.
  virtual void classify(std::span<const HeaderTuple> tuples, std::span<uint32_t> rules) const = 0;
};

}  // namespace flowkeep
