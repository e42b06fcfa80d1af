// From the firewall's configuration to entries of a classifier, with every field validated.
#pragma once

#include <string>
#include <vector>

#include "nfs/firewall/classifier.h"
#include "nfs/firewall/firewall.pb.h"
#include "nfs/firewall/sets.h"

namespace flowkeep {

// Adds the entries of one rule, of which each combination of source, destination and ports of one
// family is one. `field`: path of the rule; `index`: its position. Refuses to let `entries` grow
// beyond `most`.
Result<void> add_rule_entries(const nfs::FirewallRule& rule, const NamedSets& sets,
                              const std::string& field, uint32_t index, size_t most,
                              std::vector<ClassifierRule>& entries);

}  // namespace flowkeep
