#include "dataplane/switch/fragment.h"

#include <cstring>

#include "nfs/headers.h"

namespace flowkeep {
namespace {

constexpr size_t kL3Offset = sizeof(EthernetHeader);
constexpr size_t kIpv6HeaderBytes = 40;
constexpr size_t kFragmentHeaderBytes = 8;

uint16_t read16(const uint8_t* at) {
  return static_cast<uint16_t>(at[0] << 8 | at[1]);
}

}  // namespace

uint32_t Fragment::packet_bytes() const {
  const auto own = static_cast<uint32_t>(id.version == 6 ? kFragmentHeaderBytes : 0);
  return static_cast<uint32_t>(header_bytes - kL3Offset) + own + payload_bytes;
}

std::optional<Fragment> read_ipv4_fragment(const uint8_t* frame, size_t length, uint8_t port) {
  const auto* ip = header_at<Ipv4Header>(frame, length, kL3Offset);
  if (ip == nullptr || ip->version() != 4) return std::nullopt;
  const size_t header_bytes = ip->header_bytes();
  const size_t total_bytes = ip->total_length.get().host();
  const bool whole = header_bytes >= sizeof(Ipv4Header) && total_bytes >= header_bytes &&
                     total_bytes <= length - kL3Offset;
  if (!whole || (!ip->more_fragments() && ip->fragment_offset() == 0)) return std::nullopt;
  Fragment found;
  found.id = {.addresses = {},
              .identification = ip->identification.get().host(),
              .protocol = ip->protocol,
              .version = 4,
              .port = port};
  std::memcpy(found.id.addresses.data(), ip->src.bytes, 4);
  std::memcpy(found.id.addresses.data() + 4, ip->dst.bytes, 4);
  found.frame = frame;
  found.header_bytes = static_cast<uint16_t>(kL3Offset + header_bytes);
  found.payload = frame + found.header_bytes;
  found.payload_bytes = static_cast<uint32_t>(total_bytes - header_bytes);
  found.offset = ip->fragment_offset() * 8U;
  found.more = ip->more_fragments();
  return found;
}

// Only headers that each router may look at stand in front of the fragment header (RFC 8200 4.5).
std::optional<Fragment> read_ipv6_fragment(const uint8_t* frame, size_t length, uint8_t port) {
  if (length < kL3Offset + kIpv6HeaderBytes) return std::nullopt;
  const uint8_t* ip = frame + kL3Offset;
  const size_t end = kL3Offset + kIpv6HeaderBytes + read16(ip + 4);
  if (ip[0] >> 4 != 6 || end > length) return std::nullopt;
  size_t next_header_at = kL3Offset + 6;
  size_t at = kL3Offset + kIpv6HeaderBytes;
  while (frame[next_header_at] != kFragmentHeader) {
    const uint8_t kind = frame[next_header_at];
    if (kind != kHopByHopOptions && kind != kRoutingHeader && kind != kDestinationOptions)
      return std::nullopt;
    if (at + 8 > end) return std::nullopt;
    next_header_at = at;
    at += (frame[at + 1] + 1U) * 8;
  }
  if (at + kFragmentHeaderBytes > end) return std::nullopt;
  Fragment found;
  found.id = {.addresses = {},
              .identification =
                  static_cast<uint32_t>(read16(frame + at + 4)) << 16 | read16(frame + at + 6),
              .protocol = 0,
              .version = 6,
              .port = port};
  std::memcpy(found.id.addresses.data(), ip + 8, 32);
  found.frame = frame;
  found.header_bytes = static_cast<uint16_t>(at);
  found.payload = frame + at + kFragmentHeaderBytes;
  found.payload_bytes = static_cast<uint32_t>(end - at - kFragmentHeaderBytes);
  found.offset = read16(frame + at + 2) & 0xfff8U;
  found.more = (frame[at + 3] & 1) != 0;
  found.next_header = frame[at];
  found.next_header_at = static_cast<uint16_t>(next_header_at);
  return found;
}

}  // namespace flowkeep
