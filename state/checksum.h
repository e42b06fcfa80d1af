// checksum64: tells a whole redo record or superblock from a torn or foreign one. Keyed with the
// pool's secret, so that what is in flows' bytes cannot be arranged to pass for a record.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "state/flow_key.h"

namespace flowkeep {

// `bytes` is a multiple of 8. Two lanes of the multiplication that also hashes keys.
inline uint64_t checksum64(const void* from, size_t bytes, uint64_t start, HashSecret secret) {
  const auto* at = static_cast<const std::byte*>(from);
  uint64_t lane0 = start ^ secret.k0;
  uint64_t lane1 = start ^ secret.k1 ^ bytes;
  uint64_t word[4];
  for (; bytes >= sizeof(word); bytes -= sizeof(word), at += sizeof(word)) {
    std::memcpy(word, at, sizeof(word));
    lane0 = fold_multiply(word[0] ^ lane0, word[1] ^ 0xa0761d6478bd642fULL) + lane0;
    lane1 = fold_multiply(word[2] ^ lane1, word[3] ^ 0xe7037ed1a0b428dbULL) + lane1;
  }
  for (; bytes >= sizeof(word[0]); bytes -= sizeof(word[0]), at += sizeof(word[0])) {
    std::memcpy(word, at, sizeof(word[0]));
    lane0 = fold_multiply(word[0] ^ lane0, 0x8ebc6af09c88c6e3ULL) + lane0;
  }
  return fold_multiply(lane0 ^ 0x589965cc75374cc3ULL, lane1 ^ 0x1d8e4e27c47d124fULL);
}

}  // namespace flowkeep
