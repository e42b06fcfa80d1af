// libFuzzer target: the YAML of chains, as `flowkeepctl apply` reads it, with the file of rules
// that they may name, and then the functions' configurations as the controller checks them.
//
//   ./flowkeep fuzz chain-yaml
#include "controller/ctl/chain_yaml.h"

#include <google/protobuf/util/json_util.h>

#include "nfs/chain.h"
#include "nfs/fuzz_script.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace flowkeep;
  constexpr std::string_view kRules = "\n=== rules\n";  // before what the file of rules holds
  const std::string text(reinterpret_cast<const char*>(bytes), size);
  const size_t rules = text.find(kRules);
  const auto read = [&](const std::string& name) -> Result<std::string> {
    if (rules == std::string::npos) return invalid(name, "cannot be read");
    return text.substr(rules + kRules.size());
  };
  const auto documents = parse_chains(text.substr(0, rules), "fuzzed.yaml", read);
  if (!documents.ok()) {
    demand(!documents.error().text().empty(), "a refusal says why");
    return 0;
  }
  for (const ChainDocument& document : *documents) {
    ChainSpec spec{document.chain.name(), 1, {}};
    for (const auto& function : document.chain.spec().functions()) {
      std::string json;
      if (!google::protobuf::util::MessageToJsonString(function.config(), &json).ok()) return 0;
      spec.functions.push_back({function.type(), json});
    }
    const auto checked = validate_chain(spec);
    if (!checked.ok()) {
      demand(!document.place(checked.error().text()).empty(), "a place is known");
    }
  }
  return 0;
}
