// ChainRevision (dataplane/agent.proto) as the node uses it: checked against the node's ports,
// turned into what nfs/chain.h builds from, and kept on disk so that a node starts again without
// its controller.
#pragma once

#include <string>
#include <vector>

#include "dataplane/agent.pb.h"
#include "dataplane/node_config.h"
#include "nfs/chain.h"
#include "state/result.h"

namespace flowkeep {

// Name, ports, roles, number of workers and buckets. Errors name the field as the API spells it
// ("spec.inside").
Result<void> check_revision(const node::v1::ChainRevision& revision, const NodeConfig& config);

Result<ChainSpec> chain_spec_from_bytes(const std::string& serialized);
Result<ChainSpec> chain_spec(const node::v1::ChainRevision& revision);

// One file for each chain under STATE_DIR/chains, replaced atomically.
Result<void> save_revision(const std::string& state_dir, const node::v1::ChainRevision& revision);
Result<void> forget_revision(const std::string& state_dir, const std::string& chain);
// Files that cannot be read are skipped and named in `problems`.
std::vector<node::v1::ChainRevision> load_revisions(const std::string& state_dir,
                                                    std::vector<std::string>& problems);

}  // namespace flowkeep
