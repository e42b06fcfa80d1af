// Rules that never decide anything, or whose removal would change nothing: most often a mistake.
//
// A rule is found if earlier rules cover each of its entries (one rule each entry; that several
// rules together cover one is not seen), or if a later rule would decide the same for all of them
// and nothing in between decides otherwise for any.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nfs/firewall/firewall.pb.h"
#include "state/result.h"

namespace flowkeep {

struct RuleFinding {
  enum class Kind : uint8_t {
    kShadowed,   // never matches, and would do something else than the rules that do
    kRedundant,  // the rules of `by` do the same anyway
  };
  Kind kind = Kind::kShadowed;
  uint32_t rule = 0;         // positions in the configuration
  std::vector<uint32_t> by;  // at most kNamed of them
  static constexpr size_t kNamed = 3;
};

// In the order of the rules. The time is that of comparing each entry with each. Errors: as the
// firewall's own of the same configuration.
Result<std::vector<RuleFinding>> check_rules(const nfs::FirewallConfig& config,
                                             const std::string& field);

// "rule "web" is never reached: rule "all" matches everything that it does, before it"
std::string finding_text(const nfs::FirewallConfig& config, const RuleFinding& finding);

}  // namespace flowkeep
