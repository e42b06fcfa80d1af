// For benchmarks: the packet path in memory. One worker's share of the work on a packet, which is
// the look-up, firewall, nat44 and the burst commit, without rings and ports.
//
// Cycles are those of the time stamp counter.
#pragma once

#include <unistd.h>
#include <x86intrin.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nfs/chain_runtime.h"
#include "nfs/checksum.h"
#include "nfs/firewall/linear_classifier.h"
#include "nfs/packet_builder.h"
#include "nfs/parse.h"
#include "nfs/steering.h"

namespace flowkeep {

class PacketPath {
 public:
  static constexpr uint32_t kBuckets = 256;

  // A packet as its sender sees it.
  struct Sent {
    Side side;
    FlowKey key;
    uint8_t tcp_flags = 0;
  };

  // The pool's file is made anew, and removed at the end. `rules`: of the firewall, the last of
  // which decides.
  explicit PacketPath(const PoolOptions& pool, uint32_t rules,
                      Durability durability = Durability::kBurst)
      : path_(pool.path), chain_(build(rules)), undo_(std::make_unique<UndoLog>()) {
    unlink(path_.c_str());
    auto opened = Pool::open(pool);
    if (!opened.ok()) fail(opened.error().text());
    pool_ = std::move(*opened);
    const auto attached = pool_->attach_chain("bench", kBuckets);
    if (!attached.ok()) fail(attached.error().text());
    index_ = attached->index;
    table_ = std::make_unique<FlowTable>(*pool_, index_, 0, durability);
    runtime_ = std::make_unique<ChainRuntime>(*chain_, *table_, 1);
    frames_.resize(kFrameBytes * kBurstPackets + 64);
    frame_ = frames_.data() + (64 - reinterpret_cast<uintptr_t>(frames_.data()) % 64) % 64;
    udp_ = PacketBuilder::udp("10.0.0.0", 0, "198.18.0.0", 53).payload(18).build();
    tcp_ = PacketBuilder::tcp("10.0.0.0", 0, "198.18.0.0", 53, 0).build();
  }
  ~PacketPath() { unlink(path_.c_str()); }
  PacketPath(const PacketPath&) = delete;
  PacketPath& operator=(const PacketPath&) = delete;

  // Flow number n: one of 4096 inside endpoints towards a remote address of the flow's own.
  static FlowKey key_of(uint32_t n, uint8_t protocol = kProtocolUdp) {
    const uint32_t endpoint = n % kEndpoints;
    return {Be32::from_host(0x0a000000 + endpoint / 16),
            Be32::from_host(0xc6120000 + n / kEndpoints),
            Be16::from_host(static_cast<uint16_t>(2000 + endpoint % 16)),
            Be16::from_host(53),
            protocol,
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

  // `next(i)`: packet i of the burst. Returns cycles for each packet.
  template <typename Next>
  double burst(Next&& next) {
    Packet packets[kBurstPackets];
    for (uint32_t i = 0; i < kBurstPackets; ++i) packets[i] = place(i, next(i));
    const uint64_t begin = __rdtsc();
    for (size_t done = 0; done < kBurstPackets;) {
      undo_->forget();
      done += runtime_->run(std::span(packets).subspan(done), now_s, *undo_);
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

  uint64_t flows() const { return pool_->count_flows(index_); }
  const Pool& pool() const { return *pool_; }

  [[noreturn]] static void fail(const std::string& why) {
    std::fprintf(stderr, "flowkeep bench: %s\n", why.c_str());
    std::exit(2);
  }

  uint32_t now_s = 1'000'000;

 private:
  static constexpr size_t kFrameBytes = 128;  // room for each frame, a whole number of cache lines
  static constexpr uint32_t kEndpoints = 4096;

  // Rules that match nothing of what is sent, then the one that does: the longest search.
  static std::unique_ptr<Chain> build(uint32_t rule_count) {
    std::string rules;
    for (uint32_t i = 0; i + 1 < rule_count; ++i) {
      rules += R"({"name":"r)" + std::to_string(i) +
               R"(","action":"drop","protocol":"tcp","source":["172.16.)" + std::to_string(i) +
               R"(.0/24"]},)";
    }
    rules += R"({"name":"out","action":"accept","direction":"from_inside"})";
    const ChainSpec spec = {"bench",
                            1,
                            {{"firewall", R"({"tcp_tracking":"off","rules":[)" + rules + "]}"},
                             {"nat44", R"({"external_addresses":["203.0.113.10"]})"}}};
    FunctionContext context;
    context.make_classifier = [] { return std::make_unique<LinearClassifier>(); };
    auto chain = Chain::build(spec, context);
    if (!chain.ok()) fail(chain.error().text());
    return std::move(*chain);
  }

  uint32_t bucket_of(const FlowKey& inside) const {
    return static_cast<uint32_t>(
        steering_hash(chain_->steering_scope(), inside, pool_->hash_secret()) % kBuckets);
  }

  // What the switch does, not measured: writes the frame, parses and steers it.
  Packet place(uint32_t i, const Sent& sent) {
    const bool is_tcp = sent.key.protocol == kProtocolTcp;
    const Bytes& content = is_tcp ? tcp_ : udp_;
    uint8_t* frame = frame_ + i * kFrameBytes;
    std::memcpy(frame, content.data(), content.size());
    constexpr size_t kL4 = sizeof(EthernetHeader) + sizeof(Ipv4Header);
    auto& ip = checked_header<Ipv4Header>(frame, sizeof(EthernetHeader));
    auto& ports = checked_header<UdpHeader>(frame, kL4);  // TCP's lie in the same place
    ip.src.set(sent.key.src);
    ip.dst.set(sent.key.dst);
    ports.src_port.set(sent.key.src_port);
    ports.dst_port.set(sent.key.dst_port);
    if (is_tcp) checked_header<TcpHeader>(frame, kL4).flags = sent.tcp_flags;
    ip.checksum.set(Be16{});
    ip.checksum.set(internet_checksum(frame + sizeof(EthernetHeader), sizeof(Ipv4Header)));
    PacketMeta& meta = metas_[i];
    const auto length = static_cast<uint16_t>(content.size());
    if (parse(frame, length, sent.side, pool_->hash_secret(), meta) != DropReason::kNone)
      std::abort();
    const size_t block = meta.key.dst_port.host() / kPortBlockPorts;
    meta.bucket =
        sent.side == Side::kInside ? bucket_of(meta.key) : pool_->port_leases(index_)[block] - 1;
    return {frame, &meta, i};
  }

  const std::string path_;
  std::unique_ptr<Chain> chain_;
  std::unique_ptr<Pool> pool_;
  std::unique_ptr<FlowTable> table_;
  std::unique_ptr<ChainRuntime> runtime_;
  std::unique_ptr<UndoLog> undo_;
  uint32_t index_ = 0;
  Bytes udp_;
  Bytes tcp_;
  std::vector<uint8_t> frames_;
  uint8_t* frame_;
  PacketMeta metas_[kBurstPackets];
};

}  // namespace flowkeep
