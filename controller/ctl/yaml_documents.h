// The documents of a YAML text. What YAML::LoadAll() does, except that it never ends where a
// character that can begin no node stands between documents (", a": yaml-cpp 0.7 then makes empty
// documents of it for ever).
#pragma once

#include <yaml-cpp/yaml.h>

#include <string>
#include <vector>

namespace flowkeep {

// Throws YAML::Exception, with the place, if the text is not YAML.
std::vector<YAML::Node> yaml_documents(const std::string& text);

}  // namespace flowkeep
