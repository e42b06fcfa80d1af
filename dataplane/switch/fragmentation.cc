#include "dataplane/switch/fragmentation.h"

#include <algorithm>
#include <cstring>

#include "nfs/checksum.h"
#include "nfs/headers.h"

namespace flowkeep {
namespace {

constexpr size_t kIpv6HeaderBytes = 40;
constexpr size_t kFragmentHeaderBytes = 8;
constexpr uint16_t kDontFragment = 0x4000, kMoreFragments = 0x2000;
constexpr uint8_t kOptionCopied = 0x80, kOptionEnd = 0, kOptionNone = 1;

void write16(uint8_t* at, size_t value) {
  at[0] = static_cast<uint8_t>(value >> 8);
  at[1] = static_cast<uint8_t>(value);
}

}  // namespace

Fragmentation::Fragmentation(const uint8_t* packet, size_t packet_bytes, uint32_t mtu,
                             uint32_t identification)
    : packet_(packet), identification_(identification) {
  if (is_ipv6()) {
    // What each router on the way may look at: hop-by-hop options, and all up to a routing header.
    header_end_ = kIpv6HeaderBytes;
    next_header_at_ = 6;
    size_t named_at = 6, at = kIpv6HeaderBytes;
    while (at + 8 <= packet_bytes) {
      const uint8_t kind = packet[named_at];
      if (kind != kHopByHopOptions && kind != kRoutingHeader && kind != kDestinationOptions) break;
      named_at = at;
      at += (packet[at + 1] + 1U) * 8;
      if (kind == kDestinationOptions) continue;
      next_header_at_ = named_at;
      header_end_ = at;
    }
    first_header_bytes_ = later_header_bytes_ = header_end_ + kFragmentHeaderBytes;
  } else {
    header_end_ = first_header_bytes_ = (packet[0] & 0x0fU) * 4;
    uint8_t options[40];
    later_header_bytes_ = sizeof(Ipv4Header) + copied_options(options);
  }
  if (header_end_ >= packet_bytes || mtu < first_header_bytes_ + 8) return;
  payload_total_ = packet_bytes - header_end_;
  unit_ = (mtu - first_header_bytes_) & ~size_t{7};
  count_ = (payload_total_ + unit_ - 1) / unit_;
}

size_t Fragmentation::payload_bytes(size_t i) const {
  return std::min(unit_, payload_total_ - i * unit_);
}

size_t Fragmentation::bytes(size_t i) const {
  return header_bytes(i) + payload_bytes(i);
}

void Fragmentation::write(size_t i, uint8_t* to) const {
  is_ipv6() ? write_ipv6(i, to) : write_ipv4(i, to);
  std::memcpy(to + header_bytes(i), packet_ + header_end_ + i * unit_, payload_bytes(i));
}

// Options that say that they are for all fragments (RFC 791 section 3.1), filled up to whole words.
size_t Fragmentation::copied_options(uint8_t* to) const {
  size_t copied = 0;
  for (size_t at = sizeof(Ipv4Header); at < header_end_ && packet_[at] != kOptionEnd;) {
    const size_t length = packet_[at] == kOptionNone || at + 1 == header_end_ ? 1 : packet_[at + 1];
    if (length == 0 || at + length > header_end_) break;
    if ((packet_[at] & kOptionCopied) != 0) {
      std::memcpy(to + copied, packet_ + at, length);
      copied += length;
    }
    at += length;
  }
  while (copied % 4 != 0) to[copied++] = kOptionEnd;
  return copied;
}

void Fragmentation::write_ipv4(size_t i, uint8_t* to) const {
  std::memcpy(to, packet_, i == 0 ? header_end_ : sizeof(Ipv4Header));
  if (i != 0) copied_options(to + sizeof(Ipv4Header));
  auto& ip = *reinterpret_cast<Ipv4Header*>(to);
  ip.version_and_words = static_cast<uint8_t>(0x40 | header_bytes(i) / 4);
  ip.total_length.set(Be16::from_host(static_cast<uint16_t>(bytes(i))));
  ip.identification.set(Be16::from_host(static_cast<uint16_t>(identification_)));
  const auto kept = static_cast<uint16_t>(ip.flags_and_offset.get().host() & kDontFragment);
  const uint16_t more = i + 1 < count_ ? kMoreFragments : 0;
  const auto flags = static_cast<uint16_t>(kept | more | (i * unit_ / 8));
  ip.flags_and_offset.set(Be16::from_host(flags));
  ip.checksum.set(Be16{});
  ip.checksum.set(internet_checksum(to, header_bytes(i)));
}

void Fragmentation::write_ipv6(size_t i, uint8_t* to) const {
  std::memcpy(to, packet_, header_end_);
  write16(to + 4, bytes(i) - kIpv6HeaderBytes);
  to[next_header_at_] = kFragmentHeader;
  uint8_t* fragment = to + header_end_;
  fragment[0] = packet_[next_header_at_];
  fragment[1] = 0;
  write16(fragment + 2, i * unit_ | (i + 1 < count_ ? 1U : 0U));
  write16(fragment + 4, identification_ >> 16);
  write16(fragment + 6, identification_);
}

}  // namespace flowkeep
