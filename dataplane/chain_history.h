// What a node remembers of a chain besides the revision that it was last told to run: the last good
// revision, to go back to by itself, and the one that it gave up.
//
// One file for each chain, STATE_DIR/chains/NAME.history, replaced atomically but not synced: the
// supervisor, which writes it, must not wait for a disk. A power failure may lose it; then the node
// has nothing to go back to until a revision has proved itself. A file that cannot be read counts
// as none.
#pragma once

#include <string>

#include "dataplane/supervisor.pb.h"
#include "state/result.h"

namespace flowkeep {

Result<void> save_history(const std::string& state_dir, const std::string& chain,
                          const node::internal::ChainHistory& history);
void forget_history(const std::string& state_dir, const std::string& chain);
node::internal::ChainHistory load_history(const std::string& state_dir, const std::string& chain);

// Which revision a starting node runs: `told`, unless that was given up.
const node::v1::ChainRevision& revision_to_run(const node::v1::ChainRevision& told,
                                               const node::internal::ChainHistory& history);

}  // namespace flowkeep
