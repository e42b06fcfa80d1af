// Benchmark of the packet path in memory: one worker's share of the work on a packet, which is the
// look-up, a firewall of 100 rules, nat44 and the burst commit, without rings and ports.
//
//   bench_chain [--json]
//
// Cycles are those of the time stamp counter. A round's figure is its median burst's, so that being
// descheduled on a busy machine does not count. The pool lies in /dev/shm.
#include <sys/utsname.h>
#include <unistd.h>
#include <x86intrin.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "nfs/chain_runtime.h"
#include "nfs/checksum.h"
#include "nfs/firewall/linear_classifier.h"
#include "nfs/packet_builder.h"
#include "nfs/parse.h"
#include "nfs/steering.h"

namespace flowkeep {
namespace {

constexpr uint32_t kBuckets = 256;
constexpr uint32_t kRounds = 9;
constexpr uint32_t kBurstsInRound = 4096;
constexpr size_t kFrameBytes = 128;  // room for each frame, a whole number of cache lines
constexpr uint32_t kEndpoints = 4096;

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

// 99 rules that match nothing of what is sent, then the one that does: the longest search.
ChainSpec hundred_rules_and_nat() {
  std::string rules;
  for (int i = 0; i < 99; ++i) {
    rules += R"({"name":"r)" + std::to_string(i) +
             R"(","action":"drop","protocol":"tcp","source":["172.16.)" + std::to_string(i) +
             R"(.0/24"]},)";
  }
  rules += R"({"name":"out","action":"accept","direction":"from_inside"})";
  return {"bench",
          1,
          {{"firewall", "{\"rules\":[" + rules + "]}"},
           {"nat44", R"({"external_addresses":["203.0.113.10"]})"}}};
}

std::unique_ptr<Chain> build() {
  FunctionContext context;
  context.make_classifier = [] { return std::make_unique<LinearClassifier>(); };
  auto chain = Chain::build(hundred_rules_and_nat(), context);
  if (!chain.ok()) std::abort();
  return std::move(*chain);
}

class Bench {
 public:
  explicit Bench(uint64_t pool_bytes) : chain_(build()), undo_(std::make_unique<UndoLog>()) {
    unlink(path_.c_str());
    auto pool = Pool::open({path_, pool_bytes, false});
    if (!pool.ok()) fail(pool.error().text());
    pool_ = std::move(*pool);
    const auto attached = pool_->attach_chain("bench", kBuckets);
    if (!attached.ok()) fail(attached.error().text());
    index_ = attached->index;
    table_ = std::make_unique<FlowTable>(*pool_, index_, 0);
    runtime_ = std::make_unique<ChainRuntime>(*chain_, *table_, 1);
    frames_.resize(kFrameBytes * kBurstPackets + 64);
    frame_ = frames_.data() + (64 - reinterpret_cast<uintptr_t>(frames_.data()) % 64) % 64;
    template_ = PacketBuilder::udp("10.0.0.0", 0, "198.18.0.0", 53).payload(18).build();
  }
  ~Bench() { unlink(path_.c_str()); }

  // Cycles for each packet, of opening `flows` flows, 64 in a burst.
  Measured open(const std::string& name, uint32_t flows) {
    Measured measured{name, "cycles_per_packet", "cycles", {}, 0};
    std::vector<double> bursts;
    for (uint32_t first = 0; first < flows; first += kBurstPackets) {
      bursts.push_back(burst([&](uint32_t i) { return Sent{Side::kInside, key_of(first + i)}; }));
      if (bursts.size() < flows / kBurstPackets / kRounds) continue;
      measured.samples.push_back(median(bursts));
      bursts.clear();
    }
    if (pool_->count_flows(index_) < flows) fail("flows were refused");
    return measured;
  }

  // The first answer to each flow: its phase changes, so every burst commits.
  Measured answer_all(const std::string& name, uint32_t flows) {
    Measured measured{name, "cycles_per_packet", "cycles", {}, 0};
    const std::vector<FlowKey> keys = outside_keys(flows);
    std::vector<double> bursts;
    for (uint32_t first = 0; first < flows; first += kBurstPackets) {
      bursts.push_back(burst([&](uint32_t i) { return Sent{Side::kOutside, keys[first + i]}; }));
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
    const std::vector<FlowKey> answers = outside_keys(flows);
    for (uint32_t round = 0; round < kRounds; ++round) {
      std::vector<double> bursts;
      for (uint32_t n = 0; n < kBurstsInRound; ++n) {
        bursts.push_back(burst([&](uint32_t) {
          const uint32_t flow = static_cast<uint32_t>(random()) % flows;
          return random() % 8 < outside_of_8 ? Sent{Side::kOutside, answers[flow]}
                                             : Sent{Side::kInside, key_of(flow)};
        }));
      }
      measured.samples.push_back(median(std::move(bursts)));
      ++now_s_;
    }
    return measured;
  }

 private:
  struct Sent {
    Side side;
    FlowKey key;
  };

  [[noreturn]] static void fail(const std::string& why) {
    std::fprintf(stderr, "bench_chain: %s\n", why.c_str());
    std::exit(2);
  }

  // Flow number n: one of 4096 inside endpoints towards a remote address of the flow's own.
  static FlowKey key_of(uint32_t n) {
    const uint32_t endpoint = n % kEndpoints;
    return {Be32::from_host(0x0a000000 + endpoint / 16),
            Be32::from_host(0xc6120000 + n / kEndpoints),
            Be16::from_host(static_cast<uint16_t>(2000 + endpoint % 16)),
            Be16::from_host(53),
            kProtocolUdp,
            Side::kInside,
            0};
  }

  std::vector<FlowKey> outside_keys(uint32_t flows) const {
    std::vector<FlowKey> keys;
    for (uint32_t n = 0; n < flows; ++n) {
      const FlowKey key = key_of(n);
      const RecordId id = table_->find(bucket_of(key), key, hash_key(key, pool_->hash_secret()));
      keys.push_back(table_->record(id).outside_key);
    }
    return keys;
  }

  uint32_t bucket_of(const FlowKey& inside) const {
    return static_cast<uint32_t>(
        steering_hash(chain_->steering_scope(), inside, pool_->hash_secret()) % kBuckets);
  }

  // What the switch does, not measured: writes the frame, parses and steers it.
  Packet place(uint32_t i, const Sent& sent) {
    uint8_t* frame = frame_ + i * kFrameBytes;
    std::memcpy(frame, template_.data(), template_.size());
    auto& ip = checked_header<Ipv4Header>(frame, sizeof(EthernetHeader));
    auto& udp = checked_header<UdpHeader>(frame, sizeof(EthernetHeader) + sizeof(Ipv4Header));
    ip.src.set(sent.key.src);
    ip.dst.set(sent.key.dst);
    udp.src_port.set(sent.key.src_port);
    udp.dst_port.set(sent.key.dst_port);
    ip.checksum.set(Be16{});
    ip.checksum.set(internet_checksum(frame + sizeof(EthernetHeader), sizeof(Ipv4Header)));
    PacketMeta& meta = metas_[i];
    const auto length = static_cast<uint16_t>(template_.size());
    if (parse(frame, length, sent.side, pool_->hash_secret(), meta) != DropReason::kNone)
      std::abort();
    const size_t block = meta.key.dst_port.host() / kPortBlockPorts;
    meta.bucket =
        sent.side == Side::kInside ? bucket_of(meta.key) : pool_->port_leases(index_)[block] - 1;
    return {frame, &meta, i};
  }

  // Cycles for each packet.
  template <typename Next>
  double burst(Next&& next) {
    Packet packets[kBurstPackets];
    for (uint32_t i = 0; i < kBurstPackets; ++i) packets[i] = place(i, next(i));
    const uint64_t begin = __rdtsc();
    for (size_t done = 0; done < kBurstPackets;) {
      undo_->count = 0;
      done += runtime_->run(std::span(packets).subspan(done), now_s_, *undo_);
      if (table_->dirty()) {
        table_->commit({});
        table_->apply();
      }
    }
    const uint64_t end = __rdtsc();
    for (const Packet& packet : packets) {
      if (packet.meta->verdict != Verdict::kForward) {
        fail("a packet was dropped: " + std::string(drop_reason_name(packet.meta->reason)));
      }
    }
    return static_cast<double>(end - begin) / kBurstPackets;
  }

  const std::string path_ = "/dev/shm/flowkeep-bench-chain-" + std::to_string(getpid());
  std::unique_ptr<Chain> chain_;
  std::unique_ptr<Pool> pool_;
  std::unique_ptr<FlowTable> table_;
  std::unique_ptr<ChainRuntime> runtime_;
  std::unique_ptr<UndoLog> undo_;
  uint32_t index_ = 0;
  uint32_t now_s_ = 1'000'000;
  Bytes template_;
  std::vector<uint8_t> frames_;
  uint8_t* frame_;
  PacketMeta metas_[kBurstPackets];
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
