#include "dataplane/supervisor/poison.h"

#include <algorithm>

namespace flowkeep {
namespace {

constexpr size_t kRemembered = 16;

bool before(uint32_t a, uint32_t b) {
  return static_cast<int32_t>(a - b) < 0;
}

}  // namespace

void PoisonSearch::note_death(uint64_t worker, uint32_t begin, uint32_t end, DeathCause cause) {
  // What was passed is no suspect any more.
  std::erase_if(deaths_, [begin](const Death& death) { return !before(begin, death.end); });
  if (begin == end || cause == DeathCause::kOutside) return;
  if (deaths_.size() == kRemembered) deaths_.erase(deaths_.begin());
  deaths_.push_back({worker, begin, end, cause});
}

void PoisonSearch::note_cause(uint64_t worker, DeathCause cause) {
  for (Death& death : deaths_) {
    if (death.worker == worker) death.cause = cause;
  }
  std::erase_if(deaths_, [](const Death& death) { return death.cause == DeathCause::kOutside; });
}

bool PoisonSearch::has_killed_twice(uint32_t position) const {
  uint32_t kills = 0;
  for (const Death& death : deaths_) {
    if (death.cause != DeathCause::kOwn || death.explained || !holds(death, position)) continue;
    if (++kills > 1 && death.end - death.begin == 1) return true;
  }
  return false;
}

void PoisonSearch::acquit_neighbours_of(uint32_t position) {
  for (Death& death : deaths_) death.explained |= holds(death, position);
}

bool PoisonSearch::suspects_from(uint32_t position) const {
  return std::any_of(deaths_.begin(), deaths_.end(),
                     [position](const Death& death) { return before(position, death.end); });
}

uint32_t PoisonSearch::suspects_end() const {
  uint32_t end = deaths_.front().end;
  for (const Death& death : deaths_) {
    if (before(end, death.end)) end = death.end;
  }
  return end;
}

}  // namespace flowkeep
