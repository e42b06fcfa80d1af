// The headers of Ethernet, IPv4, IPv6, TCP, UDP and ICMP as they lie on the wire.
//
// Every field is an array of bytes underneath, so the structs have no padding, no alignment and no
// byte order of their own: get() and set() convert explicitly. header_at() is the only way to a
// header whose bounds were not yet checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "state/flow_key.h"

namespace flowkeep {

template <typename T>
struct Wire {
  uint8_t bytes[sizeof(T)];
  T get() const {
    T value;
    std::memcpy(&value, bytes, sizeof(value));
    return value;
  }
  void set(T value) { std::memcpy(bytes, &value, sizeof(value)); }
};

inline constexpr uint16_t kEtherTypeIpv4 = 0x0800;
inline constexpr uint16_t kEtherTypeArp = 0x0806;
inline constexpr uint16_t kEtherTypeIpv6 = 0x86dd;
inline constexpr uint16_t kEtherTypeVlan = 0x8100;         // 802.1Q
inline constexpr uint16_t kEtherTypeServiceVlan = 0x88a8;  // 802.1ad

struct EthernetHeader {
  uint8_t destination[6];
  uint8_t source[6];
  Wire<Be16> type;
};
static_assert(sizeof(EthernetHeader) == 14);

struct VlanTag {
  Wire<Be16> tci;   // priority and VLAN
  Wire<Be16> type;  // of what follows
};
static_assert(sizeof(VlanTag) == 4);

struct Ipv4Header {
  uint8_t
      version_and_words;  // version 4 in the high half, header length in 32-bit words in the low
  uint8_t dscp_ecn;
  Wire<Be16> total_length;
  Wire<Be16> identification;
  Wire<Be16> flags_and_offset;  // fragment offset in units of 8 bytes in the low 13 bits
  uint8_t ttl;
  uint8_t protocol;
  Wire<Be16> checksum;
  Wire<Be32> src;
  Wire<Be32> dst;

  uint8_t version() const { return version_and_words >> 4; }
  uint16_t header_bytes() const { return static_cast<uint16_t>((version_and_words & 0x0f) * 4); }
  bool more_fragments() const { return (flags_and_offset.get().host() & 0x2000) != 0; }
  uint16_t fragment_offset() const { return flags_and_offset.get().host() & 0x1fff; }
};
static_assert(sizeof(Ipv4Header) == 20);

inline constexpr uint8_t kIpv4EndOfOptions = 0, kIpv4NoOperation = 1;
inline constexpr uint8_t kIpv4LooseSourceRoute = 131, kIpv4StrictSourceRoute = 137;

struct Ipv6Header {
  Wire<Be32> version_class_flow;  // version 6 in the highest 4 bits
  Wire<Be16> payload_length;
  uint8_t next_header;
  uint8_t hop_limit;
  WideAddresses addresses;

  uint8_t version() const { return version_class_flow.bytes[0] >> 4; }
};
static_assert(sizeof(Ipv6Header) == 40 && offsetof(Ipv6Header, addresses) == 8);

// Next headers that are extension headers, and what is no header.
inline constexpr uint8_t kHopByHopOptions = 0;
inline constexpr uint8_t kRoutingHeader = 43;
inline constexpr uint8_t kFragmentHeader = 44;
inline constexpr uint8_t kAuthenticationHeader = 51;
inline constexpr uint8_t kNoNextHeader = 59;
inline constexpr uint8_t kDestinationOptions = 60;

// What any of them starts with, and it has no fewer bytes.
struct Ipv6Extension {
  uint8_t next_header;
  uint8_t length;         // in 8 bytes beyond the first 8; authentication: in 4 beyond 8
  uint8_t routing_type;   // of a routing header
  uint8_t segments_left;  // of a routing header
  uint8_t rest[4];
};
static_assert(sizeof(Ipv6Extension) == 8);

struct Ipv6Fragment {
  uint8_t next_header;
  uint8_t reserved;
  Wire<Be16> offset_and_more;  // offset in units of 8 bytes in the upper 13 bits
  Wire<Be32> identification;

  bool more_fragments() const { return (offset_and_more.get().host() & 1) != 0; }
  uint16_t fragment_offset() const { return offset_and_more.get().host() >> 3; }
};
static_assert(sizeof(Ipv6Fragment) == 8);

struct TcpHeader {
  Wire<Be16> src_port;
  Wire<Be16> dst_port;
  Wire<Be32> sequence;
  Wire<Be32> acknowledgement;
  uint8_t data_offset;  // in 32-bit words, in the high half
  uint8_t flags;
  Wire<Be16> window;
  Wire<Be16> checksum;
  Wire<Be16> urgent;

  uint16_t header_bytes() const { return static_cast<uint16_t>((data_offset >> 4) * 4); }
};
static_assert(sizeof(TcpHeader) == 20 && offsetof(TcpHeader, checksum) == 16);

struct UdpHeader {
  Wire<Be16> src_port;
  Wire<Be16> dst_port;
  Wire<Be16> length;
  Wire<Be16> checksum;  // 0: none
};
static_assert(sizeof(UdpHeader) == 8);

inline constexpr uint8_t kIcmpEchoReply = 0;
inline constexpr uint8_t kIcmpUnreachable = 3;
inline constexpr uint8_t kIcmpEchoRequest = 8;
inline constexpr uint8_t kIcmpTimeExceeded = 11;
inline constexpr uint8_t kIcmpParameterProblem = 12;

inline constexpr uint8_t kIcmpv6Unreachable = 1;
inline constexpr uint8_t kIcmpv6PacketTooBig = 2;
inline constexpr uint8_t kIcmpv6TimeExceeded = 3;
inline constexpr uint8_t kIcmpv6ParameterProblem = 4;
inline constexpr uint8_t kIcmpv6EchoRequest = 128;
inline constexpr uint8_t kIcmpv6EchoReply = 129;
inline constexpr uint8_t kMulticastListenerQuery = 130, kMulticastListenerReport = 131,
                         kMulticastListenerDone = 132, kMulticastListenerReport2 = 143;
inline constexpr uint8_t kRouterSolicitation = 133, kRouterAdvertisement = 134,
                         kNeighbourSolicitation = 135, kNeighbourAdvertisement = 136,
                         kNeighbourRedirect = 137;

struct IcmpHeader {  // of both versions
  uint8_t type;
  uint8_t code;
  Wire<Be16> checksum;
  Wire<Be16> identifier;  // of echo; in errors unused, a pointer or the next hop's MTU
  Wire<Be16> sequence;
};
static_assert(sizeof(IcmpHeader) == 8 && offsetof(IcmpHeader, identifier) == 4);

// The header at `offset` of a frame of `length` bytes, or nullptr where the frame ends before it
// does.
template <typename Header>
const Header* header_at(const uint8_t* frame, size_t length, size_t offset) {
  if (offset > length || length - offset < sizeof(Header)) return nullptr;
  return reinterpret_cast<const Header*>(frame + offset);
}

// The header at an offset that parse() has checked.
template <typename Header>
Header& checked_header(uint8_t* frame, size_t offset) {
  return *reinterpret_cast<Header*>(frame + offset);
}
template <typename Header>
const Header& checked_header(const uint8_t* frame, size_t offset) {
  return *reinterpret_cast<const Header*>(frame + offset);
}

}  // namespace flowkeep
