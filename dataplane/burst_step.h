// The named steps of the burst cycle (dataplane/worker.h): the places at which a worker can be told
// to stop, so that a drill or a test kills it there. A step's name says what has just happened.
//
// Numbers are the steps' order in time; a test walks over all of them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace flowkeep {

enum class BurstStep : uint32_t {
  kNone,            // do not stop
  kPeeked,          // packets looked at in the inbox, nothing else
  kRun,             // functions have run: packets edited, write set staged
  kStaged,          // packets in the outbox, unpublished
  kCommitted,       // redo record durable (if hard state changed), `committed` not yet stored
  kMarked,          // `committed` stored
  kPublished,       // outbox published
  kApplied,         // write set stored home, not yet noted in `done_sequence`
  kUndoForgotten,   // undo log empty, inbox not yet released
  kReleased,        // the burst has ended
  kSweepCommitted,  // expired flows are closed in the redo log, not yet in the home records
  kSweepApplied,    // and there too, not yet noted
  kCount
};

// "peeked", "run", ... "sweep_applied".
std::string_view burst_step_name(BurstStep step);
std::optional<BurstStep> burst_step_of(std::string_view name);
// "peeked, run, ...": what burst_step_of() accepts.
std::string burst_step_names();

}  // namespace flowkeep
