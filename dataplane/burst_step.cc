#include "dataplane/burst_step.h"

namespace flowkeep {

// A switch without default, so that the compiler demands a name for each new step.
std::string_view burst_step_name(BurstStep step) {
  switch (step) {
    case BurstStep::kNone:
      return "none";
    case BurstStep::kPeeked:
      return "peeked";
    case BurstStep::kRun:
      return "run";
    case BurstStep::kStaged:
      return "staged";
    case BurstStep::kCommitted:
      return "committed";
    case BurstStep::kMarked:
      return "marked";
    case BurstStep::kPublished:
      return "published";
    case BurstStep::kApplied:
      return "applied";
    case BurstStep::kUndoForgotten:
      return "undo_forgotten";
    case BurstStep::kReleased:
      return "released";
    case BurstStep::kSweepCommitted:
      return "sweep_committed";
    case BurstStep::kSweepApplied:
      return "sweep_applied";
    case BurstStep::kCount:
      break;
  }
  return "unknown";
}

std::optional<BurstStep> burst_step_of(std::string_view name) {
  for (uint32_t i = 1; i < static_cast<uint32_t>(BurstStep::kCount); ++i) {
    if (burst_step_name(static_cast<BurstStep>(i)) == name) return static_cast<BurstStep>(i);
  }
  return std::nullopt;
}

std::string burst_step_names() {
  std::string names;
  for (uint32_t i = 1; i < static_cast<uint32_t>(BurstStep::kCount); ++i) {
    names.append(i == 1 ? "" : ", ").append(burst_step_name(static_cast<BurstStep>(i)));
  }
  return names;
}

}  // namespace flowkeep
