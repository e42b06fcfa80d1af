// Repairs the image of a damaged pool: completes what a crash left, drops what cannot be trusted,
// and rebuilds everything else from flow records that are whole. Buckets in which nothing is wrong
// stay as they are. The caller writes the image back.
//
// Everything that is given up is told, flow by flow where keys are legible.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "state/pool_findings.h"
#include "state/pool_image.h"

namespace flowkeep {

enum class RepairKind : uint8_t {
  kFound,   // what was wrong
  kMended,  // and what was done about it
  kLost,    // something was given up
};
std::string_view repair_kind_text(RepairKind kind);  // "found", "mended", "lost"

struct RepairStep {
  RepairKind kind;
  std::string where;  // as in a Finding
  std::string what;
};

struct RepairReport {
  std::vector<RepairStep> steps;
  uint64_t flows_kept = 0;
  uint64_t flows_given_up = 0;
  Findings remaining;  // none, unless this code has a bug: do not write the image back then
  bool changed() const { return !steps.empty(); }
  bool lost_anything() const;
};

RepairReport repair(PoolImage& image);

}  // namespace flowkeep
