#include "dataplane/supervisor/revision_health.h"

namespace flowkeep {

void RevisionHealth::note_death(uint64_t now_us) {
  ++deaths_;
  recent_us_.push_back(now_us);
  if (recent_us_.size() > limits_.window_deaths) recent_us_.pop_front();
}

bool RevisionHealth::hopeless(uint64_t now_us) const {
  if (now_us - started_us_ < limits_.young_us && deaths_ >= limits_.young_deaths) return true;
  return recent_us_.size() == limits_.window_deaths &&
         now_us - recent_us_.front() < limits_.window_us;
}

bool RevisionHealth::good(uint64_t now_us) const {
  return recent_us_.empty() || now_us - recent_us_.back() >= limits_.good_us;
}

}  // namespace flowkeep
