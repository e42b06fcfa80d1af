// The redo record of one burst: which words of which lines the burst changes, and the ring
// positions after it. Whole or not there at all: the checksum decides.
//
// A log has two slots; record n lies in slot n % 2. When record n + 1 is written, the home lines of
// record n may not be durable yet, so recovery applies every valid record above the log's retired
// mark, in order. Record n + 2 is written after a fence that covers them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "state/layout.h"
#include "state/persistence.h"

namespace flowkeep {

inline constexpr size_t kRedoPayloadBytes = kRedoSlotBytes - sizeof(RedoHeader);

// Fills in magic, checksum; `record` holds header (the rest of it set) and payload.
void seal_redo_record(std::byte* record, HashSecret secret);

// Is a whole record there, with lines that a commit may change?
bool is_redo_record(const std::byte* slot, const Regions& regions);

// Calls `visit(RedoLine, const uint64_t* words)` for each line. Never leaves the slot, whatever it
// holds.
template <typename Visit>
void for_each_redo_line(const std::byte* slot, Visit&& visit);

// Stores the record's words home and flushes them; the caller fences.
void apply_redo_record(const std::byte* slot, const Regions& regions, Persistence& persistence);

// Flushes the lines that the record changes; the caller fences. The slot may be overwritten
// meanwhile.
void flush_redo_lines(const std::byte* slot, const Regions& regions, Persistence& persistence);

// The retired mark: a sequence and, in the upper 16 bits, a check on it. A mark that was damaged
// must neither hide a committed burst nor have an old one applied again.
uint64_t retired_mark(uint64_t sequence);
inline constexpr unsigned kSequenceBits = 48;

enum class RedoSlot : uint8_t {
  kEmpty,
  kValid,    // committed, and not retired
  kRetired,  // needed no more, whatever it holds
  kTorn,     // of a burst that was never committed: a crash cut its writing short
  kDamaged,  // perhaps of a committed burst, and not whole
};

// What a log holds. Sequences start at 1; 0 is none.
struct LogContents {
  uint64_t retired = 0;  // 0 if its mark is damaged
  bool mark_damaged = false;
  std::array<RedoSlot, 2> slots = {};  // by the sequence's parity
  std::array<uint64_t, 2> valid = {};  // sequences of the valid records, ascending
  // The last sequence that committed.
  uint64_t newest() const { return valid[1] > retired ? valid[1] : retired; }
  bool torn() const { return slots[0] == RedoSlot::kTorn || slots[1] == RedoSlot::kTorn; }
  bool damaged() const {
    return mark_damaged || slots[0] == RedoSlot::kDamaged || slots[1] == RedoSlot::kDamaged;
  }
};
LogContents read_log(const Regions& regions, uint32_t log);

template <typename Visit>
void for_each_redo_line(const std::byte* slot, Visit&& visit) {
  RedoHeader header;
  std::memcpy(&header, slot, sizeof(header));
  const auto* word = reinterpret_cast<const uint64_t*>(slot + sizeof(header));
  const uint64_t* end = word + kRedoPayloadBytes / sizeof(*word);
  for (uint32_t i = 0; i < header.lines && word < end; ++i) {
    const RedoLine line = RedoLine::unpack(*word++);
    const auto words = __builtin_popcount(line.mask);
    if (end - word < words) return;
    visit(line, word);
    word += words;
  }
}

// Calls `visit(const std::byte* line)` for each home line that applying the record changes.
template <typename Visit>
void for_each_home_line(const std::byte* slot, const Regions& regions, Visit&& visit) {
  for_each_redo_line(slot, [&](const RedoLine& line, const uint64_t*) {
    if (!regions.is_committed_line(line.line)) return;
    // A record's version, in its first line, changed with the others.
    if (line.kind == LineKind::kRecordSecond || line.kind == LineKind::kRecordThird) {
      visit(regions.base() + (line.line - line_of_record(line.kind)) * kLineBytes);
    }
    visit(regions.base() + line.line * kLineBytes);
  });
}

}  // namespace flowkeep
