// The checksum of a flow record: CRC-32C over what must survive of it, started with the record's
// id, so that a record in another's place does not pass. docs/state-format.md names the bytes.
//
// A commit carries the checksum on by what it changes instead of computing it anew: a record that
// was damaged stays recognisable, whatever is committed over it.
#pragma once

#include <cstdint>
#include <cstring>

#include "state/crc32c.h"
#include "state/flow_record.h"

namespace flowkeep {

// CRC of the words that the checksum covers, of what `word(i)` says is word i of a record. `wide`:
// of an IPv6 flow, whose addresses are covered too.
template <typename Word>
uint32_t crc_of_record_words(uint32_t start, bool wide, Word&& word) {
  constexpr unsigned kChecksumWord = offsetof(FlowRecord, checksum) / sizeof(uint64_t);
  constexpr unsigned kSoftWord = offsetof(FlowRecord, last_seen_s) / sizeof(uint64_t);
  static_assert(offsetof(FlowRecord, checksum) % sizeof(uint64_t) == 4);  // its word's upper half
  static_assert(offsetof(FlowRecord, version) / sizeof(uint64_t) == kSoftWord);
  constexpr unsigned kNarrowWords = offsetof(FlowRecord, addresses) / sizeof(uint64_t);
  constexpr unsigned kWideWords = offsetof(FlowRecord, soft) / sizeof(uint64_t);
  uint32_t crc = start;
  for (unsigned i = 0; i < kNarrowWords; ++i) {
    if (i == kSoftWord) continue;
    crc = crc32c_word(crc, i == kChecksumWord ? word(i) & UINT32_MAX : word(i));
  }
  for (unsigned i = kNarrowWords; wide && i < kWideWords; ++i) crc = crc32c_word(crc, word(i));
  return crc;
}

inline uint64_t record_word(const FlowRecord& record, unsigned index) {
  uint64_t word;
  std::memcpy(&word, reinterpret_cast<const std::byte*>(&record) + index * sizeof(word),
              sizeof(word));
  return word;
}

// What the checksum of a whole record with this id is.
inline uint32_t record_checksum(uint32_t id, const FlowRecord& record) {
  return crc_of_record_words(id, record.is_wide(),
                             [&](unsigned i) { return record_word(record, i); });
}

// What `before`, changed into `after`, carries as its checksum: right if and only if it was before.
// A record's family does not change.
inline uint32_t changed_record_checksum(const FlowRecord& before, const FlowRecord& after) {
  return before.checksum ^ crc_of_record_words(0, after.is_wide(), [&](unsigned i) {
           return record_word(before, i) ^ record_word(after, i);
         });
}

}  // namespace flowkeep
