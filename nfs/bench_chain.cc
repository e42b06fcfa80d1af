// Benchmark of the packet path in memory: one worker's share of the work on a packet, which is the
// look-up, a firewall of 100 rules, nat44 and the burst commit, without rings and ports.
//
//   bench_chain [--json]
//
// Cycles are those of the time stamp counter. A round's figure is its median burst's, so that being
// descheduled on a busy machine does not count. The pool lies in /dev/shm.
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "nfs/packet_path.h"

namespace flowkeep {
namespace {

constexpr uint32_t kRules = 100;
constexpr uint32_t kRounds = 9;
constexpr uint32_t kBurstsInRound = 4096;

double median(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const size_t half = samples.size() / 2;
  return samples.size() % 2 == 1 ? samples[half] : (samples[half - 1] + samples[half]) / 2;
}

struct Measured {
  std::string name;
  std::string metric;
  std::string unit;
  std::vector<double> samples;
  double goal = 0;  // the median at most; 0: none
};

// What the project wants an established flow's packet to cost through firewall and NAT, commit
// included.
constexpr double kGoalCycles10k = 80;
constexpr double kGoalCycles1M = 130;

class Bench {
 public:
  explicit Bench(uint64_t pool_bytes)
      : path_({"/dev/shm/flowkeep-bench-chain-" + std::to_string(getpid()), pool_bytes, false},
              kRules) {}

  // Cycles for each packet, of opening `flows` flows, 64 in a burst.
  Measured open(const std::string& name, uint32_t flows) {
    Measured measured{name, "cycles_per_packet", "cycles", {}, 0};
    std::vector<double> bursts;
    for (uint32_t first = 0; first < flows; first += kBurstPackets) {
      bursts.push_back(path_.burst([&](uint32_t i) {
        return Sent{Side::kInside, PacketPath::key_of(first + i)};
      }));
      if (bursts.size() < flows / kBurstPackets / kRounds) continue;
      measured.samples.push_back(median(bursts));
      bursts.clear();
    }
    if (path_.flows() < flows) PacketPath::fail("flows were refused");
    return measured;
  }

  // The first answer to each flow: its phase changes, so every burst commits.
  Measured answer_all(const std::string& name, uint32_t flows) {
    Measured measured{name, "cycles_per_packet", "cycles", {}, 0};
    const std::vector<FlowKey> keys = path_.outside_keys(flows);
    std::vector<double> bursts;
    for (uint32_t first = 0; first < flows; first += kBurstPackets) {
      bursts.push_back(path_.burst([&](uint32_t i) {
        return Sent{Side::kOutside, keys[first + i]};
      }));
      if (bursts.size() < flows / kBurstPackets / kRounds) continue;
      measured.samples.push_back(median(bursts));
      bursts.clear();
    }
    return measured;
  }

  // Of packets of random established flows, in the given share from the outside.
  Measured established(const std::string& name, uint32_t flows, uint32_t outside_of_8) {
    Measured measured{name, "cycles_per_packet", "cycles", {}, 0};
    std::mt19937 random(1);
    const std::vector<FlowKey> answers = path_.outside_keys(flows);
    for (uint32_t round = 0; round < kRounds; ++round) {
      std::vector<double> bursts;
      for (uint32_t n = 0; n < kBurstsInRound; ++n) {
        bursts.push_back(path_.burst([&](uint32_t) {
          const uint32_t flow = static_cast<uint32_t>(random()) % flows;
          return random() % 8 < outside_of_8 ? Sent{Side::kOutside, answers[flow]}
                                             : Sent{Side::kInside, PacketPath::key_of(flow)};
        }));
      }
      measured.samples.push_back(median(std::move(bursts)));
      ++path_.now_s;
    }
    return measured;
  }

 private:
  using Sent = PacketPath::Sent;

  PacketPath path_;
};

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(": ") + 2);
  }
  return "unknown processor";
}

bool met(const Measured& one) {
  return one.goal == 0 || median(one.samples) <= one.goal;
}

void print_json(const std::vector<Measured>& all) {
  utsname kernel{};
  uname(&kernel);
  std::printf(
      "{\"benchmark\": \"chain\", \"machine\": {\"cpu\": \"%s\", \"cores\": %ld, \"kernel\": "
      "\"%s\"},\n",
      cpu_model().c_str(), sysconf(_SC_NPROCESSORS_ONLN), kernel.release);
  std::printf(" \"results\": [");
  for (const Measured& one : all) {
    const auto [least, most] = std::minmax_element(one.samples.begin(), one.samples.end());
    std::printf(
        "%s\n  {\"case\": \"%s\", \"metric\": \"%s\", \"unit\": \"%s\", \"median\": %.1f, "
        "\"min\": %.1f, \"max\": %.1f, ",
        &one == &all.front() ? "" : ",", one.name.c_str(), one.metric.c_str(), one.unit.c_str(),
        median(one.samples), *least, *most);
    if (one.goal == 0) {
      std::printf("\"goal\": null, \"met\": null}");
    } else {
      std::printf("\"goal\": %.1f, \"met\": %s}", one.goal, met(one) ? "true" : "false");
    }
  }
  std::printf("\n ]}\n");
}

void print_table(const std::vector<Measured>& all) {
  std::printf("chain on %ld cores of %s\n", sysconf(_SC_NPROCESSORS_ONLN), cpu_model().c_str());
  for (const Measured& one : all) {
    const auto [least, most] = std::minmax_element(one.samples.begin(), one.samples.end());
    std::printf("  %-34s %-18s %8.1f %s (%.1f to %.1f)", one.name.c_str(), one.metric.c_str(),
                median(one.samples), one.unit.c_str(), *least, *most);
    if (one.goal != 0) std::printf("  goal %.1f: %s", one.goal, met(one) ? "met" : "MISSED");
    std::printf("\n");
  }
}

std::vector<Measured> measure_all() {
  std::vector<Measured> all;
  const struct {
    const char* name;
    uint32_t flows;
    uint64_t pool_bytes;
  } sizes[] = {{"10k flows", 10'240, 64U << 20}, {"1M flows", 1'048'576, 512U << 20}};
  for (const auto& size : sizes) {
    const std::string name = size.name;
    Bench bench(size.pool_bytes);
    all.push_back(bench.open(name + ", opening", size.flows));
    all.push_back(bench.answer_all(name + ", first answers", size.flows));
    all.push_back(bench.established(name + ", from the inside", size.flows, 0));
    all.push_back(bench.established(name + ", half from the outside", size.flows, 4));
  }
  for (Measured& one : all) {
    if (one.name.ends_with("from the inside") || one.name.ends_with("half from the outside"))
      one.goal = one.name.starts_with("10k") ? kGoalCycles10k : kGoalCycles1M;
  }
  return all;
}

}  // namespace
}  // namespace flowkeep

int main(int argc, char** argv) {
  const bool json = argc == 2 && std::strcmp(argv[1], "--json") == 0;
  if (argc > 1 && !json) {
    std::fprintf(stderr, "usage: bench_chain [--json]\n");
    return 2;
  }
  const auto all = flowkeep::measure_all();
  json ? flowkeep::print_json(all) : flowkeep::print_table(all);
  return std::all_of(all.begin(), all.end(), flowkeep::met) ? 0 : 1;
}
