#include "dataplane/drill/drill_plan.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace flowkeep {
namespace {

constexpr double kShareOfOthers = 0.1;
constexpr double kLongestInterval = 8;  // times the mean
constexpr double kSuccessorDelayUs = 1000;

constexpr std::array<std::pair<Victim, const char*>, 4> kNames = {{
    {Victim::kWorker, "worker"},
    {Victim::kStandby, "standby"},
    {Victim::kSuccessor, "successor"},
    {Victim::kSeveral, "several"},
}};

}  // namespace

const char* victim_name(Victim victim) {
  return kNames[static_cast<size_t>(victim)].second;
}

std::optional<Victim> parse_victim(const std::string& name) {
  for (const auto& [victim, known] : kNames) {
    if (name == known) return victim;
  }
  return std::nullopt;
}

DrillPlan DrillPlan::steady(double interval_us) {
  return {0, interval_us, {Victim::kWorker}, false};
}

DrillPlan DrillPlan::storm(uint64_t seed, double mean_interval_us, std::vector<Victim> victims) {
  return {seed, mean_interval_us, std::move(victims), true};
}

// Not std::uniform_real_distribution, whose results differ between libraries.
double DrillPlan::fraction() {
  return static_cast<double>(random_() >> 11) * 0x1p-53;
}

Victim DrillPlan::draw_victim() {
  double drawn = fraction();
  const bool workers =
      std::find(victims_.begin(), victims_.end(), Victim::kWorker) != victims_.end();
  if (!workers) return victims_[static_cast<size_t>(drawn * static_cast<double>(victims_.size()))];
  for (const Victim victim : victims_) {
    if (victim == Victim::kWorker) continue;
    if (drawn < kShareOfOthers) return victim;
    drawn -= kShareOfOthers;
  }
  return Victim::kWorker;
}

PlannedFault DrillPlan::next() {
  if (!drawn_) return {Victim::kWorker, interval_us_, turn_++, 0};
  PlannedFault fault;
  fault.after_us = std::min(-std::log(1 - fraction()), kLongestInterval) * interval_us_;
  fault.victim = draw_victim();
  fault.pick = static_cast<uint32_t>(random_() >> 32);
  fault.delay_us = fraction() * kSuccessorDelayUs;
  return fault;
}

}  // namespace flowkeep
