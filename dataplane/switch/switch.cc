#include "dataplane/switch/switch.h"

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_mbuf.h>
#include <sched.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace flowkeep {
namespace {

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

}  // namespace

Switch::Switch(const NodeConfig& config, const Arena& arena, Pool& pool, SwitchEvents events)
    : config_(config),
      arena_(arena),
      header_(arena.header()),
      pool_(pool),
      secret_(pool.hash_secret()),
      events_(events),
      reassembly_(config.datagram_count / 2, config.reassembly_timeout_ms, secret_,
                  reassembly_actions()) {
  active_slots_.reserve(kMaxWorkerSlots);
  move_.held.reserve(kHeldPackets);
}

Result<std::unique_ptr<Switch>> Switch::start(const NodeConfig& config, const Arena& arena,
                                              Pool& pool, SwitchEvents events) {
  std::unique_ptr<Switch> the_switch(new Switch(config, arena, pool, events));
  if (Result<void> eal = the_switch->start_eal(); !eal) return eal.error();
  Result<PacketPools> pools = PacketPools::create(config, arena);
  if (!pools) return pools.error();
  the_switch->pools_ = *pools;
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
        SwitchPort::open(config_.ports[i], header_.ports[i], pools_.frames());
    if (!opened) return opened.error();
    PortState state;
    state.port = std::move(*opened);
    for (const int fd : state.port->wait_fds()) watch(fd);
    all_ports_wake_ = all_ports_wake_ && !state.port->wait_fds().empty();
    smallest_mtu_ = std::min(smallest_mtu_, state.port->mtu());
    ports_.push_back(std::move(state));
    add_neighbours(i);
  }
  return {};
}

void Switch::add_neighbours(size_t port) {
  const auto send = [this, port](WaitingPacket packet, const Mac& mac) {
    transmit(port, static_cast<rte_mbuf*>(packet), mac);
  };
  const auto give_up = [this, port](WaitingPacket packet) {
    drop(port, static_cast<rte_mbuf*>(packet), DropReason::kNeighbourUnresolved);
  };
  PortState& state = ports_[port];
  state.neighbours = std::make_unique<Neighbours>(Neighbours::Actions{
      [this, port](const Be32& address) { send_arp_request(port, address); }, send, give_up});
  state.ipv6_neighbours = std::make_unique<Ipv6Neighbours>(Ipv6Neighbours::Actions{
      [this, port](const Ipv6Address& target) { send_solicitation(port, target); }, send, give_up});
  const auto mac_of = [](const uint8_t* octets) {
    Mac mac;
    std::memcpy(mac.bytes.data(), octets, mac.bytes.size());
    return mac;
  };
  for (const NeighbourConfig& known : state.port->config().neighbours)
    state.neighbours->add_static(known.address, mac_of(known.mac));
  for (const Ipv6NeighbourConfig& known : state.port->config().ipv6_neighbours)
    state.ipv6_neighbours->add_static(known.address, mac_of(known.mac));
}

Reassembly::Actions Switch::reassembly_actions() {
  return {.take =
              [this] {
                rte_mbuf* datagram = rte_pktmbuf_alloc(pools_.datagrams());
                if (datagram == nullptr) return Reassembly::Buffer{};
                return Reassembly::Buffer{datagram, rte_pktmbuf_mtod(datagram, uint8_t*)};
              },
          .give_back = [](void* datagram) { rte_pktmbuf_free(static_cast<rte_mbuf*>(datagram)); },
          .lost = [this](uint8_t port, DropReason reason,
                         uint32_t packets) { count_drops(port, reason, packets); }};
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

// Of the chain that the port feeds, or of the port where there is none.
void Switch::count_drops(size_t port_index, DropReason reason, uint32_t packets) {
  const PortState& state = ports_[port_index];
  const auto which = static_cast<size_t>(reason);
  bump(
      state.chain < 0 ? state.port->block().drops[which] : header_.chains[state.chain].drops[which],
      packets);
}

void Switch::drop(size_t port_index, rte_mbuf* packet, DropReason reason) {
  bump(ports_[port_index].port->block().drops[static_cast<size_t>(reason)]);
  rte_pktmbuf_free(packet);
}

void Switch::drop_at(size_t port_index, rte_mbuf* packet, DropReason reason) {
  count_drops(port_index, reason, 1);
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
