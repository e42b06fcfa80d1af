// Addresses and prefixes of IPv6 as ports have them.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "state/result.h"

namespace flowkeep {

using Ipv6Address = std::array<uint8_t, 16>;  // as it lies on the wire

inline bool is_unspecified(const Ipv6Address& address) {
  return address == Ipv6Address{};
}
inline bool is_loopback(const Ipv6Address& address) {
  return address == Ipv6Address{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
}
inline bool is_multicast(const Ipv6Address& address) {
  return address[0] == 0xff;
}
inline bool is_link_local(const Ipv6Address& address) {
  return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

struct Ipv6Prefix {
  Ipv6Address address;    // as written: host bits are kept (an interface address)
  uint32_t length = 128;  // 0 to 128
  bool contains(const Ipv6Address& other) const;
};

Result<Ipv6Address> parse_ipv6(const std::string& text, const std::string& field);
Result<Ipv6Prefix> parse_ipv6_prefix(const std::string& text, const std::string& field);
std::string format_ipv6(const Ipv6Address& address);
// The address that an interface makes itself of its MAC address (RFC 4291 appendix A).
Ipv6Address link_local_address(const uint8_t* mac);
// The group in which an address is asked for (RFC 4291 section 2.7.1).
Ipv6Address solicited_node_group(const Ipv6Address& address);

}  // namespace flowkeep
