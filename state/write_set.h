// WriteSet: the lines that one burst changes, as private copies. Reads go through view() and so see
// the burst's own writes; the pool does not until apply(). At commit each copy is compared with its
// home line, and only the words that differ go into the redo record and later home.
//
// Thread rule: one thread, owner of every line that it names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "state/flow_table.h"
#include "state/layout.h"
#include "state/lazy_flush.h"
#include "state/persistence.h"

namespace flowkeep {

class WriteSet {
 public:
  static constexpr uint32_t kMaxLines =
      896;  // all of them changed whole still fit into a redo slot

  explicit WriteSet(std::byte* base);

  bool empty() const { return lines_ == 0; }
  uint32_t lines() const { return lines_; }
  uint32_t room() const { return kMaxLines - lines_; }

  // The line as this burst sees it. A home address stays valid when the line is staged, but goes
  // stale.
  const std::byte* view(uint64_t line) const {
    if (lines_ != 0) {
      const uint32_t position = position_of(line);
      if (position != kNone) return copies_[position].bytes;
    }
    return base_ + line * kLineBytes;
  }
  // The copy to change; stays where it is until the burst ends.
  std::byte* stage(uint64_t line);
  // A flow record's three lines, copied side by side; the third, which IPv6 alone needs, only if
  // the flow has it. Records are staged by this alone.
  FlowRecord& stage_record(uint64_t first_line);
  // The same for a record whose content up to now means nothing; zeroed.
  // `never_used`: what its home holds is left from another use of the page, perhaps by a burst that
  // was never committed. Nothing says that it is durable, so every word is logged, also one that
  // happens to be right.
  FlowRecord& stage_fresh_record(uint64_t first_line, bool never_used);
  // The staged copy of a record, or null.
  FlowRecord* staged_record(uint64_t first_line);

  // Gives the changed flow records their checksums, then builds and seals the redo record in memory
  // of this object. Returns its size; it starts at record().
  size_t build_record(uint64_t sequence, BurstPositions after, HashSecret secret);
  const std::byte* record() const { return record_->bytes; }
  // For a commit without a redo record: only the checksums, and what apply() will store.
  void compare_with_home();
  // Soft words (FlowRecord::last_seen_s) of staged records go home without the log.
  void store_soft_words(Persistence& persistence) const;
  // After build_record() or compare_with_home(): stores the changed words home, to be flushed.
  void apply(Persistence& persistence, LazyFlush& flush) const;
  void clear();

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr uint32_t kTableEntries = 2048;
  static_assert(kTableEntries >= 2 * kMaxLines);
  struct alignas(kLineBytes) Line {
    std::byte bytes[kLineBytes];
  };
  struct alignas(kLineBytes) RecordBuffer {
    std::byte bytes[kRedoSlotBytes + kLineBytes];
  };
  struct TableEntry {
    uint64_t line;
    uint32_t position_plus_1;
  };
  static_assert(kMaxLines * (kLineBytes + sizeof(uint64_t)) + sizeof(RedoHeader) <= kRedoSlotBytes);

  static uint32_t table_slot(uint64_t line) {
    return static_cast<uint32_t>(line * 0x9e3779b97f4a7c15ULL >> 53);
  }
  uint32_t position_of(uint64_t line) const {
    for (uint32_t slot = table_slot(line);; slot = (slot + 1) % kTableEntries) {
      const TableEntry& entry = table_[slot];
      if (entry.position_plus_1 == 0) return kNone;
      if (entry.line == line) return entry.position_plus_1 - 1;
    }
  }
  uint32_t add(uint64_t line, uint32_t count);
  uint32_t add_record(uint64_t first_line);
  void compare(uint32_t position);
  void compare_line_with_home(uint32_t position);
  void compare_record_with_home(uint32_t first);
  void compare_addresses_with_home(uint32_t first);
  void apply_record(uint32_t first, Persistence& persistence, LazyFlush& flush) const;
  std::byte* home(uint32_t position) const { return base_ + numbers_[position] * kLineBytes; }

  std::byte* const base_;
  uint32_t lines_ = 0;
  uint32_t entries_ = 0;  // of the table; a record's three lines are one
  std::unique_ptr<Line[]> copies_;
  std::unique_ptr<uint64_t[]> numbers_;  // line number of each copy
  std::unique_ptr<LineKind[]> kinds_;
  std::unique_ptr<bool[]> never_used_;
  std::unique_ptr<bool[]> fresh_;           // of a record's first line: its home means nothing
  std::unique_ptr<uint8_t[]> masks_;        // changed words, as of the commit
  std::unique_ptr<TableEntry[]> table_;     // a record's other lines are found by its first
  std::unique_ptr<uint32_t[]> used_slots_;  // of the table, to clear it
  std::unique_ptr<RecordBuffer> record_;
};

}  // namespace flowkeep
