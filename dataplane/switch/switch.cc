#include "dataplane/switch/switch.h"

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_memory.h>
#include <sched.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "nfs/parse.h"
#include "nfs/steering.h"

namespace flowkeep {
namespace {

constexpr uint16_t kFrameBytes = 2048;
constexpr uint32_t kMempoolCache = 256;
constexpr size_t kHeldPackets =
    kRingPackets / 2;  // of buckets on the move; an inbox takes them all
constexpr size_t kEthernetBytes = 14;

PacketMeta& meta_of(rte_mbuf* packet) {
  return *static_cast<PacketMeta*>(rte_mbuf_to_priv(packet));
}

uint32_t element_bytes() {
  return static_cast<uint32_t>(sizeof(rte_mbuf) + sizeof(PacketMeta) + RTE_PKTMBUF_HEADROOM +
                               kFrameBytes);
}

// Comma-separated list of the processors that this process may run on.
std::string allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof(set), &set);
  std::string list;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    if (!list.empty()) list += ',';
    list += std::to_string(cpu);
  }
  return list;
}

bool is_echo_request(const uint8_t* frame, const PacketMeta& meta) {
  return meta.key.protocol == kProtocolIcmp && meta.inner_l3_offset == 0 &&
         frame[meta.l4_offset] == 8;
}

// RFC 1624, for a time to live that goes down by one.
void decrement_ttl(uint8_t* ip) {
  --ip[8];
  uint16_t checksum = 0;
  std::memcpy(&checksum, ip + 10, 2);
  const uint32_t sum =
      static_cast<uint32_t>(checksum) + 0x0001U;  // 0x0100 in network order, little endian
  const auto folded = static_cast<uint16_t>(sum + (sum >> 16));
  std::memcpy(ip + 10, &folded, 2);
}

}  // namespace

uint32_t packet_footprint_bytes() {
  rte_mempool_objsz size{};
  return rte_mempool_calc_obj_size(element_bytes(), 0, &size);
}

Switch::Switch(const NodeConfig& config, const Arena& arena, Pool& pool, SwitchEvents events)
    : config_(config),
      arena_(arena),
      header_(arena.header()),
      pool_(pool),
      secret_(pool.hash_secret()),
      events_(events) {
  active_slots_.reserve(kMaxWorkerSlots);
  move_.held.reserve(kHeldPackets);
}

Result<std::unique_ptr<Switch>> Switch::start(const NodeConfig& config, const Arena& arena,
                                              Pool& pool, SwitchEvents events) {
  std::unique_ptr<Switch> the_switch(new Switch(config, arena, pool, events));
  if (Result<void> eal = the_switch->start_eal(); !eal) return eal.error();
  if (Result<void> packets = the_switch->make_packets(); !packets) return packets.error();
  if (Result<void> ports = the_switch->open_ports(); !ports) return ports.error();
  return the_switch;
}

Result<void> Switch::start_eal() {
  std::vector<std::string> words = {"flowkeep-switch",
                                    "--no-huge",
                                    "--no-shconf",
                                    "--no-telemetry",
                                    "-m",
                                    "64",
                                    "--file-prefix",
                                    "flowkeep-" + std::to_string(header_.supervisor_pid.load()),
                                    "--lcores",
                                    "0@(" + allowed_cpus() + ")",
                                    "--log-level",
                                    "*:3"};
  bool physical = false;
  for (const PortConfig& port : config_.ports)
    physical |= port.device.find(':') == 4 || port.device.find(':') == 2;
  if (!physical) words.emplace_back("--no-pci");
  words.insert(words.end(), config_.eal_arguments.begin(), config_.eal_arguments.end());
  std::vector<char*> arguments;
  arguments.reserve(words.size());
  for (std::string& word : words) arguments.push_back(word.data());
  if (rte_eal_init(static_cast<int>(arguments.size()), arguments.data()) < 0) {
    return internal_error("switch", std::string("rte_eal_init: ") + rte_strerror(rte_errno));
  }
  return {};
}

// The mempool lies in the arena, which EAL learns of as external memory.
Result<void> Switch::make_packets() {
  std::byte* region = arena_.base() + header_.packet_offset;
  const auto fail = [](const char* what) {
    return internal_error("packets", std::string(what) + ": " + rte_strerror(rte_errno));
  };
  if (rte_extmem_register(region, header_.packet_bytes, nullptr, 0, header_.page_bytes) != 0) {
    return fail("rte_extmem_register");
  }
  packets_ = rte_mempool_create_empty("packets", config_.packet_count, element_bytes(),
                                      kMempoolCache, sizeof(rte_pktmbuf_pool_private),
                                      SOCKET_ID_ANY, RTE_MEMPOOL_F_NO_IOVA_CONTIG);
  if (packets_ == nullptr) return fail("rte_mempool_create_empty");
  if (rte_mempool_set_ops_byname(packets_, "ring_mp_mc", nullptr) != 0) return fail("mempool ops");
  rte_pktmbuf_pool_private layout{};
  layout.mbuf_data_room_size = RTE_PKTMBUF_HEADROOM + kFrameBytes;
  layout.mbuf_priv_size = sizeof(PacketMeta);
  rte_pktmbuf_pool_init(packets_, &layout);
  const int populated =
      rte_mempool_populate_virt(packets_, reinterpret_cast<char*>(region), header_.packet_bytes,
                                header_.page_bytes, nullptr, nullptr);
  if (populated < static_cast<int>(config_.packet_count)) {
    rte_errno = populated < 0 ? -populated : ENOMEM;
    return fail("rte_mempool_populate_virt");
  }
  rte_mempool_obj_iter(packets_, rte_pktmbuf_init, nullptr);
  return {};
}

Result<void> Switch::open_ports() {
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  const auto watch = [this](int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event);
  };
  watch(events_.wake_fd);
  for (size_t i = 0; i < config_.ports.size(); ++i) {
    Result<std::unique_ptr<SwitchPort>> opened =
        SwitchPort::open(config_.ports[i], header_.ports[i], packets_);
    if (!opened) return opened.error();
    PortState state;
    state.port = std::move(*opened);
    state.neighbours = std::make_unique<Neighbours>(neighbour_actions(i));
    for (const NeighbourConfig& known : config_.ports[i].neighbours) {
      Neighbours::Mac mac;
      std::memcpy(mac.bytes.data(), known.mac, sizeof(known.mac));
      state.neighbours->add_static(known.address, mac);
    }
    for (const int fd : state.port->wait_fds()) watch(fd);
    all_ports_wake_ = all_ports_wake_ && !state.port->wait_fds().empty();
    ports_.push_back(std::move(state));
  }
  return {};
}

Neighbours::Actions Switch::neighbour_actions(size_t port) {
  return {.send_request = [this, port](Be32 address) { send_arp_request(port, address); },
          .send =
              [this, port](WaitingPacket packet, const Neighbours::Mac& mac) {
                transmit(port, static_cast<rte_mbuf*>(packet), mac);
              },
          .give_up =
              [this, port](WaitingPacket packet) {
                drop(port, static_cast<rte_mbuf*>(packet), DropReason::kNeighbourUnresolved);
              }};
}

void Switch::run() {
  header_.switch_block.ready.store(1);
  update_clock();
  while (!stopping_) {
    update_clock();
    size_t moved = 0;
    for (size_t port = 0; port < ports_.size(); ++port) {
      if (may_receive(ports_[port])) moved += receive(port);
    }
    for (const uint8_t slot : active_slots_) moved += drain(slot);
    for (size_t port = 0; port < ports_.size(); ++port) flush(port);
    if (move_.running) poll_move();
    if (header_.mailbox.posted.load(std::memory_order_acquire) != answered_) poll_mailbox();
    if (now_tsc_ >= next_stall_look_tsc_) look_for_stalls();
    if (now_tsc_ >= next_housekeeping_tsc_) housekeeping();
    rest(moved > 0);
  }
  for (PortState& state : ports_) {
    flush(static_cast<size_t>(&state - ports_.data()));
    state.port->close();
  }
}

void Switch::update_clock() {
  now_tsc_ = rte_rdtsc();
  now_ms_ = (now_tsc_ - header_.tsc_base) / (header_.tsc_hz / 1000);
}

// A port is read only while every slot that it feeds can take a whole burst, and the hold queue
// too.
bool Switch::may_receive(const PortState& state) const {
  if (state.chain < 0) return true;
  const ChainBlock& chain = header_.chains[state.chain];
  for (const uint8_t slot : active_slots_) {
    if (header_.slots[slot].chain.load(std::memory_order_relaxed) !=
        static_cast<uint32_t>(state.chain))
      continue;
    if (rte_ring_free_count(arena_.inbox(slot)) < kBurst) return false;
  }
  return !(move_.running && &chain == &header_.chains[move_.chain] &&
           move_.held.size() + kBurst > kHeldPackets);
}

size_t Switch::receive(size_t port) {
  rte_mbuf* burst[kBurst];
  const uint16_t count = ports_[port].port->receive(burst, kBurst);
  if (count == 0) return 0;
  uint64_t bytes = 0;
  for (uint16_t i = 0; i < count; ++i) {
    rte_prefetch0(rte_pktmbuf_mtod(burst[i], void*));
    rte_prefetch0(rte_mbuf_to_priv(burst[i]));
    bytes += burst[i]->pkt_len;
  }
  PortBlock& block = ports_[port].port->block();
  bump(block.rx_packets, count);
  bump(block.rx_bytes, bytes);
  for (uint16_t i = 0; i < count; ++i) ingest(port, burst[i]);
  hand_to_workers();
  return count;
}

void Switch::ingest(size_t port_index, rte_mbuf* packet) {
  PortState& state = ports_[port_index];
  SwitchPort& port = *state.port;
  const auto* frame = rte_pktmbuf_mtod(packet, const uint8_t*);
  if (packet->nb_segs > 1) return drop(port_index, packet, DropReason::kFrameTooBig);
  if (packet->data_len < kEthernetBytes)
    return drop(port_index, packet, DropReason::kTruncatedEthernet);

  const bool ours = std::memcmp(frame, port.mac().addr_bytes, 6) == 0;
  const auto ether_type = static_cast<uint16_t>(frame[12] << 8 | frame[13]);
  if (ether_type == kEtherTypeArp) return handle_arp(port_index, packet);
  if (!ours && !port.config().promiscuous) return drop(port_index, packet, DropReason::kNotForUs);

  PacketMeta& meta = meta_of(packet);
  const Side side = port.config().role;
  const DropReason refused = parse(frame, packet->data_len, side, secret_, meta);
  meta.in_port = static_cast<uint8_t>(port_index);
  meta.arrived_tsc = now_tsc_;
  meta.side = side;
  if (state.chain < 0) {
    const bool for_us = refused == DropReason::kNone && is_echo_request(frame, meta) &&
                        answers_for(state, meta.key.dst);
    if (for_us) return answer_echo(port_index, packet);
    return drop(port_index, packet, refused == DropReason::kNone ? DropReason::kNoChain : refused);
  }
  ChainBlock& chain = header_.chains[state.chain];
  if (refused != DropReason::kNone) return drop_of_chain(chain, packet, refused);
  const uint8_t* ip = frame + meta.l3_offset;
  Be32 destination;
  std::memcpy(&destination.raw, ip + 16, 4);
  if (is_echo_request(frame, meta) && answers_for(state, destination))
    return answer_echo(port_index, packet);
  // Multicast, reserved and broadcast addresses are not routed (RFC 1812 sections 4.2.3.1
  // and 5.3.7).
  if (destination.host() >= 0xe0000000U) return drop_of_chain(chain, packet, DropReason::kNotForUs);
  const bool found = find_bucket(chain, meta, destination);
  if (!found) return drop_of_chain(chain, packet, DropReason::kNoPortLease);
  const bool translated = side == Side::kOutside && chain.external_count > 0;
  if (!translated && port.is_own_address(destination))
    return drop_of_chain(chain, packet, DropReason::kNotForUs);
  if (ip[8] <= 1) {
    send_time_exceeded(port_index, packet, meta);
    return drop_of_chain(chain, packet, DropReason::kTtlExceeded);
  }
  meta.chain = static_cast<uint16_t>(state.chain);
  steer(chain, packet, meta);
}

// All packets of one inside endpoint meet in one bucket. From the outside of a translated chain the
// bucket is the one that leased the external port; otherwise the destination is the inside endpoint
// itself.
bool Switch::find_bucket(const ChainBlock& chain, PacketMeta& meta, Be32 destination) const {
  if (meta.side == Side::kOutside && chain.external_count > 0) {
    const std::span forwards(chain.forwards, chain.forward_count.load(std::memory_order_acquire));
    if (const Forward* forward = find_forward(forwards, meta.key)) {
      const FlowKey inside = inside_key_of(*forward, meta.key);
      const Scope scope = chain.steer_by == SteerBy::kHost ? Scope::kHost : Scope::kEndpoint;
      meta.bucket =
          static_cast<uint32_t>(steering_hash(scope, inside, secret_)) & (chain.buckets - 1);
      return true;
    }
    for (uint32_t i = 0; i < chain.external_count; ++i) {
      if (!(chain.external[i] == destination)) continue;
      const uint32_t block = meta.key.dst_port.host() / kPortBlockPorts;
      const uint32_t lease = __atomic_load_n(
          &pool_.port_leases(chain.pool_index)[i * kPortBlocks + block], __ATOMIC_RELAXED);
      if (lease == 0) return false;
      meta.bucket = (lease - 1) & (chain.buckets - 1);
      return true;
    }
    return false;
  }
  const bool inside = meta.side == Side::kInside;
  const Be32 host = inside ? meta.key.src : meta.key.dst;
  const Be16 port = inside ? meta.key.src_port : meta.key.dst_port;
  const uint64_t hash = chain.steer_by == SteerBy::kHost
                            ? hash_endpoint(host, Be16{}, 0, secret_)
                            : hash_endpoint(host, port, meta.key.protocol, secret_);
  meta.bucket = static_cast<uint32_t>(hash) & (chain.buckets - 1);
  return true;
}

void Switch::steer(ChainBlock& chain, rte_mbuf* packet, PacketMeta& meta) {
  const Steering& steering = chain.steering[meta.bucket];
  if (steering.held.load(std::memory_order_relaxed) != 0) {
    move_.held.push_back(packet);
    return;
  }
  const uint8_t slot = steering.slot.load(std::memory_order_relaxed);
  staged_[slot][staged_count_[slot]++] = packet;
}

void Switch::hand_to_workers() {
  for (const uint8_t slot : active_slots_) {
    const uint32_t count = staged_count_[slot];
    if (count == 0) continue;
    staged_count_[slot] = 0;
    const unsigned given = rte_ring_sp_enqueue_burst(
        arena_.inbox(slot), reinterpret_cast<void**>(staged_[slot].data()), count, nullptr);
    ChainBlock& chain = header_.chains[header_.slots[slot].chain.load(std::memory_order_relaxed)];
    bump(chain.steered, given);
    for (uint32_t i = given; i < count; ++i)
      drop_of_chain(chain, staged_[slot][i], DropReason::kInboxFull);
    ring(header_.slots[slot].doorbell);
  }
}

size_t Switch::drain(size_t slot) {
  rte_ring* outbox = arena_.outbox(slot);
  if (rte_ring_empty(outbox)) return 0;
  const int chain_index =
      static_cast<int>(header_.slots[slot].chain.load(std::memory_order_relaxed));
  for (const PortState& state : ports_) {
    if (state.chain == chain_index && !state.port->has_room(kBurst)) return 0;
  }
  rte_mbuf* burst[kBurst];
  const unsigned count =
      rte_ring_sc_dequeue_burst(outbox, reinterpret_cast<void**>(burst), kBurst, nullptr);
  for (unsigned i = 0; i < count; ++i) {
    rte_prefetch0(burst[i]);
    rte_prefetch0(rte_mbuf_to_priv(burst[i]));
    rte_prefetch0(reinterpret_cast<uint8_t*>(burst[i]) + sizeof(rte_mbuf) + sizeof(PacketMeta) +
                  RTE_PKTMBUF_HEADROOM);
  }
  bump(header_.chains[chain_index].returned, count);
  for (unsigned i = 0; i < count; ++i) deliver(burst[i]);
  return count;
}

void Switch::deliver(rte_mbuf* packet) {
  const PacketMeta& meta = meta_of(packet);
  ChainBlock& chain = header_.chains[meta.chain];
  header_.counters[meta.chain].count(meta);
  if (meta.verdict == Verdict::kDrop) return drop_of_chain(chain, packet, meta.reason);
  if (meta.verdict == Verdict::kReply) return send_reply(chain, packet, meta);
  auto* ip = rte_pktmbuf_mtod(packet, uint8_t*) + meta.l3_offset;
  decrement_ttl(ip);
  Be32 destination;
  std::memcpy(&destination.raw, ip + 16, 4);
  const size_t port = meta.side == Side::kInside ? chain.outside_port : chain.inside_port;
  const uint32_t bytes = packet->pkt_len;
  const DropReason refused = route(port, packet, destination);
  if (refused != DropReason::kNone) return drop_of_chain(chain, packet, refused);
  bump(chain.forwarded_packets);
  bump(chain.forwarded_bytes, bytes);
  if (header_.switch_block.first_forward_unix_us.load(std::memory_order_relaxed) == 0) {
    header_.switch_block.first_forward_unix_us.store(
        static_cast<uint64_t>(arena_.now_unix_s() * 1e6));
  }
}

// The packet counts as refused for its reason; that it was answered too is seen from the port. ICMP
// errors are limited as the switch's own are (RFC 1812 section 4.3.2.8).
void Switch::send_reply(ChainBlock& chain, rte_mbuf* packet, const PacketMeta& meta) {
  const uint16_t bytes = meta.reply_length;
  const uint8_t* ip = rte_pktmbuf_mtod(packet, const uint8_t*) + meta.l3_offset;
  const bool is_reset = ip[9] == kProtocolTcp;
  uint32_t& budget = ports_[meta.in_port].icmp_budget;
  if (bytes < kEthernetBytes || bytes > kFrameBytes || (!is_reset && budget == 0))
    return drop_of_chain(chain, packet, meta.reason);
  if (!is_reset) --budget;
  packet->data_len = bytes;
  packet->pkt_len = bytes;
  Be32 destination;
  std::memcpy(&destination.raw, ip + 16, 4);
  bump(chain.drops[static_cast<size_t>(meta.reason)]);
  if (const DropReason refused = route(meta.in_port, packet, destination);
      refused != DropReason::kNone)
    drop(meta.in_port, packet, refused);
}

DropReason Switch::route(size_t port_index, rte_mbuf* packet, Be32 destination) {
  PortState& state = ports_[port_index];
  if (packet->pkt_len > static_cast<uint32_t>(state.port->mtu()) + kEthernetBytes)
    return DropReason::kFrameTooBig;
  const Be32 hop = state.port->next_hop(destination);
  if (hop.raw == 0) return DropReason::kNoRoute;
  if (!state.port->has_room(1)) return DropReason::kPortTxFull;
  Neighbours::Mac mac;
  switch (state.neighbours->resolve(hop, now_ms_, packet, mac)) {
    case Neighbours::Answer::kResolved:
      transmit(port_index, packet, mac);
      return DropReason::kNone;
    case Neighbours::Answer::kWaiting:
      return DropReason::kNone;
    case Neighbours::Answer::kFull:
      break;
  }
  return DropReason::kNeighbourUnresolved;
}

void Switch::transmit(size_t port_index, rte_mbuf* packet, const Neighbours::Mac& mac) {
  SwitchPort& port = *ports_[port_index].port;
  auto* frame = rte_pktmbuf_mtod(packet, uint8_t*);
  std::memcpy(frame, mac.bytes.data(), 6);
  std::memcpy(frame + 6, port.mac().addr_bytes, 6);
  if (!port.queue(packet)) drop(port_index, packet, DropReason::kPortTxFull);
}

void Switch::flush(size_t port_index) {
  uint16_t dropped = 0;
  SwitchPort& port = *ports_[port_index].port;
  port.flush(now_tsc_, header_.tsc_hz, dropped);
  if (dropped > 0) bump(port.block().drops[static_cast<size_t>(DropReason::kPortTxFull)], dropped);
}

void Switch::drop(size_t port_index, rte_mbuf* packet, DropReason reason) {
  bump(ports_[port_index].port->block().drops[static_cast<size_t>(reason)]);
  rte_pktmbuf_free(packet);
}

void Switch::drop_of_chain(ChainBlock& chain, rte_mbuf* packet, DropReason reason) {
  bump(chain.drops[static_cast<size_t>(reason)]);
  rte_pktmbuf_free(packet);
}

int switch_main(const NodeConfig& config, const Arena& arena, Pool& pool, SwitchEvents events) {
  Result<std::unique_ptr<Switch>> started = Switch::start(config, arena, pool, events);
  if (!started) {
    SwitchBlock& block = arena.header().switch_block;
    std::snprintf(block.error, sizeof(block.error), "%s", started.error().text().c_str());
    block.ready.store(2);
    return 1;
  }
  (*started)->run();
  return 0;
}

}  // namespace flowkeep
