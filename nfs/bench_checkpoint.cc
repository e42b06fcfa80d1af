// What durable state costs: the packet path with burst commits against the same path without redo
// record, flush and fence, in pairs, interleaved in one run.
//
//   bench_checkpoint [--json] [--disk DIRECTORY] [--only PART OF A MEDIUM'S NAME]
//
// The overhead of a case is the median of the ratios of pairs. A pair's two halves are some dozens
// of bursts each; bursts during which the machine did something else are left out of both.
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "nfs/packet_path.h"

namespace flowkeep {
namespace {

constexpr uint64_t kPoolBytes = 64 << 20;
constexpr uint32_t kFlows = 10'240;
// The search of the rules is the same on both sides; the fewer there are, the more the commit
// shows.
constexpr uint32_t kRules = 1;
constexpr uint32_t kPackets = kBurstPackets;  // of a burst
// Pools of their own, because where a pool's pages come to lie makes a difference of a few per
// cent.
constexpr uint32_t kPools = 8;
constexpr uint32_t kPairs = 32;  // with each pair of pools
constexpr uint32_t kBurstsInHalf = 32;
// A burst that took so much longer than the median of its half was interrupted.
constexpr double kInterrupted = 4;

// What the project wants, in per cent.
constexpr double kGoalEstablished = 2;
constexpr double kGoalOpening = 15;
constexpr double kGoalChanging = 20;

struct MediumCase {
  std::string name;
  std::string directory;
  bool emulate = false;
  InjectedDelay delay = {};
  bool has_goals = false;
};

struct Row {
  std::string name;
  std::string metric;
  std::string unit;
  std::vector<double> samples;
  std::optional<double> goal_at_most;
};

// To the row of the same name, if there is one.
void add(const Row& row, std::vector<Row>& rows) {
  const auto known = std::ranges::find_if(
      rows, [&](const Row& other) { return other.name == row.name && other.metric == row.metric; });
  if (known == rows.end()) return rows.push_back(row);
  known->samples.insert(known->samples.end(), row.samples.begin(), row.samples.end());
}

double median(std::vector<double> samples) {
  const auto half = samples.begin() + static_cast<ptrdiff_t>(samples.size() / 2);
  std::ranges::nth_element(samples, half);
  return *half;
}

double mean_without_interruptions(const std::vector<double>& bursts) {
  const double limit = kInterrupted * median(bursts);
  double sum = 0;
  int count = 0;
  for (const double cycles : bursts) {
    if (cycles <= limit) sum += cycles, ++count;
  }
  return sum / count;
}

double tsc_hz() {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const uint64_t start_tsc = __rdtsc();
  while (Clock::now() - start < std::chrono::milliseconds(50)) {
  }
  const std::chrono::duration<double> passed = Clock::now() - start;
  return static_cast<double>(__rdtsc() - start_tsc) / passed.count();
}

// Two paths through the same packets, on the same medium.
class Pair {
 public:
  explicit Pair(const MediumCase& medium)
      : durable_({file(medium, "durable"), kPoolBytes, medium.emulate, medium.delay}, kRules),
        plain_({file(medium, "plain"), kPoolBytes, false}, kRules, Durability::kNone) {
    for (const Pool* pool : {&durable_.pool(), &plain_.pool()}) {
      // Page faults are no part of the comparison.
      madvise(pool->base(), pool->bytes(), MADV_POPULATE_WRITE);
    }
  }

  // Packet i of burst n.
  using Next = std::function<PacketPath::Sent(uint32_t n, uint32_t i)>;

  void run_both(uint32_t bursts, const Next& next) {
    for (uint32_t n = 0; n < bursts; ++n) {
      durable_.burst([&](uint32_t i) { return next(n, i); });
      plain_.burst([&](uint32_t i) { return next(n, i); });
    }
  }

  // Overhead in per cent, and the two sides' cycles for each packet.
  void measure(const std::string& name, std::optional<double> goal, uint32_t pairs,
               const Next& next, std::vector<Row>& rows) {
    Row overhead{name, "overhead", "%", {}, goal};
    Row durable{name, "durable", "cycles/packet", {}, {}};
    Row plain{name, "not durable", "cycles/packet", {}, {}};
    for (uint32_t pair = 0; pair < pairs; ++pair) {
      const auto half = [&](PacketPath& path) {
        std::vector<double> bursts;
        for (uint32_t n = 0; n < kBurstsInHalf; ++n) {
          bursts.push_back(
              path.burst([&](uint32_t i) { return next(pair * kBurstsInHalf + n, i); }));
        }
        ++path.now_s;
        return mean_without_interruptions(bursts);
      };
      double with = 0;
      double without = 0;
      if (pair % 2 == 0) {
        with = half(durable_);
        without = half(plain_);
      } else {
        without = half(plain_);
        with = half(durable_);
      }
      overhead.samples.push_back((with / without - 1) * 100);
      durable.samples.push_back(with);
      plain.samples.push_back(without);
    }
    for (Row* row : {&overhead, &durable, &plain}) add(*row, rows);
  }

 private:
  static std::string file(const MediumCase& medium, const char* which) {
    return medium.directory + "/flowkeep-bench-checkpoint-" + std::to_string(getpid()) + "-" +
           which;
  }

  PacketPath durable_;
  PacketPath plain_;
};

std::optional<double> goal(const MediumCase& medium, double per_cent) {
  return medium.has_goals ? std::optional(per_cent) : std::nullopt;
}

// Every packet opens a flow; the flows stay.
void measure_opening(const MediumCase& medium, double hz, std::vector<Row>& rows) {
  Pair pair(medium);
  const auto opening = [](uint32_t n, uint32_t i) {
    return PacketPath::Sent{Side::kInside, PacketPath::key_of(n * kPackets + i)};
  };
  const std::string name = medium.name + ": each packet opens a flow";
  std::vector<Row> measured;
  pair.measure(name, goal(medium, kGoalOpening), kPairs, opening, measured);
  Row rate{name, "flow set-up rate", "flows/s", {}, {}};
  for (const double cycles : measured[1].samples) rate.samples.push_back(hz / cycles);
  measured.push_back(std::move(rate));
  for (const Row& row : measured) add(row, rows);
}

void measure_others(const MediumCase& medium, std::vector<Row>& rows) {
  Pair pair(medium);
  pair.run_both(kFlows / kPackets, [](uint32_t n, uint32_t i) {
    return PacketPath::Sent{Side::kInside, PacketPath::key_of(n * kPackets + i)};
  });
  const auto established = [](uint32_t n, uint32_t i) {
    const uint32_t random = (n * kPackets + i) * 2654435761u >> 8;
    return PacketPath::Sent{Side::kInside, PacketPath::key_of(random % kFlows)};
  };
  pair.measure(medium.name + ": established flows", goal(medium, kGoalEstablished), kPairs,
               established, rows);

  const auto tcp = [](uint32_t n, uint32_t i, uint8_t flags) {
    const uint32_t flow = (n * kPackets + i) % kFlows;
    return PacketPath::Sent{Side::kInside, PacketPath::key_of(flow, kProtocolTcp), flags};
  };
  constexpr uint32_t kRound = kFlows / kPackets;
  pair.run_both(kRound, [&](uint32_t n, uint32_t i) { return tcp(n, i, kTcpSyn); });
  // A connection's end and its begin anew, in turn: each packet changes its flow's phase.
  const auto changing = [&](uint32_t n, uint32_t i) {
    return tcp(n, i, n / kRound % 2 == 0 ? kTcpFin | kTcpAck : kTcpSyn);
  };
  pair.measure(medium.name + ": each packet changes hard state", goal(medium, kGoalChanging),
               kPairs, changing, rows);
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(": ") + 2);
  }
  return "unknown processor";
}

bool met(const Row& row) {
  return !row.goal_at_most || median(row.samples) <= *row.goal_at_most;
}

void print_json(const std::vector<Row>& rows) {
  utsname kernel{};
  uname(&kernel);
  std::printf(
      "{\"benchmark\": \"checkpoint\", \"machine\": {\"cpu\": \"%s\", \"cores\": %ld, \"kernel\": "
      "\"%s\"},\n \"results\": [",
      cpu_model().c_str(), sysconf(_SC_NPROCESSORS_ONLN), kernel.release);
  for (const Row& row : rows) {
    const auto [least, most] = std::ranges::minmax_element(row.samples);
    std::printf(
        "%s\n  {\"case\": \"%s\", \"metric\": \"%s\", \"unit\": \"%s\", \"median\": %.2f, "
        "\"min\": %.2f, \"max\": %.2f, ",
        &row == &rows.front() ? "" : ",", row.name.c_str(), row.metric.c_str(), row.unit.c_str(),
        median(row.samples), *least, *most);
    if (row.goal_at_most) {
      std::printf("\"goal\": %.1f, \"met\": %s}", *row.goal_at_most, met(row) ? "true" : "false");
    } else {
      std::printf("\"goal\": null, \"met\": null}");
    }
  }
  std::printf("\n ]}\n");
}

void print_table(const std::vector<Row>& rows) {
  std::printf("durable against not durable on %ld cores of %s\n", sysconf(_SC_NPROCESSORS_ONLN),
              cpu_model().c_str());
  for (const Row& row : rows) {
    std::printf("  %-64s %-16s %12.1f %s", row.name.c_str(), row.metric.c_str(),
                median(row.samples), row.unit.c_str());
    if (row.goal_at_most) {
      std::printf("  goal at most %.0f: %s", *row.goal_at_most, met(row) ? "met" : "MISSED");
    }
    std::printf("\n");
  }
}

// hugetlbfs, mounted for as long as this lives; if that is not possible, `directory` is empty.
struct HugePageMount {
  std::string directory;
  HugePageMount() {
    std::string pattern = "/tmp/flowkeep-bench-huge-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) return;
    if (mount("none", pattern.c_str(), "hugetlbfs", 0, nullptr) == 0) {
      directory = pattern;
    } else {
      rmdir(pattern.c_str());
    }
  }
  ~HugePageMount() {
    if (directory.empty()) return;
    umount(directory.c_str());
    rmdir(directory.c_str());
  }
};

uint64_t free_huge_bytes() {
  std::ifstream file("/proc/meminfo");
  uint64_t pages = 0;
  uint64_t kib = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("HugePages_Free:")) pages = std::stoull(line.substr(15));
    if (line.starts_with("Hugepagesize:")) kib = std::stoull(line.substr(13));
  }
  return pages * kib * 1024;
}

std::vector<MediumCase> media(const std::string& disk, const std::string& huge) {
  std::vector<MediumCase> all = {{"tmpfs", "/dev/shm", false, {}, true},
                                 {"tmpfs, flushes emulated", "/dev/shm", true, {}, true}};
  for (const InjectedDelay delay : {InjectedDelay{100, 0}, InjectedDelay{500, 0},
                                    InjectedDelay{500, 10}, InjectedDelay{500, 50}}) {
    all.push_back({"tmpfs, emulated, +" + std::to_string(delay.fence_ns) + " ns per fence, +" +
                       std::to_string(delay.line_ns) + " ns per line",
                   "/dev/shm", true, delay, false});
  }
  if (!huge.empty() && free_huge_bytes() >= 2 * kPoolBytes) {
    all.push_back({"hugetlbfs", huge, false, {}, false});
    all.push_back({"hugetlbfs, flushes emulated", huge, true, {}, false});
  } else {
    std::fprintf(stderr,
                 "bench_checkpoint: hugetlbfs is left out: not root, or fewer than %llu MiB "
                 "of huge pages are free\n",
                 static_cast<unsigned long long>(2 * kPoolBytes >> 20));
  }
  all.push_back({"disk file", disk, false, {}, false});
  return all;
}

int run(const std::string& disk, const std::string& only, bool json) {
  const HugePageMount huge;
  const double hz = tsc_hz();
  std::vector<Row> rows;
  for (const MediumCase& medium : media(disk, huge.directory)) {
    if (medium.name.find(only) == std::string::npos) continue;
    for (uint32_t pool = 0; pool < kPools; ++pool) {
      measure_others(medium, rows);
      measure_opening(medium, hz, rows);
    }
  }
  json ? print_json(rows) : print_table(rows);
  return std::ranges::all_of(rows, met) ? 0 : 1;
}

}  // namespace
}  // namespace flowkeep

int main(int argc, char** argv) {
  bool json = false;
  std::string disk = "/var/tmp";
  std::string only;
  for (int i = 1; i < argc; ++i) {
    const bool has_value = i + 1 < argc;
    if (std::strcmp(argv[i], "--json") == 0) {
      json = true;
    } else if (std::strcmp(argv[i], "--disk") == 0 && has_value) {
      disk = argv[++i];
    } else if (std::strcmp(argv[i], "--only") == 0 && has_value) {
      only = argv[++i];
    } else {
      std::fprintf(stderr,
                   "usage: bench_checkpoint [--json] [--disk DIRECTORY] [--only PART OF A NAME]\n");
      return 2;
    }
  }
  return flowkeep::run(disk, only, json);
}
