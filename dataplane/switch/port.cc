#include "dataplane/switch/port.h"

#include <dirent.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>

namespace flowkeep {
namespace {

constexpr uint16_t kDescriptors = 1024;
// How long packets wait for a device that takes none. The peer of a virtual device is a program,
// which may not be scheduled for a while; one that is not there at all is not waited for.
constexpr uint64_t kStuckPeerMs = 5000;
constexpr uint64_t kLinkDownMs = 100;

std::set<uint16_t> known_ports() {
  std::set<uint16_t> ports;
  for (uint64_t id = rte_eth_find_next(0); id < RTE_MAX_ETHPORTS;
       id = rte_eth_find_next(static_cast<uint16_t>(id + 1))) {
    ports.insert(static_cast<uint16_t>(id));
  }
  return ports;
}

// Packet sockets that this process has open: those of the af_packet driver, which has no interrupt
// mode but whose sockets can be polled.
std::set<int> packet_sockets() {
  std::set<int> sockets;
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) return sockets;
  while (const dirent* entry = readdir(directory)) {
    const int fd = std::atoi(entry->d_name);
    int domain = 0;
    socklen_t length = sizeof(domain);
    if (fd > 2 && getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 &&
        domain == AF_PACKET) {
      sockets.insert(fd);
    }
  }
  closedir(directory);
  return sockets;
}

std::string interface_of(int packet_socket) {
  sockaddr_ll bound{};
  socklen_t length = sizeof(bound);
  char name[IF_NAMESIZE] = {};
  if (getsockname(packet_socket, reinterpret_cast<sockaddr*>(&bound), &length) != 0 ||
      if_indextoname(static_cast<unsigned>(bound.sll_ifindex), name) == nullptr)
    return {};
  return name;
}

// Of the prefixes that contain the address: the first; nullptr if there is none.
template <typename Prefix, typename Address>
const Prefix* connected(const std::vector<Prefix>& own, const Address& address) {
  const auto found = std::ranges::find_if(
      own, [&address](const Prefix& prefix) { return prefix.contains(address); });
  return found == own.end() ? nullptr : &*found;
}

template <typename Prefix, typename Address>
bool has_address(const std::vector<Prefix>& own, const Address& address) {
  return std::ranges::find(own, address, &Prefix::address) != own.end();
}

// The destination itself on a connected prefix, else the longest route's gateway; 0: none.
template <typename Prefix, typename Route, typename Address>
Address hop_towards(const std::vector<Prefix>& own, const std::vector<Route>& routes,
                    const Address& destination) {
  if (connected(own, destination) != nullptr) return destination;
  const Route* best = nullptr;
  for (const Route& route : routes) {
    if (!route.prefix.contains(destination)) continue;
    if (best == nullptr || route.prefix.length > best->prefix.length) best = &route;
  }
  return best == nullptr ? Address{} : best->via;
}

// The address to speak from; `own` has one at least.
template <typename Prefix, typename Address>
Address source_towards(const std::vector<Prefix>& own, const Address& address) {
  const Prefix* prefix = connected(own, address);
  return prefix == nullptr ? own.front().address : prefix->address;
}

}  // namespace

Result<std::unique_ptr<SwitchPort>> SwitchPort::open(const PortConfig& config, PortBlock& block,
                                                     rte_mempool* packets) {
  const std::set<uint16_t> ports_before = known_ports();
  const std::set<int> sockets_before = packet_sockets();
  std::unique_ptr<SwitchPort> port(new SwitchPort(config, block));
  const std::string field = "ports[" + config.name + "].device";
  const int probed = rte_dev_probe(config.device.c_str());
  if (probed != 0) {
    return unavailable(field,
                       "\"" + config.device + "\" cannot be opened (" + std::strerror(-probed) +
                           "); accepted: DPDK device arguments of a device that exists, such as "
                           "net_af_packet0,iface=eth1 or 0000:03:00.0");
  }
  bool found = false;
  for (const uint16_t id : known_ports()) {
    if (!ports_before.contains(id)) {
      port->id_ = id;
      found = true;
    }
  }
  if (!found) return unavailable(field, "\"" + config.device + "\" brought no Ethernet port");
  port->find_sockets(sockets_before);  // for the MTU
  const Result<void> started = port->start(packets);
  if (!started) return started.error();
  port->find_sockets(sockets_before);  // some drivers open them at the start
  port->refresh_link();
  return port;
}

void SwitchPort::find_sockets(const std::set<int>& before) {
  wait_fds_.clear();
  for (const int fd : packet_sockets()) {
    if (!before.contains(fd)) wait_fds_.push_back(fd);
  }
  if (!wait_fds_.empty()) interface_ = interface_of(wait_fds_.front());
}

Result<void> SwitchPort::start(rte_mempool* packets) {
  const auto fail = [this](const char* what, int code) {
    return unavailable("ports[" + config_.name + "].device",
                       "\"" + config_.device + "\": " + what + ": " + std::strerror(-code));
  };
  rte_eth_dev_info info{};
  if (const int code = rte_eth_dev_info_get(id_, &info); code != 0)
    return fail("no device information", code);
  rte_eth_conf settings{};
  if (const int code = rte_eth_dev_configure(id_, 1, 1, &settings); code != 0)
    return fail("cannot be configured", code);
  uint16_t rx = kDescriptors, tx = kDescriptors;
  rte_eth_dev_adjust_nb_rx_tx_desc(id_, &rx, &tx);
  const auto socket = static_cast<unsigned>(SOCKET_ID_ANY);
  if (const int code = rte_eth_rx_queue_setup(id_, 0, rx, socket, nullptr, packets); code != 0) {
    return fail("receive queue", code);
  }
  if (const int code = rte_eth_tx_queue_setup(id_, 0, tx, socket, nullptr); code != 0)
    return fail("send queue", code);
  if (Result<void> agreed = agree_on_mtu(); !agreed) return agreed.error();
  if (const int code = rte_eth_dev_start(id_); code != 0) return fail("cannot be started", code);
  rte_eth_promiscuous_enable(
      id_);  // a virtual address of the outside may have any MAC filter in between
  rte_eth_macaddr_get(id_, &mac_);
  link_local_ = link_local_address(mac_.addr_bytes);
  std::memcpy(block_.mac, mac_.addr_bytes, sizeof(block_.mac));
  std::strncpy(block_.name, config_.name.c_str(), sizeof(block_.name) - 1);
  refresh_link();
  return {};
}

// The af_packet driver says 1500 whatever its interface carries.
uint32_t SwitchPort::device_mtu() const {
  ifreq request{};
  std::strncpy(request.ifr_name, interface_.c_str(), IFNAMSIZ - 1);
  if (!interface_.empty() && ioctl(wait_fds_.front(), SIOCGIFMTU, &request) == 0)
    return static_cast<uint32_t>(request.ifr_mtu);
  uint16_t mtu = 0;
  return rte_eth_dev_get_mtu(id_, &mtu) == 0 ? mtu : kDefaultMtu;
}

// The device carries at least what is configured. What is not configured follows the device.
Result<void> SwitchPort::agree_on_mtu() {
  const uint32_t device_mtu = this->device_mtu();
  const uint32_t smallest = speaks_ipv6() ? kSmallestIpv6Mtu : kSmallestMtu;
  mtu_ = config_.mtu == 0 ? std::min(device_mtu, kDefaultMtu) : config_.mtu;
  if (mtu_ < smallest) {
    return unavailable("ports[" + config_.name + "].device",
                       "\"" + config_.device + "\" carries " + std::to_string(mtu_) +
                           " bytes; accepted: " + std::to_string(smallest) +
                           " or more, or an mtu of the port to which it is raised");
  }
  if (mtu_ <= device_mtu) return {};
  const int code = rte_eth_dev_set_mtu(id_, static_cast<uint16_t>(mtu_));
  if (code == 0) return {};
  return unavailable("ports[" + config_.name + "].mtu",
                     std::to_string(mtu_) + " is more than the device carries (" +
                         std::to_string(device_mtu) + ") and cannot be set: " +
                         std::strerror(-code) + "; accepted: at most what the device carries");
}

void SwitchPort::close() {
  rte_pktmbuf_free_bulk(queue_, queued_);
  queued_ = 0;
  rte_eth_dev_stop(id_);
  rte_eth_dev_close(id_);
}

bool SwitchPort::queue(rte_mbuf* packet) {
  if (queued_ == kTxQueuePackets) return false;
  queue_[queued_++] = packet;
  return true;
}

uint16_t SwitchPort::flush(uint64_t now_tsc, uint64_t tsc_hz, uint16_t& dropped) {
  dropped = 0;
  if (queued_ == 0) return 0;
  const bool link_up = block_.link_up.load(std::memory_order_relaxed) != 0;
  uint64_t bytes = 0;
  for (uint16_t i = 0; i < queued_; ++i) bytes += queue_[i]->pkt_len;
  const uint16_t taken = rte_eth_tx_burst(id_, 0, queue_, queued_);
  if (taken == queued_) {
    queued_ = 0;
    stuck_since_tsc_ = 0;
  } else {
    for (uint16_t i = taken; i < queued_; ++i) bytes -= queue_[i]->pkt_len;
    queued_ = static_cast<uint16_t>(queued_ - taken);
    std::copy(queue_ + taken, queue_ + taken + queued_, queue_);
    if (taken > 0 || stuck_since_tsc_ == 0) stuck_since_tsc_ = now_tsc;
    const uint64_t patience_ms = link_up ? kStuckPeerMs : kLinkDownMs;
    if (now_tsc - stuck_since_tsc_ > tsc_hz / 1000 * patience_ms) {
      dropped = queued_;
      rte_pktmbuf_free_bulk(queue_, queued_);
      queued_ = 0;
      stuck_since_tsc_ = 0;
    }
  }
  bump(block_.tx_packets, taken);
  bump(block_.tx_bytes, bytes);
  return taken;
}

void SwitchPort::refresh_link() {
  rte_eth_link link{};
  rte_eth_link_get_nowait(id_, &link);
  const bool up = link.link_status == RTE_ETH_LINK_UP && (interface_.empty() || interface_up());
  block_.link_up.store(up ? 1 : 0);
}

// The af_packet driver says "up" whatever happens. An error that an interface leaves on its socket
// when it goes down is fetched, or waiting for the socket would return at once for ever.
bool SwitchPort::interface_up() const {
  const int fd = wait_fds_.front();
  int error = 0;
  socklen_t length = sizeof(error);
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  ifreq request{};
  std::strncpy(request.ifr_name, interface_.c_str(), IFNAMSIZ - 1);
  return ioctl(fd, SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & IFF_RUNNING) != 0;
}

bool SwitchPort::is_own_address(Be32 address) const {
  return has_address(config_.addresses, address);
}

Be32 SwitchPort::next_hop(Be32 destination) const {
  return hop_towards(config_.addresses, config_.routes, destination);
}

Be32 SwitchPort::source_for(Be32 neighbour) const {
  return config_.addresses.empty() ? Be32{} : source_towards(config_.addresses, neighbour);
}

bool SwitchPort::is_own_address(const Ipv6Address& address) const {
  return speaks_ipv6() && (address == link_local_ || has_address(config_.ipv6_addresses, address));
}

Ipv6Address SwitchPort::next_hop(const Ipv6Address& destination) const {
  if (!speaks_ipv6()) return {};
  if (is_link_local(destination)) return destination;
  return hop_towards(config_.ipv6_addresses, config_.ipv6_routes, destination);
}

Ipv6Address SwitchPort::source_for(const Ipv6Address& destination) const {
  if (!speaks_ipv6()) return {};
  if (is_link_local(destination)) return link_local_;
  return source_towards(config_.ipv6_addresses, destination);
}

}  // namespace flowkeep
