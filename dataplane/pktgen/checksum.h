// One's-complement sums (RFC 1071). Words are taken as they lie in memory, so that a folded sum is
// stored as it is, whatever the byte order (RFC 1071, 2 (B)).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace flowkeep::pktgen {

// Adds `count` bytes, which start at an even offset of what is summed, to `sum`.
inline uint64_t add_bytes(uint64_t sum, const uint8_t* bytes, size_t count) {
  for (; count >= 4; bytes += 4, count -= 4) {
    uint32_t word;
    std::memcpy(&word, bytes, sizeof(word));
    sum += word;  // 2^16 = 1 (mod 2^16 - 1): two words may be added as one of 32 bits
  }
  if (count >= 2) {
    uint16_t word;
    std::memcpy(&word, bytes, sizeof(word));
    sum += word;
    bytes += 2;
    count -= 2;
  }
  if (count == 1) sum += *bytes;
  return sum;
}

inline uint16_t fold(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

inline uint16_t checksum_of(uint64_t sum) {
  return static_cast<uint16_t>(~fold(sum));
}

}  // namespace flowkeep::pktgen
