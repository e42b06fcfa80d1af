// What is questionable about the rules of a chain's firewall, before it is applied.
#pragma once

#include <google/protobuf/struct.pb.h>

#include <string>
#include <vector>

#include "state/result.h"

namespace flowkeep {

struct RuleWarning {
  std::string field;  // path of the rule
  std::string text;
};

// `path`: of the configuration. Error: it is one that the controller will refuse.
Result<std::vector<RuleWarning>> check_firewall_rules(const google::protobuf::Struct& config,
                                                      const std::string& path);

}  // namespace flowkeep
