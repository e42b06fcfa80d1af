#include "dataplane/pktgen/frame_builder.h"

#include <cassert>
#include <cstring>

#include "dataplane/pktgen/checksum.h"

namespace flowkeep::pktgen {
namespace {

void store_be16(uint8_t* bytes, size_t value) {
  bytes[0] = static_cast<uint8_t>(value >> 8);
  bytes[1] = static_cast<uint8_t>(value);
}

void write_ipv4(uint8_t* ip, size_t total_bytes, uint8_t protocol) {
  ip[0] = 0x45;
  store_be16(ip + 2, total_bytes);
  store_be16(ip + 6, 0x4000);  // do not fragment: the identification may then be 0 (RFC 6864)
  ip[8] = 64;
  ip[9] = protocol;
}

}  // namespace

FrameBuilder::FrameBuilder(uint8_t protocol, size_t frame_bytes, const MacAddress& source,
                           const MacAddress& destination)
    : frame_bytes_(frame_bytes),
      tag_offset_(kL4Offset + l4_header_bytes(protocol)),
      checksum_offset_(kL4Offset + (protocol == kProtocolTcp ? 16 : 6)),
      udp_(protocol == kProtocolUdp) {
  assert(frame_bytes >= shortest_frame_bytes(protocol) && frame_bytes <= kLongestFrameBytes);
  uint8_t* bytes = template_.data();
  std::memcpy(bytes, destination.data(), 6);
  std::memcpy(bytes + 6, source.data(), 6);
  store_be16(bytes + 12, kEtherTypeIpv4);
  write_ipv4(bytes + kIpv4Offset, frame_bytes - kIpv4Offset, protocol);
  const size_t l4_bytes = frame_bytes - kL4Offset;
  if (udp_) {
    store_be16(bytes + kL4Offset + 4, l4_bytes);
  } else {
    bytes[kL4Offset + 12] = (kTcpBytes / 4) << 4;
    bytes[kL4Offset + 13] = kTcpSyn;
    store_be16(bytes + kL4Offset + 14, 0xffff);  // window
  }
  uint8_t pseudo[4] = {0, protocol, 0, 0};
  store_be16(pseudo + 2, l4_bytes);
  ipv4_sum_ = add_bytes(0, bytes + kIpv4Offset, kIpv4Bytes);
  l4_sum_ = add_bytes(add_bytes(0, pseudo, sizeof(pseudo)), bytes + kL4Offset, l4_bytes);
}

void FrameBuilder::build(uint8_t* frame, const FlowEndpoints& flow, const ProbeTag& tag) const {
  std::memcpy(frame, template_.data(), frame_bytes_);
  std::memcpy(frame + kIpv4Offset + 12, &flow.source, 4);
  std::memcpy(frame + kIpv4Offset + 16, &flow.destination, 4);
  std::memcpy(frame + kL4Offset, &flow.source_port, 2);
  std::memcpy(frame + kL4Offset + 2, &flow.destination_port, 2);
  const uint64_t addresses = uint64_t{flow.source.raw} + flow.destination.raw;
  uint64_t l4_sum = l4_sum_ + addresses + flow.source_port.raw + flow.destination_port.raw;
  if (!udp_) {
    // One initial sequence number for all SYNs of a flow: they are retransmissions of each other.
    const uint32_t initial = tag.flow * 2654435761u;
    std::memcpy(frame + kL4Offset + 4, &initial, 4);
    l4_sum += initial;
  }
  write_tag(frame + tag_offset_, tag);
  l4_sum = add_bytes(l4_sum, frame + tag_offset_, kTagBytes);

  const uint16_t ipv4_checksum = checksum_of(ipv4_sum_ + addresses);
  std::memcpy(frame + kIpv4Offset + 10, &ipv4_checksum, 2);
  uint16_t l4_checksum = checksum_of(l4_sum);
  if (udp_ && l4_checksum == 0) l4_checksum = 0xffff;  // RFC 768: 0 means none
  std::memcpy(frame + checksum_offset_, &l4_checksum, 2);
}

}  // namespace flowkeep::pktgen
