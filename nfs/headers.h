// The headers of Ethernet, IPv4, TCP, UDP and ICMP as they lie on the wire.
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

struct EthernetHeader {
  uint8_t destination[6];
  uint8_t source[6];
  Wire<Be16> type;
};
static_assert(sizeof(EthernetHeader) == 14);

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

struct IcmpHeader {
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
