#include "controller/ctl/rule_warnings.h"

#include <google/protobuf/util/json_util.h>

#include "nfs/firewall/rule_check.h"
#include "nfs/json_config.h"

namespace flowkeep {

Result<std::vector<RuleWarning>> check_firewall_rules(const google::protobuf::Struct& config,
                                                      const std::string& path) {
  std::string json;
  nfs::FirewallConfig firewall;
  if (const auto written = google::protobuf::util::MessageToJsonString(config, &json);
      !written.ok())
    return invalid(path, "is no JSON: " + written.ToString());
  if (const auto read = read_json_config(json, path, firewall); !read) return read.error();
  const auto findings = check_rules(firewall, path);
  if (!findings) return findings.error();
  std::vector<RuleWarning> warnings;
  for (const RuleFinding& finding : *findings) {
    warnings.push_back(
        {path + ".rules[" + std::to_string(finding.rule) + ']', finding_text(firewall, finding)});
  }
  return warnings;
}

}  // namespace flowkeep
