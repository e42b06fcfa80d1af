#include "state/redo_record.h"

#include <algorithm>
#include <bit>

#include "state/checksum.h"

namespace flowkeep {

namespace {

uint64_t redo_checksum(const std::byte* record, const RedoHeader& header, HashSecret secret) {
  RedoHeader unsealed = header;
  unsealed.checksum = 0;
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

// The record that a line belongs to, or null.
FlowRecord* record_of(const RedoLine& line, const Regions& regions) {
  if (line.kind == LineKind::kPlain) return nullptr;
  const uint64_t first = line.kind == LineKind::kRecordFirst ? line.line : line.line - 1;
  return reinterpret_cast<FlowRecord*>(regions.base() + first * kLineBytes);
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
    lines_ok = lines_ok && regions.is_committed_line(line.line);
  });
  return lines_ok;
}

void apply_redo_record(const std::byte* slot, const Regions& regions, Persistence& persistence) {
  // Readers skip records of odd version: all of the burst's records are odd until all are whole.
  for_each_redo_line(slot, [&](const RedoLine& line, const uint64_t*) {
    FlowRecord* record = record_of(line, regions);
    if (record != nullptr) persistence.store32(&record->version, record->version | 1);
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
  for_each_redo_line(slot, [&](const RedoLine& line, const uint64_t*) {
    if (!regions.is_committed_line(line.line)) return;
    // A record's version, in its first line, changed with the second.
    const uint64_t first = line.kind == LineKind::kRecordSecond ? line.line - 1 : line.line;
    persistence.flush(regions.base() + first * kLineBytes, (line.line - first + 1) * kLineBytes);
  });
}

LogContents read_log(const Regions& regions, uint32_t log) {
  LogContents contents;
  contents.retired = regions.log(log).retired;
  for (uint64_t parity = 0; parity < 2; ++parity) {
    const std::byte* slot = regions.redo_slot(log, parity);
    const auto& header = *reinterpret_cast<const RedoHeader*>(slot);
    if (is_redo_record(slot, regions) && header.sequence % 2 == parity) {
      contents.valid[parity] = header.sequence;
    } else if (header.magic != 0 || header.sequence != 0) {
      contents.torn = true;
    }
  }
  std::ranges::sort(contents.valid);
  return contents;
}

}  // namespace flowkeep
