#include "state/write_set.h"

#include <bit>
#include <cassert>
#include <cstring>

#include "state/planted_bug.h"
#include "state/record_checksum.h"
#include "state/redo_record.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace flowkeep {

namespace {

constexpr unsigned kSoftWord = offsetof(FlowRecord, last_seen_s) / sizeof(uint64_t);
constexpr unsigned kChecksumWord = offsetof(FlowRecord, checksum) / sizeof(uint64_t);
// Of the third line: the others are soft.
constexpr uint8_t kAddressWords = (1u << sizeof(WideAddresses) / sizeof(uint64_t)) - 1;
static_assert(offsetof(FlowRecord, addresses) == 2 * kLineBytes);

// Bit i: word i of the two lines differs.
uint8_t changed_words(const std::byte* line, const std::byte* home) {
#if defined(__AVX512F__)
  return _mm512_cmpneq_epi64_mask(_mm512_load_si512(line), _mm512_load_si512(home));
#else
  unsigned mask = 0;
  for (unsigned word = 0; word < kLineBytes / sizeof(uint64_t); ++word) {
    mask |= unsigned{std::memcmp(line + word * 8, home + word * 8, 8) != 0} << word;
  }
  return static_cast<uint8_t>(mask);
#endif
}

// Writes the words of `line` that `mask` names; may write up to a line beyond them.
uint64_t* pack_words(uint64_t* to, const std::byte* line, uint8_t mask) {
#if defined(__AVX512F__)
  _mm512_storeu_si512(to, _mm512_maskz_compress_epi64(mask, _mm512_load_si512(line)));
  return to + std::popcount(mask);
#else
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    std::memcpy(to++, line + std::countr_zero(rest) * 8, 8);
  }
  return to;
#endif
}

}  // namespace

WriteSet::WriteSet(std::byte* base)
    : base_(base),
      copies_(std::make_unique<Line[]>(kMaxLines)),
      numbers_(std::make_unique<uint64_t[]>(kMaxLines)),
      kinds_(std::make_unique<LineKind[]>(kMaxLines)),
      never_used_(std::make_unique<bool[]>(kMaxLines)),
      fresh_(std::make_unique<bool[]>(kMaxLines)),
      masks_(std::make_unique<uint8_t[]>(kMaxLines)),
      table_(std::make_unique<TableEntry[]>(kTableEntries)),
      used_slots_(std::make_unique<uint32_t[]>(kMaxLines)),
      record_(std::make_unique<RecordBuffer>()) {}

uint32_t WriteSet::add(uint64_t line, uint32_t count) {
  assert(room() >= count);
  uint32_t slot = table_slot(line);
  while (table_[slot].position_plus_1 != 0) slot = (slot + 1) % kTableEntries;
  const uint32_t position = lines_;
  table_[slot] = {line, position + 1};
  used_slots_[entries_++] = slot;
  for (uint32_t i = 0; i < count; ++i) {
    numbers_[position + i] = line + i;
    kinds_[position + i] = LineKind::kPlain;
    fresh_[position + i] = never_used_[position + i] = false;
  }
  lines_ += count;
  return position;
}

uint32_t WriteSet::add_record(uint64_t first_line) {
  const uint32_t position = add(first_line, kRecordLines);
  for (uint32_t i = 0; i < kRecordLines; ++i) {
    kinds_[position + i] = static_cast<LineKind>(static_cast<uint32_t>(LineKind::kRecordFirst) + i);
  }
  std::memcpy(copies_[position].bytes, home(position), 2 * kLineBytes);
  const bool is_wide = reinterpret_cast<const FlowRecord*>(copies_[position].bytes)->is_wide();
  if (is_wide) [[unlikely]] {
    std::memcpy(copies_[position + 2].bytes, home(position + 2), kLineBytes);
  } else {
    copies_[position + 2] = {};
  }
  return position;
}

std::byte* WriteSet::stage(uint64_t line) {
  uint32_t position = position_of(line);
  if (position == kNone) {
    position = add(line, 1);
    std::memcpy(copies_[position].bytes, home(position), kLineBytes);
  }
  return copies_[position].bytes;
}

FlowRecord& WriteSet::stage_record(uint64_t first_line) {
  uint32_t position = position_of(first_line);
  if (position == kNone) position = add_record(first_line);
  return *reinterpret_cast<FlowRecord*>(copies_[position].bytes);
}

FlowRecord& WriteSet::stage_fresh_record(uint64_t first_line, bool never_used) {
  FlowRecord& record = stage_record(first_line);
  const uint32_t position = position_of(first_line);
  fresh_[position] = true;
  never_used_[position] |= never_used;  // also when it is closed and opened again in one burst
  record = {};
  return record;
}

FlowRecord* WriteSet::staged_record(uint64_t first_line) {
  if (lines_ == 0) return nullptr;
  const uint32_t position = position_of(first_line);
  return position == kNone ? nullptr : reinterpret_cast<FlowRecord*>(copies_[position].bytes);
}

void WriteSet::compare_line_with_home(uint32_t position) {
  masks_[position] = changed_words(copies_[position].bytes, home(position));
}

// Its lines, and the checksum that follows from them.
void WriteSet::compare_record_with_home(uint32_t first) {
  auto& record = *reinterpret_cast<FlowRecord*>(copies_[first].bytes);
  compare_line_with_home(first);
  compare_line_with_home(first + 1);
  compare_addresses_with_home(first);
  if (never_used_[first] && !planted(PlantedBug::kOldWordsNotLogged)) {
    masks_[first] = masks_[first + 1] = 0xff;
  }
  masks_[first] &= static_cast<uint8_t>(~(1u << kSoftWord));
  if ((masks_[first] | masks_[first + 1]) == 0 && !fresh_[first]) return;
  const auto& before = *reinterpret_cast<const FlowRecord*>(home(first));
  const RecordId id = record_of_line(numbers_[first]);
  record.checksum =
      fresh_[first] ? record_checksum(id, record) : changed_record_checksum(before, record);
  if (record_word(record, kChecksumWord) != record_word(before, kChecksumWord)) {
    masks_[first] |= 1u << kChecksumWord;
  }
}

// The flows that had the place before may have been of IPv4, which leaves anything in the third
// line, durable or not: so a new flow's addresses are logged whole.
void WriteSet::compare_addresses_with_home(uint32_t first) {
  const uint32_t third = first + 2;
  masks_[third] = 0;
  if (!reinterpret_cast<const FlowRecord*>(copies_[first].bytes)->is_wide()) return;
  compare_line_with_home(third);
  if (fresh_[first] && !planted(PlantedBug::kOldWordsNotLogged)) masks_[third] = kAddressWords;
  masks_[third] &= kAddressWords;
}

// A record's other lines are compared with its first.
void WriteSet::compare(uint32_t position) {
  if (kinds_[position] == LineKind::kPlain) compare_line_with_home(position);
  if (kinds_[position] == LineKind::kRecordFirst) compare_record_with_home(position);
}

void WriteSet::compare_with_home() {
  for (uint32_t i = 0; i < lines_; ++i) compare(i);
}

size_t WriteSet::build_record(uint64_t sequence, BurstPositions after, HashSecret secret) {
  auto* const words = reinterpret_cast<uint64_t*>(record_->bytes);
  uint64_t* const payload = words + sizeof(RedoHeader) / sizeof(uint64_t);
  uint64_t* to = payload;
  uint32_t changed_lines = 0;
  for (uint32_t i = 0; i < lines_; ++i) {
    compare(i);
    const uint8_t mask = masks_[i];
    if (mask == 0) continue;
    ++changed_lines;
    *to++ = RedoLine{numbers_[i], mask, kinds_[i]}.pack();
    to = pack_words(to, copies_[i].bytes, mask);
  }
  const auto payload_bytes = static_cast<uint32_t>(to - payload) * sizeof(uint64_t);
  const RedoHeader header = {.magic = 0,
                             .sequence = sequence,
                             .checksum = 0,
                             .inbox = after.inbox,
                             .outbox = after.outbox,
                             .lines = changed_lines,
                             .payload_bytes = static_cast<uint32_t>(payload_bytes),
                             .reserved = {}};
  std::memcpy(record_->bytes, &header, sizeof(header));
  seal_redo_record(record_->bytes, secret);
  return sizeof(header) + payload_bytes;
}

void WriteSet::store_soft_words(Persistence& persistence) const {
  for (uint32_t i = 0; i < lines_; ++i) {
    if (kinds_[i] != LineKind::kRecordFirst) continue;
    const auto& staged = *reinterpret_cast<const FlowRecord*>(copies_[i].bytes);
    auto& record = *reinterpret_cast<FlowRecord*>(home(i));
    if (record.last_seen_s != staged.last_seen_s) {
      persistence.store32(&record.last_seen_s, staged.last_seen_s);
    }
  }
}

void WriteSet::apply(Persistence& persistence, LazyFlush& flush) const {
  for (uint32_t i = 0; i < lines_; ++i) {
    if (kinds_[i] == LineKind::kRecordFirst) {
      apply_record(i, persistence, flush);
      i += kRecordLines - 1;
    } else if (masks_[i] != 0) {
      persistence.store_line(home(i), copies_[i].bytes, masks_[i]);
      if (!planted(PlantedBug::kMissingFlush)) flush.add(home(i));
    }
  }
}

void WriteSet::apply_record(uint32_t first, Persistence& persistence, LazyFlush& flush) const {
  const uint32_t second = first + 1, third = first + 2;
  if ((masks_[first] | masks_[second]) == 0) return;  // the third changes with them alone
  // Odd while it changes: readers in other processes skip it.
  uint32_t& version = reinterpret_cast<FlowRecord*>(home(first))->version;
  persistence.store32(&version, version | 1);
  persistence.store_line(home(first), copies_[first].bytes, masks_[first]);
  persistence.store_line(home(second), copies_[second].bytes, masks_[second]);
  if (masks_[third] != 0) persistence.store_line(home(third), copies_[third].bytes, masks_[third]);
  persistence.store32(&version, version + 1);
  flush.add(home(first));  // its version changed, whatever else did
  if (masks_[second] != 0) flush.add(home(second));
  if (masks_[third] != 0) flush.add(home(third));
}

void WriteSet::clear() {
  for (uint32_t i = 0; i < entries_; ++i) table_[used_slots_[i]] = {};
  entries_ = 0;
  lines_ = 0;
}

}  // namespace flowkeep
