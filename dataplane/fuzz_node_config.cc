// libFuzzer target: a node's configuration.
//
//   ./flowkeep fuzz node-yaml
#include "dataplane/node_config.h"
#include "nfs/fuzz_script.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace flowkeep;
  const std::string text(reinterpret_cast<const char*>(bytes), size);
  const auto config = NodeConfig::parse(text, "fuzzed.yaml");
  if (config.ok()) {
    demand(!config->name.empty() && config->worker_slots > 0, "what is accepted is usable");
  } else {
    demand(config.error().text().find("fuzzed.yaml") != std::string::npos,
           "a refusal names the file: " + config.error().text());
  }
  return 0;
}
