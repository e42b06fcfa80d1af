// For tests of the burst protocol: an arena and a pool of their own with a stand-in for the switch
// that makes packets by hand, no EAL. Workers are real processes and are really killed. What comes
// out is checked packet by packet: none missing, none twice, none out of order, each as its flow's
// translation wants it.
#pragma once

#include <gtest/gtest.h>
#include <rte_mbuf.h>
#include <rte_ring_peek_zc.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <deque>
#include <optional>
#include <random>
#include <set>

#include "dataplane/worker.h"
#include "nfs/chain_harness.h"

namespace flowkeep {

inline constexpr uint32_t kPackets = 4096;
inline constexpr uint32_t kPacketBytes = 1024;
inline constexpr uint32_t kBuckets = 16;
inline constexpr size_t kSlot = 0;
inline constexpr size_t kNumberedBytes =
    24;  // payload; the flow and the packet's number are its first 8 bytes
inline constexpr char kRemote[] = "198.51.100.7";
inline constexpr char kExternal[] = "203.0.113.10";

inline const ChainSpec kFirewallAndNat = {
    "test",
    1,
    {{"firewall", R"({"rules":[{"name":"udp","action":"accept","protocol":"udp"},
                               {"name":"telnet","action":"reject","protocol":"tcp",
                                "destination_ports":["23"],"log":true}]})"},
     {"nat44", R"({"external_addresses":["203.0.113.10"]})"}}};

struct ArenaPacket {
  rte_mbuf mbuf;
  PacketMeta meta;
  uint8_t headroom[RTE_PKTMBUF_HEADROOM];
  uint8_t frame[512];
};
static_assert(sizeof(ArenaPacket) <= kPacketBytes &&
              offsetof(ArenaPacket, meta) == sizeof(rte_mbuf));

// Writes flow and number into a UDP or TCP packet's payload and makes its checksum right.
inline Bytes numbered(Bytes frame, uint32_t flow, uint32_t number) {
  uint8_t* const ip = &frame[sizeof(EthernetHeader)];
  uint8_t* const l4 = ip + sizeof(Ipv4Header);
  const size_t l4_bytes = frame.size() - sizeof(EthernetHeader) - sizeof(Ipv4Header);
  uint8_t* const payload = &frame[frame.size() - kNumberedBytes];
  std::memcpy(payload, &flow, sizeof(flow));
  std::memcpy(payload + 4, &number, sizeof(number));
  uint8_t* const field = l4 + (ip[9] == kProtocolUdp ? 6 : 16);
  field[0] = field[1] = 0;
  uint16_t checksum =
      naive_checksum(naive_sum(l4, l4_bytes) + naive_pseudo_header_sum(ip, ip[9], l4_bytes));
  if (checksum == 0 && ip[9] == kProtocolUdp)
    checksum = 0xffff;  // RFC 768: 0 says that there is none
  field[0] = static_cast<uint8_t>(checksum >> 8);
  field[1] = static_cast<uint8_t>(checksum);
  return frame;
}

// A flow as both sides see it. Each has an inside endpoint of its own.
struct TestFlow {
  std::string address;
  uint16_t port = 0;
  uint16_t external_port = 0;  // 0: not seen yet
  uint32_t sent = 0;

  static TestFlow number(uint32_t n) {
    return {"10.0." + std::to_string(n / 250) + "." + std::to_string(n % 250 + 1),
            static_cast<uint16_t>(2000 + n % 7)};
  }
};

struct Expected {
  ArenaPacket* packet;
  uint32_t flow;
  uint32_t number;
  Side side;
  Verdict verdict;
  Bytes before;
};

class WorkerTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (arena_) return;
    Result<Arena> arena = Arena::create(kPackets, kPacketBytes, Hugepages::kNever);
    ASSERT_TRUE(arena.ok()) << arena.error().text();
    arena_ = *arena;
  }
  void SetUp() override {
    pool_ = open_pool(directory_, 64 << 20);
    chain_ = must_build(kFirewallAndNat);
    ArenaHeader& header = arena_->header();
    const auto attached = pool_->attach_chain("test", kBuckets);
    ASSERT_TRUE(attached.ok());
    header.chains[0].pool_index = static_cast<uint16_t>(attached->index);
    header.chains[0].buckets = kBuckets;
    for (Steering& steering : header.chains[0].steering) steering.slot.store(kSlot);
    arena_->reset_slot(kSlot);
    first_event_ = slot().events.end();
    rejected_ = 0;
    slot().done_sequence.store(0);
    slot().process.store(0);
    WorkerProcess& process = header.processes[0];
    process.slot.store(kSlot);
    process.revision.store(1);
    process.leave.store(0);
    auto* packets = reinterpret_cast<uint8_t*>(arena_->base()) + header.packet_offset;
    for (uint32_t i = 0; i < kPackets; ++i)
      free_.push_back(reinterpret_cast<ArenaPacket*>(packets + i * kPacketBytes));
  }

  WorkerSlot& slot() { return arena_->header().slots[kSlot]; }
  rte_ring* inbox() { return arena_->inbox(kSlot); }
  rte_ring* outbox() { return arena_->outbox(kSlot); }

  // ---- The switch's part.
  void feed(const Bytes& frame, Side side, uint32_t flow, uint32_t number, Verdict verdict) {
    ArenaPacket* packet = free_.front();
    free_.pop_front();
    packet->mbuf = rte_mbuf{};
    packet->mbuf.buf_addr = packet->headroom;
    packet->mbuf.data_off = RTE_PKTMBUF_HEADROOM;
    packet->mbuf.priv_size = sizeof(PacketMeta);
    packet->mbuf.data_len = static_cast<uint16_t>(frame.size());
    packet->mbuf.pkt_len = static_cast<uint32_t>(frame.size());
    std::memcpy(packet->frame, frame.data(), frame.size());
    packet->meta = PacketMeta{};
    ASSERT_EQ(parse(packet->frame, static_cast<uint16_t>(frame.size()), side, pool_->hash_secret(),
                    packet->meta),
              DropReason::kNone);
    packet->meta.bucket = bucket_of(packet->meta);
    in_flight_.push_back({packet, flow, number, side, verdict, frame});
    ASSERT_EQ(rte_ring_sp_enqueue(inbox(), packet), 0);
  }
  uint32_t bucket_of(const PacketMeta& meta) {
    if (meta.side == Side::kInside) {
      return static_cast<uint32_t>(
          steering_hash(chain_->steering_scope(), meta.key, pool_->hash_secret()) % kBuckets);
    }
    const uint32_t holder = pool_->port_leases(0)[meta.key.dst_port.host() / kPortBlockPorts];
    EXPECT_NE(holder, 0U) << "a port in use is not leased";
    return holder - 1;
  }

  static Bytes outgoing(std::string_view address, uint16_t port, uint32_t flow, uint32_t number) {
    return numbered(PacketBuilder::udp(address, port, kRemote, 443).payload(kNumberedBytes).build(),
                    flow, number);
  }
  static Bytes incoming(std::string_view address, uint16_t port, uint32_t flow, uint32_t number) {
    return numbered(PacketBuilder::udp(kRemote, 443, address, port).payload(kNumberedBytes).build(),
                    flow, number);
  }
  void feed_outgoing(uint32_t n) {
    while (flows_.size() <= n)
      flows_.push_back(TestFlow::number(static_cast<uint32_t>(flows_.size())));
    TestFlow& flow = flows_[n];
    feed(outgoing(flow.address, flow.port, n, flow.sent), Side::kInside, n, flow.sent,
         Verdict::kForward);
    ++flow.sent;
  }
  void feed_answer(uint32_t n) {
    TestFlow& flow = flows_[n];
    feed(incoming(kExternal, flow.external_port, n, flow.sent), Side::kOutside, n, flow.sent,
         Verdict::kForward);
    ++flow.sent;
  }
  void feed_forbidden() {
    const Bytes frame =
        PacketBuilder::tcp("10.9.9.9", 4000, kRemote, 443, kTcpSyn).payload(kNumberedBytes).build();
    feed(frame, Side::kInside, 0, 0, Verdict::kDrop);
  }

  // Its sender is told; an event tells the users.
  void feed_rejected() {
    const Bytes frame =
        PacketBuilder::tcp("10.9.9.9", 4000, kRemote, 23, kTcpSyn).payload(kNumberedBytes).build();
    feed(frame, Side::kInside, 0, 0, Verdict::kReply);
    ++rejected_;
  }

  // Takes what the worker has published. There is one slot, so packets must come in the order in
  // which they were fed, whatever their flow: none missing, none twice.
  size_t drain() {
    size_t taken = 0;
    for (void* object = nullptr; rte_ring_sc_dequeue(outbox(), &object) == 0; ++taken) {
      if (in_flight_.empty() || in_flight_.front().packet != object) {
        ADD_FAILURE() << "packet lost, repeated or out of order";
        return taken;
      }
      check(in_flight_.front());
      free_.push_back(in_flight_.front().packet);
      in_flight_.pop_front();
    }
    return taken;
  }
  // Of a SYN with kNumberedBytes (RFC 9293 section 3.10.7.1): no sequence number, what came is
  // acknowledged. The frame's length is the switch's to change.
  static void check_reset(const ArenaPacket& packet, const Bytes& before) {
    EXPECT_EQ(packet.meta.reason, DropReason::kFirewallRejected);
    EXPECT_EQ(packet.mbuf.data_len, before.size());
    const Bytes reset(packet.frame, packet.frame + packet.meta.reply_length);
    ASSERT_EQ(reset.size(), sizeof(EthernetHeader) + sizeof(Ipv4Header) + sizeof(TcpHeader));
    EXPECT_EQ(checksum_faults(reset), "");
    const auto& tcp = checked_header<TcpHeader>(reset.data(), 34);
    EXPECT_EQ(tcp.src_port.get().host(), 23);
    EXPECT_EQ(tcp.flags, kTcpRst | kTcpAck);
    const auto& syn = checked_header<TcpHeader>(before.data(), 34);
    EXPECT_EQ(tcp.acknowledgement.get().host(), syn.sequence.get().host() + 1 + kNumberedBytes);
  }
  void check(const Expected& expected) {
    const ArenaPacket& packet = *expected.packet;
    const Bytes frame(packet.frame, packet.frame + packet.mbuf.data_len);
    EXPECT_EQ(packet.meta.verdict, expected.verdict) << drop_reason_name(packet.meta.reason);
    if (expected.verdict == Verdict::kReply) return check_reset(packet, expected.before);
    EXPECT_EQ(checksum_faults(frame), "");
    if (expected.verdict == Verdict::kDrop) {
      EXPECT_EQ(frame, expected.before);
      return;
    }
    TestFlow& flow = flows_[expected.flow];
    if (expected.side == Side::kOutside) {
      EXPECT_EQ(frame, incoming(flow.address, flow.port, expected.flow, expected.number));
      return;
    }
    const size_t l4 = sizeof(EthernetHeader) + sizeof(Ipv4Header);
    const auto port = static_cast<uint16_t>(frame[l4] << 8 | frame[l4 + 1]);
    if (flow.external_port == 0) {
      EXPECT_TRUE(external_ports_.insert(port).second) << "two flows share external port " << port;
      flow.external_port = port;
    }
    EXPECT_EQ(port, flow.external_port)
        << "flow " << expected.flow << " has changed its translation";
    EXPECT_EQ(frame, outgoing(kExternal, flow.external_port, expected.flow, expected.number));
  }

  // ---- Workers.
  pid_t start_worker() {
    arena_->header().processes[0].state.store(ProcessState::kStarting);
    const pid_t pid = fork();
    if (pid != 0) return pid;
    Worker worker(*arena_, *pool_, *chain_, 0, 0, kBurst);
    worker.run();
    _exit(0);
  }
  void wait_until_it_serves() {
    while (arena_->header().processes[0].state.load() != ProcessState::kServing) sched_yield();
  }
  // From here on it runs one instruction for each step() that it is given.
  void stop_serving_worker(pid_t pid) {
    wait_until_it_serves();
    int status = 0;
    ASSERT_EQ(ptrace(PTRACE_ATTACH, pid, nullptr, nullptr), 0) << "no tracing of children here";
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFSTOPPED(status));
  }
  static void step(pid_t pid) {
    int status = 0;
    ASSERT_EQ(ptrace(PTRACE_SINGLESTEP, pid, nullptr, nullptr), 0);
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFSTOPPED(status)) << status;
  }
  static void kill_worker(pid_t pid) {
    kill(pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, 0) == pid && !WIFEXITED(status) && !WIFSIGNALED(status)) {
    }
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        << "the worker ended by itself: " << status;
  }
  // A worker that nobody kills does the rest and leaves when it is asked to.
  void finish() {
    const pid_t pid = start_worker();
    while (rte_ring_count(inbox()) != 0) {
      ring(slot().doorbell);
      drain();
      sched_yield();
    }
    drain();
    arena_->header().processes[0].leave.store(1);
    ring(slot().doorbell);
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    EXPECT_TRUE(in_flight_.empty()) << in_flight_.size() << " packets lost";
    EXPECT_EQ(pool_->count_flows(0), flows_.size());
    EXPECT_EQ(page_leak(*pool_), "");
    EXPECT_EQ(free_.size(), kPackets);
    expect_an_event_of_each_rejection();
  }
  void expect_an_event_of_each_rejection() {
    const EventRing& events = slot().events;
    EXPECT_EQ(events.end() - first_event_, rejected_);
    EXPECT_EQ(events.lost(), 0U);
    for (uint64_t at = std::max(events.begin(), first_event_); at < events.end(); ++at) {
      const auto event = events.read(at);
      ASSERT_TRUE(event);
      EXPECT_EQ(event->key.dst_port.host(), 23);
      EXPECT_EQ(chain_->counter_names().at(event->counter), "firewall.telnet");
    }
  }
  void feed_mixture(std::mt19937_64& random, uint32_t packets) {
    for (uint32_t i = 0; i < packets; ++i) {
      const uint64_t dice = random() % 16;
      const auto some = static_cast<uint32_t>(flows_.empty() ? 0 : random() % flows_.size());
      if (dice == 0) {
        feed_forbidden();
      } else if (dice == 15) {
        feed_rejected();
      } else if (dice <= 2 && flows_.size() < 20'000) {
        feed_outgoing(static_cast<uint32_t>(flows_.size()));
      } else if (dice <= 8 && !flows_.empty() && flows_[some].external_port != 0) {
        feed_answer(some);
      } else {
        feed_outgoing(some);
      }
    }
  }

  inline static std::optional<Arena> arena_;
  PoolDirectory directory_;
  std::unique_ptr<Pool> pool_;
  std::unique_ptr<Chain> chain_;
  std::deque<ArenaPacket*> free_;
  std::deque<Expected> in_flight_;
  std::deque<TestFlow> flows_;
  std::set<uint16_t> external_ports_;
  uint64_t rejected_ = 0;
  uint64_t first_event_ = 0;
};

}  // namespace flowkeep
