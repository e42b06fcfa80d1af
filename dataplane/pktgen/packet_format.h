// Offsets and constants of the packets that are made and read here: Ethernet II, IPv4 without
// options, UDP or TCP without options.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dataplane/pktgen/probe_tag.h"

namespace flowkeep::pktgen {

inline constexpr size_t kFcsBytes = 4;  // counted in frame sizes (RFC 2544), never seen in memory
inline constexpr size_t kEthernetBytes = 14;
inline constexpr size_t kIpv4Bytes = 20;
inline constexpr size_t kUdpBytes = 8;
inline constexpr size_t kTcpBytes = 20;
inline constexpr size_t kLongestFrameBytes = 1514;  // without FCS
inline constexpr size_t kIpv4Offset = kEthernetBytes;
inline constexpr size_t kL4Offset = kIpv4Offset + kIpv4Bytes;

inline constexpr uint16_t kEtherTypeIpv4 = 0x0800;
inline constexpr uint16_t kEtherTypeArp = 0x0806;
inline constexpr uint8_t kProtocolTcp = 6;
inline constexpr uint8_t kProtocolUdp = 17;
inline constexpr uint8_t kTcpSyn = 0x02;
inline constexpr uint8_t kTcpAck = 0x10;

constexpr size_t l4_header_bytes(uint8_t protocol) {
  return protocol == kProtocolTcp ? kTcpBytes : kUdpBytes;
}

// Smallest frame, without FCS, whose payload holds a tag: 60 for UDP, 72 for TCP.
constexpr size_t shortest_frame_bytes(uint8_t protocol) {
  return kL4Offset + l4_header_bytes(protocol) + kTagBytes;
}
static_assert(shortest_frame_bytes(kProtocolUdp) + kFcsBytes == 64);

}  // namespace flowkeep::pktgen
