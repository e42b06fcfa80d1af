#include "controller/ctl/rule_warnings.h"

#include <google/protobuf/util/json_util.h>

#include "nfs/firewall/rule_check.h"
#include "nfs/json_config.h"

namespace flowkeep {

std::vector<RuleWarning> check_firewall_rules(const google::protobuf::Struct& config,
                                              const std::string& path) {
  std::string json;
  nfs::FirewallConfig firewall;
  if (!google::protobuf::util::MessageToJsonString(config, &json).ok()) return {};
  if (!read_json_config(json, path, firewall).ok()) return {};
  const auto findings = check_rules(firewall, path);
  if (!findings.ok()) return {};
  std::vector<RuleWarning> warnings;
  for (const RuleFinding& finding : *findings) {
    warnings.push_back(
        {path + ".rules[" + std::to_string(finding.rule) + ']', finding_text(firewall, finding)});
  }
  return warnings;
}

}  // namespace flowkeep
