// Switch: the trusted part of a node. One I/O thread receives from the ports, parses each packet
// once, steers it by bucket to a worker slot's inbox, takes what workers give back and forwards it
// to its next hop. The only DPDK process of a node, and the only one that allocates or frees a
// packet.
//
// Its parts: switch.cc (start and loop), receive.cc (from the ports to the workers), send.cc (from
// the workers to the ports), arp.cc, icmp.cc, neighbour_discovery.cc and icmpv6.cc (what it says
// itself), control.cc (commands, rest).
//
// A packet that comes from a worker is forwarded or dropped for a named reason; nothing else can
// happen to it. When a slot's inbox is full, the ports that feed it are not read: the senders'
// rings hold what arrives while a worker is being replaced.
#pragma once

#include <rte_mbuf.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/arena.h"
#include "dataplane/node_config.h"
#include "dataplane/switch/announcements.h"
#include "dataplane/switch/neighbours.h"
#include "dataplane/switch/packet_pools.h"
#include "dataplane/switch/port.h"
#include "dataplane/switch/reassembly.h"
#include "nfs/headers.h"
#include "state/pool.h"

namespace flowkeep {

inline constexpr size_t kEthernetBytes = sizeof(EthernetHeader);
// Of buckets on the move; an inbox takes them all.
inline constexpr size_t kHeldPackets = kRingPackets / 2;
inline constexpr uint16_t kIpv4DontFragment = 0x4000;
inline constexpr uint8_t kIcmpFragmentationNeeded = 4;

inline PacketMeta& meta_of(rte_mbuf* packet) {
  return *static_cast<PacketMeta*>(rte_mbuf_to_priv(packet));
}

inline bool is_external(const ChainBlock& chain, Be32 address) {
  for (uint32_t i = 0; i < chain.external_count; ++i) {
    if (chain.external[i] == address) return true;
  }
  return false;
}

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
    std::unique_ptr<Ipv6Neighbours> ipv6_neighbours;
    int chain = -1;            // that this port feeds
    uint32_t icmp_budget = 0;  // ICMP errors left in this second (RFC 1812 4.3.2.8)
    Announcements announcements;
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
  Result<void> open_ports();
  void add_neighbours(size_t port);
  Reassembly::Actions reassembly_actions();

  // Receive path.
  bool may_receive(const PortState& port) const;
  size_t receive(size_t port);
  void ingest(size_t port, rte_mbuf* packet);
  DropReason look_at(size_t port, rte_mbuf* packet);
  rte_mbuf* reassemble(size_t port, rte_mbuf* packet);
  void answer_without_chain(size_t port, rte_mbuf* packet, DropReason refused);
  void enter_chain(size_t port, rte_mbuf* packet);
  void enter_chain_ipv6(size_t port, rte_mbuf* packet);
  bool fits_path(size_t port, rte_mbuf* packet);
  void reenter(ChainBlock& chain, rte_mbuf* packet);
  void steer(ChainBlock& chain, rte_mbuf* packet, PacketMeta& meta);
  bool find_bucket(const ChainBlock& chain, PacketMeta& meta, Be32 destination) const;
  void hand_to_workers();

  // Send path.
  size_t drain(size_t slot);
  void deliver(rte_mbuf* packet);
  void send_reply(ChainBlock& chain, rte_mbuf* packet);
  // Routes a frame whose Ethernet addresses are still to be written; Be32 or Ipv6Address. Takes the
  // packet only if it returns kNone, as the other two do.
  template <typename Address>
  DropReason route(size_t port, rte_mbuf* packet, const Address& destination);
  template <typename Address>
  DropReason send_to(size_t port, rte_mbuf* packet, const Address& hop);
  template <typename Address>
  DropReason send_fragments(size_t port, rte_mbuf* packet, const Address& hop);
  uint32_t largest_packet(const SwitchPort& port, const rte_mbuf* packet) const;
  uint32_t fragment_identification(const PortState& state, const rte_mbuf* packet);
  void transmit(size_t port, rte_mbuf* packet, const Mac& mac);
  void flush(size_t port);

  // Spoken by the switch itself (arp.cc, icmp.cc, neighbour_discovery.cc, icmpv6.cc).
  struct IcmpError {
    uint8_t type = 0;
    uint8_t code = 0;
    uint32_t mtu = 0;
  };
  void handle_arp(size_t port, rte_mbuf* packet);
  void send_arp_request(size_t port, Be32 address);
  void broadcast_arp(size_t port, Be32 sender, Be32 target);
  void announce(size_t port, Be32 address);
  void announce_addresses(size_t port);
  bool answers_for(const PortState& port, Be32 address) const;
  void answer_echo(size_t port, rte_mbuf* packet);
  void send_icmp_error(size_t port, rte_mbuf* original, IcmpError error);
  void handle_neighbour_discovery(size_t port, rte_mbuf* packet);
  void send_solicitation(size_t port, const Ipv6Address& target);
  void advertise(size_t port, const Ipv6Address& target, const Ipv6Address& to, const Mac& mac);
  void announce_ipv6_addresses(size_t port);
  void answer_ipv6_echo(size_t port, rte_mbuf* packet);
  void send_icmpv6_error(size_t port, rte_mbuf* original, IcmpError error);

  void count_drops(size_t port, DropReason reason, uint32_t packets);
  // Counted by the port, by the port's chain if it has one, by the chain.
  void drop(size_t port, rte_mbuf* packet, DropReason reason);
  void drop_at(size_t port, rte_mbuf* packet, DropReason reason);
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
  PacketPools pools_;
  Reassembly reassembly_;
  uint32_t smallest_mtu_ = UINT32_MAX;  // of all ports
  uint16_t next_identification_ = 0;    // of fragments behind translated addresses
  bool reentered_ = false;              // packets are staged that came back from the outside
  std::vector<Be32> announced_;         // scratch
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
