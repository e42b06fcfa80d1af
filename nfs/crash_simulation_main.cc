// crash_simulation: cuts the power in recorded runs until enough distinct images were checked.
// Prints counts as JSON. Exit status: 0 no violation, 1 a violation, 2 usage, 3 the simulation
// itself failed.
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string_view>

#include "nfs/crash_simulation.h"
#include "state/planted_bug.h"

namespace flowkeep {
namespace {

struct Arguments {
  CrashSimulationOptions options;
  std::optional<uint64_t> step;
  uint64_t image = 0;
};

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool plant([[maybe_unused]] std::string_view name) {
#ifdef FLOWKEEP_PLANTED_BUGS
  for (const PlantedBugName& known : kPlantedBugs) {
    if (known.name != name) continue;
    planted_bug = known.bug;
    return true;
  }
#endif
  return false;
}

std::optional<Arguments> parse_arguments(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const auto value = number(argv[i + 1]);
    if (name == "--bug" && plant(argv[i + 1])) continue;
    if (!value) return std::nullopt;
    if (name == "--seed") {
      arguments.options.seed = *value;
    } else if (name == "--distinct") {
      arguments.options.distinct = *value;
    } else if (name == "--runs") {
      arguments.options.most_runs = *value;
    } else if (name == "--life") {
      arguments.options.operations_in_a_life = *value;
    } else if (name == "--at-fences") {
      arguments.options.images.images_at_fences = static_cast<uint32_t>(*value);
    } else if (name == "--elsewhere") {
      arguments.options.images.elsewhere_every = static_cast<uint32_t>(*value);
    } else if (name == "--step") {
      arguments.step = *value;
    } else if (name == "--image") {
      arguments.image = *value;
    } else {
      return std::nullopt;
    }
  }
  return argc % 2 == 1 ? std::optional(arguments) : std::nullopt;
}

void print(const CrashSimulationReport& report, double seconds) {
  const CrashCounts& counts = report.counts;
  std::printf(
      "{\"seconds\": %.2f, \"runs\": %lu, \"bursts\": %lu, \"packets\": %lu, \"worker_deaths\": "
      "%lu, \"handovers\": %lu,\n \"steps\": %lu, \"drawn\": %lu, \"distinct\": %lu, "
      "\"recovery_cuts\": %lu, \"continued\": %lu, \"most_words_lost\": %lu, \"violations\": %d}\n",
      seconds, report.runs, report.bursts, report.packets, report.worker_deaths, report.handovers,
      counts.steps, counts.drawn, counts.distinct, counts.recovery_cuts, counts.continued,
      counts.most_words_lost, report.violation.what.empty() ? 0 : 1);
}

}  // namespace
}  // namespace flowkeep

int main(int argc, char** argv) {
  using namespace flowkeep;
  const auto arguments = parse_arguments(argc, argv);
  if (!arguments) {
    std::fprintf(
        stderr,
        "usage: crash_simulation [--seed N] [--distinct N] [--runs N] [--step N --image N] "
        "[--life N] [--at-fences N] [--elsewhere N] [--bug NAME]\n");
    return 2;
  }
  const auto begin = std::chrono::steady_clock::now();
  const CrashSimulationReport report =
      arguments->step ? simulate_crash(arguments->options, *arguments->step, arguments->image)
                      : simulate_crashes(arguments->options);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  print(report, took.count());
  if (!report.text().empty()) std::fprintf(stderr, "%s\n", report.text().c_str());
  if (!report.fault.empty()) return 3;
  return report.violation.what.empty() ? 0 : 1;
}
