// SwitchPort: one DPDK port of the node, inside or outside, with its addresses and routes. Receives
// and sends in bursts; what the device does not take at once waits in a bounded queue of its own.
//
// Thread rule: the switch's I/O thread only.
#pragma once

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "dataplane/arena.h"
#include "dataplane/node_config.h"

namespace flowkeep {

inline constexpr uint16_t kTxQueuePackets = 1024;

class SwitchPort {
 public:
  // Probes the device and starts it with one queue each way. Errors name the port and the device.
  static Result<std::unique_ptr<SwitchPort>> open(const PortConfig& config, PortBlock& block,
                                                  rte_mempool* packets);
  // Stops and closes the device, so that sockets and rings of its other side notice.
  void close();

  uint16_t receive(rte_mbuf** burst, uint16_t count) {
    return rte_eth_rx_burst(id_, 0, burst, count);
  }
  // Takes the packet; false when the queue is full (the packet is still the caller's).
  bool queue(rte_mbuf* packet);
  // Gives the queue to the device. Returns how many packets it took. A device whose link is down,
  // or that takes nothing for seconds, has its queue dropped, counted as port_tx_full; `dropped`
  // says how many.
  uint16_t flush(uint64_t now_tsc, uint64_t tsc_hz, uint16_t& dropped);
  bool has_room(uint16_t packets) const { return queued_ + packets <= kTxQueuePackets; }
  uint16_t queued() const { return queued_; }

  // File descriptors that become readable when packets arrive; empty: the device must be polled.
  const std::vector<int>& wait_fds() const { return wait_fds_; }
  void refresh_link();

  const PortConfig& config() const { return config_; }
  PortBlock& block() { return block_; }
  const rte_ether_addr& mac() const { return mac_; }
  // Largest IP packet that is sent.
  uint32_t mtu() const { return mtu_; }
  bool is_own_address(Be32 address) const;
  bool is_own_address(const Ipv6Address& address) const;
  bool speaks_ipv6() const { return !config_.ipv6_addresses.empty(); }
  const Ipv6Address& link_local() const { return link_local_; }
  // Next hop for a destination: itself on a connected prefix, else the longest route's gateway; 0:
  // none.
  Be32 next_hop(Be32 destination) const;
  Ipv6Address next_hop(const Ipv6Address& destination) const;
  // Address to speak from towards that neighbour; 0 if the port has none.
  Be32 source_for(Be32 neighbour) const;
  // The link-local one for link-local addresses only.
  Ipv6Address source_for(const Ipv6Address& destination) const;

 private:
  SwitchPort(PortConfig config, PortBlock& block) : config_(std::move(config)), block_(block) {}
  Result<void> start(rte_mempool* packets);
  // Packet sockets that were opened since: wait_fds_ and interface_.
  void find_sockets(const std::set<int>& before);
  uint32_t device_mtu() const;
  Result<void> agree_on_mtu();
  bool interface_up() const;

  PortConfig config_;
  PortBlock& block_;
  uint16_t id_ = 0;
  uint32_t mtu_ = kDefaultMtu;
  rte_ether_addr mac_{};
  Ipv6Address link_local_{};
  std::vector<int> wait_fds_;
  std::string interface_;  // of the kernel's, where wait_fds_ are its packet sockets
  uint16_t queued_ = 0;
  uint64_t stuck_since_tsc_ = 0;
  rte_mbuf* queue_[kTxQueuePackets];
};

}  // namespace flowkeep
