// Power cuts in recorded runs of firewall and nat44: no image that a cut can leave may lose a
// packet that has left, or show a burst by halves.
#include "nfs/crash_simulation.h"

#include <gtest/gtest.h>

#include <random>

namespace flowkeep {
namespace {

TEST(CrashSimulation, NoImageLosesABurstOrShowsOneByHalves) {
  CrashSimulationOptions options;
  options.seed = std::random_device{}() % 1'000'000;
  options.distinct = 6'000;
  options.images.elsewhere_every = 7;  // more runs instead
  const CrashSimulationReport report = simulate_crashes(options);
  std::printf("seed %lu: %lu distinct images, %lu of them of a recovery, of %lu bursts\n",
              options.seed, report.counts.distinct, report.counts.recovery_cuts, report.bursts);
  EXPECT_EQ(report.text(), "");
  EXPECT_GE(report.counts.distinct, options.distinct);
  EXPECT_GT(report.counts.recovery_cuts, 100U);
  EXPECT_GT(report.counts.continued, 100U);
}

// The runs must come to what the simulation is about, or it would show little.
TEST(CrashSimulation, RunsHaveDeathsAndHandovers) {
  CrashSimulationOptions options;
  options.distinct = UINT64_MAX;
  options.most_runs = 6;
  options.images.images_at_fences = 1;
  options.images.elsewhere_every = 0;
  const CrashSimulationReport report = simulate_crashes(options);
  EXPECT_EQ(report.text(), "");
  EXPECT_GT(report.worker_deaths, 5U);
  EXPECT_GT(report.handovers, 5U);
  EXPECT_GT(report.packets, 300U);
}

TEST(CrashSimulation, AnImageIsTheSameWhenItIsAskedForAlone) {
  CrashSimulationOptions options;
  options.seed = 7;
  const CrashSimulationReport once = simulate_crash(options, 500, 3);
  const CrashSimulationReport again = simulate_crash(options, 500, 3);
  EXPECT_EQ(once.text(), "");
  EXPECT_EQ(once.counts.steps, 500U);
  EXPECT_EQ(once.counts.most_words_lost, again.counts.most_words_lost);
}

}  // namespace
}  // namespace flowkeep
