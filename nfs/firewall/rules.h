// From the firewall's configuration to entries of a classifier, with every field validated.
#pragma once

#include <string>
#include <vector>

#include "nfs/firewall/classifier.h"
#include "nfs/firewall/firewall.pb.h"

namespace flowkeep {

// Adds the entries of one rule. `field`: path of the rule; `index`: its position. Refuses to let
// `entries` grow beyond `most`.
Result<void> add_rule_entries(const nfs::FirewallRule& rule, const std::string& field,
                              uint32_t index, size_t most, std::vector<ClassifierRule>& entries);

}  // namespace flowkeep
