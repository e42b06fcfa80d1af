// flowkeep-node: one node of the dataplane.
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "dataplane/node_config.h"
#include "dataplane/supervisor/supervisor.h"

namespace {

constexpr const char* kUsage =
    "usage: flowkeep-node --config FILE [--check-config]\n"
    "\n"
    "Runs a node in the foreground: switch, zygotes, workers and agent, as FILE (YAML, see "
    "configs/nodes/) says.\n"
    "SIGTERM or SIGINT ends it cleanly; its flows stay in the state pool.\n"
    "  --check-config  only reads and checks FILE\n"
    "Exit status: 0 ended cleanly, 1 could not start or failed, 2 usage, 3 the configuration is "
    "refused.\n";

}  // namespace

int main(int count, char** arguments) {
  std::string path;
  bool only_check = false;
  for (int i = 1; i < count; ++i) {
    if (std::strcmp(arguments[i], "--config") == 0 && i + 1 < count) {
      path = arguments[++i];
    } else if (std::strcmp(arguments[i], "--check-config") == 0) {
      only_check = true;
    } else if (std::strcmp(arguments[i], "--help") == 0) {
      std::fputs(kUsage, stdout);
      return 0;
    } else {
      std::fprintf(stderr, "flowkeep-node: unknown argument \"%s\"\n%s", arguments[i], kUsage);
      return 2;
    }
  }
  if (path.empty()) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  const flowkeep::Result<flowkeep::NodeConfig> config = flowkeep::NodeConfig::load(path);
  if (!config) {
    std::fprintf(stderr, "flowkeep-node: %s\n", config.error().text().c_str());
    return 3;
  }
  if (only_check) {
    std::printf("%s: node %s with %zu ports is accepted\n", path.c_str(), config->name.c_str(),
                config->ports.size());
    return 0;
  }
  if (geteuid() != 0) {
    std::fputs(
        "flowkeep-node: must run as root: it opens network devices and forks workers into a "
        "sandbox\n",
        stderr);
    return 1;
  }
  flowkeep::Result<std::unique_ptr<flowkeep::Supervisor>> supervisor =
      flowkeep::Supervisor::start(*config);
  if (!supervisor) {
    std::fprintf(stderr, "flowkeep-node: %s\n", supervisor.error().text().c_str());
    return 1;
  }
  return (*supervisor)->run();
}
