// The tenant's named sets: lists of prefixes and of ports that rules refer to as "@name".
#pragma once

#include <map>
#include <string>
#include <vector>

#include "nfs/firewall/firewall.pb.h"
#include "nfs/firewall/ip_prefix.h"
#include "nfs/firewall/rule_text.h"

namespace flowkeep {

class NamedSets {
 public:
  // `field`: path of the firewall's configuration. An empty set is accepted: nothing is in it.
  static Result<NamedSets> create(const nfs::FirewallConfig& config, const std::string& field);

  // A rule's list, with the members of each set in its place. An empty list stays empty; one that
  // names empty sets only is refused, because it would match nothing.
  Result<std::vector<IpPrefix>> prefixes(const RuleTexts& texts, const std::string& field) const;
  Result<std::vector<PortRange>> ports(const RuleTexts& texts, const std::string& field) const;

 private:
  std::map<std::string, std::vector<IpPrefix>, std::less<>> addresses_;
  std::map<std::string, std::vector<PortRange>, std::less<>> ports_;
};

}  // namespace flowkeep
