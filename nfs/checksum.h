// The Internet checksum (RFC 1071), whole and incremental (RFC 1624).
//
// Sums are taken over 16-bit words as they lie in memory: the one's complement sum does not depend
// on byte order, so nothing is swapped on the way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "nfs/headers.h"
#include "nfs/packet.h"
#include "state/flow_key.h"

namespace flowkeep {

inline uint16_t fold_sum(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

// Adds `length` bytes (at most 64 KiB) to an unfolded sum. An odd last byte is padded with zero.
inline uint64_t add_to_sum(const uint8_t* bytes, size_t length, uint64_t sum) {
  for (; length >= 4; bytes += 4, length -= 4) {
    uint32_t word;
    std::memcpy(&word, bytes, sizeof(word));
    sum += word;
  }
  if (length == 0) return sum;
  uint32_t rest = 0;
  std::memcpy(&rest, bytes, length);
  return sum + rest;
}

// Over bytes whose checksum field is zero: the checksum. Over bytes that contain a valid one: 0.
inline Be16 internet_checksum(const uint8_t* bytes, size_t length) {
  return Be16{static_cast<uint16_t>(~fold_sum(add_to_sum(bytes, length, 0)))};
}

// Of a TCP or UDP segment with its pseudo header.
inline Be16 l4_checksum(Be32 src, Be32 dst, uint8_t protocol, const uint8_t* segment,
                        uint16_t length) {
  uint64_t sum = uint64_t{src.raw} + dst.raw;
  sum += Be16::from_host(protocol).raw;
  sum += Be16::from_host(length).raw;
  return Be16{static_cast<uint16_t>(~fold_sum(add_to_sum(segment, length, sum)))};
}

// The same for IPv6 (RFC 8200 section 8.1); also ICMPv6, which has the pseudo header too.
inline Be16 l4_checksum(const WideAddresses& addresses, uint8_t protocol, const uint8_t* segment,
                        uint16_t length) {
  uint64_t sum =
      add_to_sum(reinterpret_cast<const uint8_t*>(&addresses), sizeof(addresses), uint64_t{0});
  sum += Be16::from_host(protocol).raw;
  sum += Be16::from_host(length).raw;
  return Be16{static_cast<uint16_t>(~fold_sum(add_to_sum(segment, length, sum)))};
}

// What a number of header edits changes in a checksum: HC' = ~(~HC + ~m + m'), equation 3 of RFC
// 1624.
class ChecksumDelta {
 public:
  void replace(Be16 before, Be16 after) {
    sum_ += static_cast<uint16_t>(~before.raw);
    sum_ += after.raw;
  }
  void replace(Be32 before, Be32 after) {
    sum_ += static_cast<uint32_t>(~before.raw);
    sum_ += after.raw;
  }
  void add(const ChecksumDelta& other) { sum_ += other.sum_; }
  Be16 applied_to(Be16 checksum) const {
    const uint64_t sum = sum_ + static_cast<uint16_t>(~checksum.raw);
    return Be16{static_cast<uint16_t>(~fold_sum(sum))};
  }
  // UDP: 0 says that there is no checksum and stays 0; one that becomes 0 is sent as all ones (RFC
  // 768).
  Be16 applied_to_udp(Be16 checksum) const {
    if (checksum.raw == 0) return checksum;
    const Be16 after = applied_to(checksum);
    return after.raw == 0 ? Be16{0xffff} : after;
  }

 private:
  uint64_t sum_ = 0;  // of 16- and 32-bit words; folded at the end
};

}  // namespace flowkeep
