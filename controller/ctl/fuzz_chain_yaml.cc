// libFuzzer target: the YAML of chains, as `flowkeepctl apply` reads it, and then the functions'
// configurations as the controller checks them.
//
//   ./flowkeep fuzz chain-yaml
#include "controller/ctl/chain_yaml.h"

#include <google/protobuf/util/json_util.h>

#include "nfs/chain.h"
#include "nfs/fuzz_script.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace flowkeep;
  const std::string text(reinterpret_cast<const char*>(bytes), size);
  const auto documents = parse_chains(text, "fuzzed.yaml");
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
      demand(document.place(checked.error().text()).starts_with("fuzzed.yaml"), "a place is known");
    }
  }
  return 0;
}
