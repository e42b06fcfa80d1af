// DrillPlan: whom a drill will hit, and when, one fault after the other. A storm draws both from
// its seed: the same seed gives the same sequence. Intervals are exponential, so moments are
// independent of each other and of every timer of the node. Steady plans go round the slots at one
// interval.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace flowkeep {

enum class Victim { kWorker, kStandby, kSuccessor, kSeveral };
const char* victim_name(Victim victim);
std::optional<Victim> parse_victim(const std::string& name);
inline constexpr const char* kVictimNames = "worker, standby, successor, several";

struct PlannedFault {
  Victim victim = Victim::kWorker;
  double after_us = 0;  // the fault before it
  uint32_t pick = 0;    // which slot, modulo how many there are
  double delay_us = 0;  // kSuccessor: after it took over
};

class DrillPlan {
 public:
  static DrillPlan steady(double interval_us);
  // `victims`: not empty. All but workers are hit now and then, one in ten each.
  static DrillPlan storm(uint64_t seed, double mean_interval_us, std::vector<Victim> victims);

  PlannedFault next();

 private:
  DrillPlan(uint64_t seed, double interval_us, std::vector<Victim> victims, bool random)
      : random_(seed), interval_us_(interval_us), victims_(std::move(victims)), drawn_(random) {}
  double fraction();  // [0, 1)
  Victim draw_victim();

  std::mt19937_64 random_;
  double interval_us_;
  std::vector<Victim> victims_;
  bool drawn_;
  uint32_t turn_ = 0;
};

}  // namespace flowkeep
