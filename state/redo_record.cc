#include "state/redo_record.h"

#include <algorithm>
#include <bit>

#include "state/checksum.h"
#include "state/crc32c.h"
#include "state/planted_bug.h"

namespace flowkeep {

namespace {

uint64_t redo_checksum(const std::byte* record, const RedoHeader& header, HashSecret secret) {
  RedoHeader unsealed = header;
  unsealed.checksum = 0;
  if (planted(PlantedBug::kUncheckedField)) unsealed.sequence = 0;
  const uint64_t start = checksum64(&unsealed, sizeof(unsealed), kRedoMagic, secret);
  return checksum64(record + sizeof(header), header.payload_bytes, start, secret);
}

void store_words(std::byte* home, const RedoLine& line, const uint64_t* words,
                 Persistence& persistence) {
  auto* target = reinterpret_cast<uint64_t*>(home);
  for (unsigned rest = line.mask; rest != 0; rest &= rest - 1) {
    persistence.store64(&target[std::countr_zero(rest)], *words++);
  }
}

bool is_applied(const Regions& regions, const RedoLine& line, const uint64_t* words) {
  const auto* home = reinterpret_cast<const uint64_t*>(regions.base() + line.line * kLineBytes);
  for (unsigned rest = line.mask; rest != 0; rest &= rest - 1) {
    if (home[std::countr_zero(rest)] != *words++) return false;
  }
  return true;
}

// The record that a line belongs to, or null.
FlowRecord* record_of(const RedoLine& line, const Regions& regions) {
  if (line.kind == LineKind::kPlain) return nullptr;
  const uint64_t first = line.line - line_of_record(line.kind);
  return reinterpret_cast<FlowRecord*>(regions.base() + first * kLineBytes);
}

// Flow records lie one after the other in a page, three lines each.
bool is_line_of_its_kind(const RedoLine& line, const Regions& regions) {
  if (line.kind == LineKind::kPlain) return true;
  return line.kind <= LineKind::kRecordThird &&
         line.line % kLinesPerPage % kRecordLines == line_of_record(line.kind) &&
         regions.is_page(line.line / kLinesPerPage) && regions.is_record(record_of_line(line.line));
}

}  // namespace

void seal_redo_record(std::byte* record, HashSecret secret) {
  auto& header = *reinterpret_cast<RedoHeader*>(record);
  header.magic = kRedoMagic;
  header.checksum = redo_checksum(record, header, secret);
}

bool is_redo_record(const std::byte* slot, const Regions& regions) {
  RedoHeader header;
  std::memcpy(&header, slot, sizeof(header));
  if (header.magic != kRedoMagic || header.sequence == 0) return false;
  if (header.payload_bytes > kRedoPayloadBytes || header.payload_bytes % 8 != 0) return false;
  if (header.checksum != redo_checksum(slot, header, regions.superblock().secret)) return false;
  bool lines_ok = true;
  for_each_redo_line(slot, [&](const RedoLine& line, const uint64_t*) {
    lines_ok =
        lines_ok && regions.is_committed_line(line.line) && is_line_of_its_kind(line, regions);
  });
  return lines_ok;
}

void apply_redo_record(const std::byte* slot, const Regions& regions, Persistence& persistence) {
  // Readers skip records of odd version: all of the burst's records are odd until all are whole.
  // Those that are whole already stay even, because this record may be retired by another process
  // meanwhile, and then nothing would make them even again after a power cut.
  for_each_redo_line(slot, [&](const RedoLine& line, const uint64_t* words) {
    FlowRecord* record = record_of(line, regions);
    if (record == nullptr || is_applied(regions, line, words)) return;
    persistence.store32(&record->version, record->version | 1);
  });
  for_each_redo_line(slot, [&](const RedoLine& line, const uint64_t* words) {
    std::byte* home = regions.base() + line.line * kLineBytes;
    store_words(home, line, words, persistence);
    persistence.flush(home, kLineBytes);
  });
  for_each_redo_line(slot, [&](const RedoLine& line, const uint64_t*) {
    FlowRecord* record = record_of(line, regions);
    if (record == nullptr || record->version % 2 == 0) return;
    persistence.store32(&record->version, record->version + 1);
    persistence.flush(record, kLineBytes);
  });
}

void flush_redo_lines(const std::byte* slot, const Regions& regions, Persistence& persistence) {
  for_each_home_line(slot, regions,
                     [&](const std::byte* line) { persistence.flush(line, kLineBytes); });
}

uint64_t retired_mark(uint64_t sequence) {
  if (sequence == 0) return 0;
  const uint32_t crc = crc32c_word(0, sequence);
  return sequence | uint64_t{(crc ^ crc >> 16) & 0xffff} << kSequenceBits;
}

namespace {

// What lies in a slot that holds no whole record. `committed`: the last sequence that is known to
// have been.
RedoSlot classify(const RedoHeader& header, uint64_t parity, uint64_t committed, uint64_t retired,
                  uint64_t applied) {
  if (header.magic == 0 && header.sequence == 0 && header.checksum == 0) return RedoSlot::kEmpty;
  const uint64_t next = committed + 1;
  if (next % 2 == parity) {
    // Each word is one of burst `next`, or of the one two before it.
    const bool is_either = header.sequence == next || header.sequence + 2 == next ||
                           (next == 1 && header.sequence == 0);
    return is_either && applied < next ? RedoSlot::kTorn : RedoSlot::kDamaged;
  }
  // The slot of burst `committed`, which the mark alone vouches for.
  return committed == retired && header.sequence <= retired && retired != 0 ? RedoSlot::kRetired
                                                                            : RedoSlot::kDamaged;
}

}  // namespace

LogContents read_log(const Regions& regions, uint32_t log) {
  LogContents contents;
  const LogHeader& header = regions.log(log);
  contents.retired = header.retired & ((uint64_t{1} << kSequenceBits) - 1);
  if (header.retired != retired_mark(contents.retired)) {
    contents.retired = 0;
    contents.mark_damaged = true;
  }
  const auto slot_header = [&](uint64_t parity) {
    RedoHeader copy;
    std::memcpy(&copy, regions.redo_slot(log, parity), sizeof(copy));
    return copy;
  };
  for (uint64_t parity = 0; parity < 2; ++parity) {
    const uint64_t sequence = slot_header(parity).sequence;
    if (sequence % 2 != parity || !is_redo_record(regions.redo_slot(log, parity), regions))
      continue;
    contents.valid[parity] = sequence;
    contents.slots[parity] = sequence > contents.retired ? RedoSlot::kValid : RedoSlot::kRetired;
  }
  const uint64_t committed = std::max({contents.retired, contents.valid[0], contents.valid[1]});
  for (uint64_t parity = 0; parity < 2; ++parity) {
    if (contents.valid[parity] != 0) continue;
    contents.slots[parity] =
        classify(slot_header(parity), parity, committed, contents.retired, header.applied);
  }
  std::ranges::sort(contents.valid);
  return contents;
}

}  // namespace flowkeep
