// How a burst ends: the order on which everything rests that docs/architecture.md says of the burst
// cycle. Output waits for state: nothing is published before it is committed. What was committed is
// applied when it is published, because the packets need not wait for that.
//
// Thread rule: the worker's thread.
#pragma once

#include "state/planted_bug.h"

namespace flowkeep {

// commit(): returns when the burst is durable. publish(): the packets leave. apply(): the changes
// go home, and the burst is forgotten.
template <typename Commit, typename Publish, typename Apply>
void end_burst(Commit&& commit, Publish&& publish, Apply&& apply) {
  if (planted(PlantedBug::kPublishedBeforeCommit)) publish();
  commit();
  if (!planted(PlantedBug::kPublishedBeforeCommit)) publish();
  apply();
}

}  // namespace flowkeep
