// Plants each bug of state/planted_bug.h in the commit protocol and demands that the crash
// simulation finds it; and that the same simulation finds nothing where nothing is planted.
#include "state/planted_bug.h"

#include <gtest/gtest.h>

#include <iterator>
#include <vector>

#include "nfs/crash_simulation.h"

namespace flowkeep {
namespace {

constexpr uint64_t kEnough = 100'000;  // images; most bugs show within the first thousand

CrashSimulationReport simulate_with(PlantedBug bug, uint64_t distinct) {
  CrashSimulationOptions options;
  options.distinct = distinct;
  options.images.elsewhere_every = 3;  // more runs instead
  planted_bug = bug;
  CrashSimulationReport report = simulate_crashes(options);
  planted_bug = PlantedBug::kNone;
  return report;
}

// All but the one that records of three lines made rare: it takes 66,000 images or more than the
// limit, and `bench crash` looks for it.
std::vector<PlantedBugName> bugs_found_soon() {
  std::vector<PlantedBugName> bugs(std::begin(kPlantedBugs), std::end(kPlantedBugs));
  std::erase_if(bugs, [](const auto& one) { return one.bug == PlantedBug::kOldWordsNotLogged; });
  return bugs;
}

class PlantedBugTest : public testing::TestWithParam<PlantedBugName> {};
INSTANTIATE_TEST_SUITE_P(Bugs, PlantedBugTest, testing::ValuesIn(bugs_found_soon()),
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
  CrashSimulationOptions options;
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
