#include "dataplane/chain_history.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace flowkeep {
namespace {

namespace fs = std::filesystem;

fs::path history_path(const std::string& state_dir, const std::string& chain) {
  return fs::path(state_dir) / "chains" / (chain + ".history");
}

}  // namespace

Result<void> save_history(const std::string& state_dir, const std::string& chain,
                          const node::internal::ChainHistory& history) {
  const fs::path path = history_path(state_dir, chain);
  const fs::path fresh = path.string() + ".new";
  std::error_code failed;
  fs::create_directories(path.parent_path(), failed);
  {
    std::ofstream file(fresh, std::ios::binary | std::ios::trunc);
    history.SerializeToOstream(&file);
    file.close();
    if (!file)
      return unavailable("state_dir",
                         fresh.string() + " cannot be written: " + std::strerror(errno));
  }
  fs::rename(fresh, path, failed);
  if (failed)
    return unavailable("state_dir", path.string() + " cannot be written: " + failed.message());
  return {};
}

void forget_history(const std::string& state_dir, const std::string& chain) {
  std::error_code ignored;
  fs::remove(history_path(state_dir, chain), ignored);
}

node::internal::ChainHistory load_history(const std::string& state_dir, const std::string& chain) {
  std::ifstream file(history_path(state_dir, chain), std::ios::binary);
  node::internal::ChainHistory history;
  const bool whole = file && history.ParseFromIstream(&file) &&
                     (!history.has_last_good() || (history.last_good().chain() == chain &&
                                                   history.last_good().functions_size() > 0));
  return whole ? history : node::internal::ChainHistory();
}

const node::v1::ChainRevision& revision_to_run(const node::v1::ChainRevision& told,
                                               const node::internal::ChainHistory& history) {
  const bool given_up = history.has_last_good() && history.given_up_revision() == told.revision();
  return given_up ? history.last_good() : told;
}

}  // namespace flowkeep
