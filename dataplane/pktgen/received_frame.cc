#include "dataplane/pktgen/received_frame.h"

#include <algorithm>
#include <cstring>

#include "dataplane/pktgen/checksum.h"

namespace flowkeep::pktgen {
namespace {

uint16_t load_be16(const uint8_t* bytes) {
  return static_cast<uint16_t>(bytes[0] << 8 | bytes[1]);
}

uint64_t l4_sum(std::span<const uint8_t> frame, const TaggedPacket& packet) {
  const uint8_t pseudo[4] = {0, packet.protocol, static_cast<uint8_t>(packet.l4_bytes >> 8),
                             static_cast<uint8_t>(packet.l4_bytes)};
  uint64_t sum = add_bytes(0, pseudo, sizeof(pseudo));
  sum = add_bytes(sum, frame.data() + kIpv4Offset + 12, 8);
  return add_bytes(sum, frame.data() + packet.l4_offset, packet.l4_bytes);
}

}  // namespace

uint16_t ether_type(std::span<const uint8_t> frame) {
  return frame.size() < kEthernetBytes ? uint16_t{0} : load_be16(frame.data() + 12);
}

std::optional<TaggedPacket> read_tagged(std::span<const uint8_t> frame) {
  if (frame.size() < kL4Offset || ether_type(frame) != kEtherTypeIpv4) return std::nullopt;
  const uint8_t* ip = frame.data() + kIpv4Offset;
  const size_t header_bytes = (ip[0] & 0xfu) * 4u;
  const size_t total_bytes = load_be16(ip + 2);
  const bool fragment = (load_be16(ip + 6) & 0x3fff) != 0;
  if (ip[0] >> 4 != 4 || header_bytes < kIpv4Bytes || fragment) return std::nullopt;
  if (total_bytes < header_bytes || total_bytes > frame.size() - kIpv4Offset) return std::nullopt;

  TaggedPacket packet;
  packet.protocol = ip[9];
  if (packet.protocol != kProtocolUdp && packet.protocol != kProtocolTcp) return std::nullopt;
  packet.l4_offset = static_cast<uint16_t>(kIpv4Offset + header_bytes);
  packet.l4_bytes = static_cast<uint16_t>(total_bytes - header_bytes);
  if (packet.l4_bytes < kUdpBytes) return std::nullopt;
  const uint8_t* l4 = frame.data() + packet.l4_offset;
  if (packet.protocol == kProtocolTcp && packet.l4_bytes < kTcpBytes) return std::nullopt;
  const size_t l4_header = packet.protocol == kProtocolTcp ? (l4[12] >> 4) * 4u : kUdpBytes;
  if (l4_header < l4_header_bytes(packet.protocol) || packet.l4_bytes < l4_header + kTagBytes)
    return std::nullopt;
  const auto tag = read_tag(l4 + l4_header);
  if (!tag) return std::nullopt;
  packet.tag = *tag;
  std::memcpy(&packet.source, ip + 12, 4);
  std::memcpy(&packet.source_port, l4, 2);
  return packet;
}

bool checksums_valid(std::span<const uint8_t> frame, const TaggedPacket& packet) {
  const size_t header_bytes = packet.l4_offset - kIpv4Offset;
  if (fold(add_bytes(0, frame.data() + kIpv4Offset, header_bytes)) != 0xffff) return false;
  const uint8_t* l4 = frame.data() + packet.l4_offset;
  if (packet.protocol == kProtocolUdp && load_be16(l4 + 6) == 0) return false;
  return fold(l4_sum(frame, packet)) == 0xffff;
}

void reverse(std::span<uint8_t> frame, const TaggedPacket& packet) {
  uint8_t* ip = frame.data() + kIpv4Offset;
  uint8_t* l4 = frame.data() + packet.l4_offset;
  std::swap_ranges(frame.data(), frame.data() + 6, frame.data() + 6);
  std::swap_ranges(ip + 12, ip + 16, ip + 16);
  std::swap_ranges(l4, l4 + 2, l4 + 2);
  if (packet.protocol != kProtocolTcp) return;  // no sum has changed
  const size_t header_bytes = (l4[12] >> 4) * 4u;
  Be32 sequence;
  std::memcpy(&sequence, l4 + 4, 4);
  const Be32 acknowledged =
      Be32::from_host(sequence.host() + 1 + static_cast<uint32_t>(packet.l4_bytes - header_bytes));
  std::memcpy(l4 + 8, &acknowledged, 4);
  l4[13] = static_cast<uint8_t>(l4[13] | kTcpAck);
  std::memset(l4 + 16, 0, 2);
  const uint16_t checksum = checksum_of(l4_sum(frame, packet));
  std::memcpy(l4 + 16, &checksum, 2);
}

}  // namespace flowkeep::pktgen
