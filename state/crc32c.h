// CRC-32C (Castagnoli, reflected; RFC 3720 appendix B.4), eight bytes at a time. Neither inverts
// the start nor the end: the CRC of a difference is then the difference of the CRCs.
#pragma once

#include <array>
#include <cstdint>

#if defined(__SSE4_2__)
#include <nmmintrin.h>
#endif

namespace flowkeep {

// Table-driven; the same on any processor.
constexpr uint32_t crc32c_word_portable(uint32_t crc, uint64_t word) {
  constexpr auto kTable = [] {
    std::array<uint32_t, 256> table = {};
    for (uint32_t byte = 0; byte < table.size(); ++byte) {
      uint32_t rest = byte;
      for (int bit = 0; bit < 8; ++bit) rest = rest >> 1 ^ (rest & 1) * 0x82f63b78u;
      table[byte] = rest;
    }
    return table;
  }();
  for (int byte = 0; byte < 8; ++byte, word >>= 8) {
    crc = crc >> 8 ^ kTable[(crc ^ word) & 0xff];
  }
  return crc;
}

inline uint32_t crc32c_word(uint32_t crc, uint64_t word) {
#if defined(__SSE4_2__)
  return static_cast<uint32_t>(_mm_crc32_u64(crc, word));
#else
  return crc32c_word_portable(crc, word);
#endif
}

}  // namespace flowkeep
