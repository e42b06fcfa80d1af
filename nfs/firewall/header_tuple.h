// HeaderTuple: what rules can ask about a packet, of either address family.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "state/flow_key.h"

namespace flowkeep {

enum class AddressFamily : uint8_t { kIpv4, kIpv6 };

// On the wire's order; an IPv4 address is the first four bytes, the others are zero.
using AddressBytes = std::array<uint8_t, 16>;

inline AddressBytes address_bytes(Be32 address) {
  AddressBytes bytes{};
  std::memcpy(bytes.data(), &address.raw, sizeof(address.raw));
  return bytes;
}

// As the packet itself has them, from where it entered.
struct HeaderTuple {
  AddressFamily family = AddressFamily::kIpv4;
  AddressBytes src{};
  AddressBytes dst{};
  uint16_t src_port = 0;  // host byte order. ICMP and ICMPv6: the type
  uint16_t dst_port = 0;  // ICMP and ICMPv6: the code
  uint8_t protocol = 0;   // IANA protocol number
  uint8_t tcp_flags = 0;  // other protocols: 0
  Side side = Side::kInside;
};

// Of an IPv4 packet.
inline HeaderTuple header_tuple(const FlowKey& key) {
  HeaderTuple tuple;
  tuple.src = address_bytes(key.src);
  tuple.dst = address_bytes(key.dst);
  tuple.src_port = key.src_port.host();
  tuple.dst_port = key.dst_port.host();
  tuple.protocol = key.protocol;
  tuple.side = key.side;
  return tuple;
}

}  // namespace flowkeep
