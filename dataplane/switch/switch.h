// Switch: the trusted part of a node. One I/O thread receives from the ports, parses each packet
// once, steers it by bucket to a worker slot's inbox, takes what workers give back and forwards it
// to its next hop. The only DPDK process of a node, and the only one that allocates or frees a
// packet.
//
// A packet that comes from a worker is forwarded or dropped for a named reason; nothing else can
// happen to it. When a slot's inbox is full, the ports that feed it are not read: the senders'
// rings hold what arrives while a worker is being replaced.
#pragma once

#include <rte_mempool.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/arena.h"
#include "dataplane/node_config.h"
#include "dataplane/switch/neighbours.h"
#include "dataplane/switch/port.h"
#include "state/pool.h"

namespace flowkeep {

// Bytes of one packet in the arena: mbuf, PacketMeta, headroom and 2 KiB of frame, with the
// mempool's own header.
uint32_t packet_footprint_bytes();

// Between supervisor and switch.
struct SwitchEvents {
  int wake_fd = -1;   // eventfd that the supervisor writes: there is a command
  int stall_fd = -1;  // eventfd that the switch writes: see SwitchBlock::stalled
};

class Switch {
 public:
  // Starts EAL, the mempool in the arena, and every port.
  static Result<std::unique_ptr<Switch>> start(const NodeConfig& config, const Arena& arena,
                                               Pool& pool, SwitchEvents events);
  // Until told to stop.
  void run();

 private:
  struct PortState {
    std::unique_ptr<SwitchPort> port;
    std::unique_ptr<Neighbours> neighbours;
    int chain = -1;            // that this port feeds
    uint32_t icmp_budget = 0;  // ICMP errors left in this second (RFC 1812 4.3.2.8)
  };
  struct Move {  // buckets of one chain on their way to other slots
    bool running = false;
    uint32_t chain = 0;
    uint32_t waits_for = 0;  // bit for each slot that still has packets of moving buckets
    uint32_t inbox_mark[kMaxWorkerSlots] = {};
    std::vector<rte_mbuf*> held;
  };

  struct Progress {  // of a slot's worker
    uint32_t released = 0;
    uint64_t since_tsc = 0;
    uint64_t patience_cycles = 0;
  };

  Switch(const NodeConfig& config, const Arena& arena, Pool& pool, SwitchEvents events);
  Result<void> start_eal();
  Result<void> make_packets();
  Result<void> open_ports();
  Neighbours::Actions neighbour_actions(size_t port);

  // Receive path.
  bool may_receive(const PortState& port) const;
  size_t receive(size_t port);
  void ingest(size_t port, rte_mbuf* packet);
  void steer(ChainBlock& chain, rte_mbuf* packet, PacketMeta& meta);
  bool find_bucket(const ChainBlock& chain, PacketMeta& meta, Be32 destination) const;
  void hand_to_workers();

  // Send path.
  size_t drain(size_t slot);
  void deliver(rte_mbuf* packet);
  void send_reply(ChainBlock& chain, rte_mbuf* packet, const PacketMeta& meta);
  // Routes an IPv4 frame whose Ethernet header is still to be written. False: dropped, counted for
  // the port.
  DropReason route(size_t port, rte_mbuf* packet, Be32 destination);
  void transmit(size_t port, rte_mbuf* packet, const Neighbours::Mac& mac);
  void flush(size_t port);

  // Spoken by the switch itself (local_services.cc).
  void handle_arp(size_t port, rte_mbuf* packet);
  void send_arp_request(size_t port, Be32 address);
  bool answers_for(const PortState& port, Be32 address) const;
  void answer_echo(size_t port, rte_mbuf* packet);
  void send_time_exceeded(size_t port, rte_mbuf* packet, const PacketMeta& meta);

  void drop(size_t port, rte_mbuf* packet, DropReason reason);
  void drop_of_chain(ChainBlock& chain, rte_mbuf* packet, DropReason reason);

  // Control (control.cc).
  void poll_mailbox();
  void activate(uint32_t chain);
  void deactivate(uint32_t chain);
  void begin_move(uint32_t chain, const uint8_t* owner);
  void poll_move();
  void discard_slot(uint32_t slot);
  void housekeeping();
  void look_for_stalls();
  bool packets_inside() const;
  void rest(bool worked);
  void sleep();
  void update_clock();

  const NodeConfig& config_;
  const Arena& arena_;
  ArenaHeader& header_;
  Pool& pool_;
  HashSecret secret_;
  const SwitchEvents events_;
  int epoll_fd_ = -1;
  bool all_ports_wake_ = true;  // every port has a descriptor to sleep on
  rte_mempool* packets_ = nullptr;
  std::vector<PortState> ports_;
  std::vector<uint8_t> active_slots_;
  std::array<std::array<rte_mbuf*, kBurst>, kMaxWorkerSlots> staged_{};
  std::array<uint32_t, kMaxWorkerSlots> staged_count_{};
  std::array<Progress, kMaxWorkerSlots> progress_{};
  uint64_t next_stall_look_tsc_ = 0;
  Move move_;
  uint8_t move_target_[kMaxBuckets] = {};
  bool stopping_ = false;
  uint32_t answered_ = 0;  // last mailbox command carried out

  uint64_t now_tsc_ = 0;
  uint64_t now_ms_ = 0;
  uint64_t next_housekeeping_tsc_ = 0;
  uint64_t idle_since_tsc_ = 0;
  uint32_t empty_loops_ = 0;
};

// The switch process: returns its exit status. An error is left in SwitchBlock::error.
int switch_main(const NodeConfig& config, const Arena& arena, Pool& pool, SwitchEvents events);

}  // namespace flowkeep
