// NodeConfig: a node's YAML file (configs/nodes/), checked whole before anything starts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dataplane/arena.h"
#include "dataplane/ipv6_address.h"
#include "dataplane/switch/vlan.h"
#include "state/flow_key.h"
#include "state/persistence.h"
#include "state/result.h"

namespace flowkeep {

struct Ipv4Prefix {
  Be32 address;          // as written: host bits are kept (an interface address)
  uint32_t length = 32;  // 0 to 32
  uint32_t mask_host() const { return length == 0 ? 0 : ~uint32_t{0} << (32 - length); }
  bool contains(Be32 other) const { return ((address.host() ^ other.host()) & mask_host()) == 0; }
};

struct RouteConfig {
  Ipv4Prefix prefix;
  Be32 via;
};

struct NeighbourConfig {
  Be32 address;
  uint8_t mac[6] = {};
};

struct Ipv6RouteConfig {
  Ipv6Prefix prefix;
  Ipv6Address via;
};

struct Ipv6NeighbourConfig {
  Ipv6Address address;
  uint8_t mac[6] = {};
};

inline constexpr uint32_t kDefaultMtu = 1500;
inline constexpr uint32_t kSmallestMtu = 576;       // what every IPv4 host takes (RFC 791)
inline constexpr uint32_t kSmallestIpv6Mtu = 1280;  // RFC 8200 section 5
inline constexpr uint32_t kLargestMtu = 2026;  // a frame with two VLAN tags then fills its buffer

struct PortConfig {
  std::string name;
  std::string device;  // DPDK device arguments: "net_af_packet0,iface=eth1", "0000:03:00.0"
  Side role = Side::kInside;
  std::vector<Ipv4Prefix> addresses;
  std::vector<RouteConfig> routes;
  std::vector<NeighbourConfig> neighbours;  // static; others are resolved by ARP
  std::vector<Ipv6Prefix> ipv6_addresses;   // none: the port does not speak IPv6
  std::vector<Ipv6RouteConfig> ipv6_routes;
  std::vector<Ipv6NeighbourConfig> ipv6_neighbours;  // static; others by neighbour discovery
  VlanTags vlan;
  bool promiscuous = false;  // accept frames to any MAC address
  // Largest IP packet that the path behind the port carries; 0: the device's, at most kDefaultMtu.
  uint32_t mtu = 0;
};

struct NodeConfig {
  std::string name = "node-1";
  std::string controller;  // host:port; empty: none
  std::string agent_listen = "127.0.0.1:7471";
  std::string state_dir = "/var/lib/flowkeep";
  std::string pool_path;
  uint64_t pool_bytes = 256ULL << 20;
  bool emulate_pmem = false;
  bool power_cut_drills = false;  // keep what a power cut would leave (state/emulated_medium.h)
  InjectedDelay pool_delay;       // of flushes; needs emulate_pmem
  uint32_t packet_count = 65536;  // more than one inbox holds
  uint32_t datagram_count = 256;  // buffers of 64 KiB for what arrived in fragments
  uint32_t reassembly_timeout_ms = 30'000;
  Hugepages hugepages = Hugepages::kAuto;
  uint32_t worker_slots = 8;
  uint32_t standby = 1;                 // warm standby workers of each chain
  std::string dead_letter_directory;    // empty: state_dir/dead-letters
  uint32_t dead_letter_limit_mib = 16;  // of each chain's file
  uint32_t hang_timeout_ms = 100;  // CPU time without progress after which a worker counts as hung
  std::vector<std::string> eal_arguments;  // appended to the switch's own
  std::vector<PortConfig> ports;

  uint32_t buffers() const { return packet_count + datagram_count; }

  // Errors name file, field, value and what would be accepted.
  static Result<NodeConfig> load(const std::string& path);
  static Result<NodeConfig> parse(const std::string& yaml, const std::string& origin);
};

Result<Be32> parse_ipv4(const std::string& text, const std::string& field);
Result<Ipv4Prefix> parse_prefix(const std::string& text, const std::string& field);
std::string format_ipv4(Be32 address);
std::string format_mac(const uint8_t* mac);

}  // namespace flowkeep
