#include "dataplane/chain_revision.h"

#include <fcntl.h>
#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "nfs/timeouts_message.h"

namespace flowkeep {
namespace {

namespace fs = std::filesystem;

bool good_name(const std::string& name) {
  return !name.empty() && name.size() <= 63 &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
         });
}

Result<void> check_port(const std::string& field, const std::string& name, Side role,
                        const NodeConfig& config) {
  std::string known;
  for (const PortConfig& port : config.ports) {
    known += (known.empty() ? "" : ", ") + port.name;
    if (port.name != name) continue;
    if (port.role == role) return {};
    return invalid(field, "port \"" + name + "\" has the role " +
                              (port.role == Side::kInside ? "inside" : "outside") +
                              "; a port of the other role is accepted");
  }
  return invalid(field, "port \"" + name + "\" does not exist on node \"" + config.name +
                            "\"; it has: " + known);
}

fs::path revision_path(const std::string& state_dir, const std::string& chain) {
  return fs::path(state_dir) / "chains" / (chain + ".revision");
}

}  // namespace

Result<void> check_revision(const node::v1::ChainRevision& revision, const NodeConfig& config) {
  if (!good_name(revision.chain())) {
    return invalid("metadata.name",
                   "\"" + revision.chain() + "\" is not accepted; 1 to 63 of a-z, 0-9 and - are");
  }
  if (revision.inside() == revision.outside()) {
    return invalid("spec.outside", "port \"" + revision.outside() +
                                       "\" is used twice; a chain needs two different ports");
  }
  if (Result<void> port = check_port("spec.inside", revision.inside(), Side::kInside, config);
      !port)
    return port;
  if (Result<void> port = check_port("spec.outside", revision.outside(), Side::kOutside, config);
      !port)
    return port;
  if (revision.workers() > config.worker_slots) {
    return invalid("spec.workers", std::to_string(revision.workers()) +
                                       " is not accepted; node \"" + config.name + "\" has " +
                                       std::to_string(config.worker_slots) + " worker slots");
  }
  const uint32_t buckets = revision.buckets();
  if (buckets != 0 && (buckets < 16 || buckets > kMaxBuckets || (buckets & (buckets - 1)) != 0)) {
    return invalid("spec.buckets", std::to_string(buckets) +
                                       " is not accepted; a power of two from 16 to " +
                                       std::to_string(kMaxBuckets) + " is");
  }
  return {};
}

Result<ChainSpec> chain_spec_from_bytes(const std::string& serialized) {
  node::v1::ChainRevision revision;
  if (!revision.ParseFromString(serialized)) return internal_error("revision", "cannot be parsed");
  return chain_spec(revision);
}

Result<ChainSpec> chain_spec(const node::v1::ChainRevision& revision) {
  ChainSpec spec;
  spec.name = revision.chain();
  spec.revision = revision.revision();
  spec.timeouts = timeouts_of(revision.timeouts());
  for (const node::v1::Function& function : revision.functions()) {
    std::string json;
    const auto status = google::protobuf::util::MessageToJsonString(function.config(), &json);
    if (!status.ok()) {
      return invalid("spec.functions[" + std::to_string(spec.functions.size()) + "].config",
                     status.ToString());
    }
    spec.functions.push_back({function.type(), json});
  }
  return spec;
}

Result<void> save_revision(const std::string& state_dir, const node::v1::ChainRevision& revision) {
  const fs::path path = revision_path(state_dir, revision.chain());
  const fs::path fresh = path.string() + ".new";
  std::error_code ignored;
  fs::create_directories(path.parent_path(), ignored);
  const int fd = open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  const std::string bytes = revision.SerializeAsString();
  const bool written =
      fd >= 0 && write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()) &&
      fsync(fd) == 0 && rename(fresh.c_str(), path.c_str()) == 0;
  const int reason = errno;
  if (fd >= 0) close(fd);
  if (written) return {};
  return unavailable("state_dir", path.string() + " cannot be written: " + std::strerror(reason));
}

Result<void> forget_revision(const std::string& state_dir, const std::string& chain) {
  std::error_code failed;
  fs::remove(revision_path(state_dir, chain), failed);
  if (failed)
    return unavailable("state_dir",
                       "cannot remove the revision of " + chain + ": " + failed.message());
  return {};
}

std::vector<node::v1::ChainRevision> load_revisions(const std::string& state_dir,
                                                    std::vector<std::string>& problems) {
  std::vector<node::v1::ChainRevision> revisions;
  std::error_code failed;
  for (const fs::directory_entry& entry :
       fs::directory_iterator(fs::path(state_dir) / "chains", failed)) {
    if (entry.path().extension() != ".revision") continue;
    std::ifstream file(entry.path(), std::ios::binary);
    node::v1::ChainRevision revision;
    const bool whole = file && revision.ParseFromIstream(&file) && revision.functions_size() > 0 &&
                       revision.chain() == entry.path().stem();
    if (whole) {
      revisions.push_back(revision);
    } else {
      problems.push_back(
          entry.path().string() +
          " is no chain revision; the chain is not started until its controller sends it");
    }
  }
  return revisions;
}

}  // namespace flowkeep
