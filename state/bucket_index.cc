#include "state/bucket_index.h"

#include <array>

#include "state/planted_bug.h"

namespace flowkeep {

namespace {

// Do two tags lead to the same segment of this depth?
bool same_segment(uint32_t tag, uint32_t other, uint32_t depth) {
  return depth == 0 || (tag ^ other) >> (32 - depth) == 0;
}

}  // namespace

void BucketIndex::stage_directory_word(uint32_t page, uint32_t word, uint32_t value) {
  auto* line = reinterpret_cast<uint32_t*>(write_set_.stage(directory_line(page, word)));
  line[word % kDirectoryWordsInLine] = value;
}

OpenStatus BucketIndex::claim(PageKind kind, uint32_t bucket, uint64_t sequence, uint32_t& page) {
  if (claims_.room() == 0) return OpenStatus::kWriteSetFull;
  page = claims_.claim(page_tag(kind, chain_, bucket), 0, sequence);
  return page != 0 ? OpenStatus::kOk : OpenStatus::kPoolFull;
}

OpenStatus BucketIndex::insert(uint32_t bucket, uint32_t tag, RecordId id, uint64_t sequence) {
  if (header(bucket).root_page == 0) {
    const OpenStatus made = make_first_segment(bucket, sequence);
    if (made != OpenStatus::kOk) return made;
  }
  for (;;) {
    const Segment segment = segment_of(header(bucket), tag);
    if (segment.page == 0) return OpenStatus::kPoolDamaged;
    if (insert_into(segment, tag, id)) return OpenStatus::kOk;
    if (make_place(segment, tag) && insert_into(segment, tag, id)) return OpenStatus::kOk;
    const OpenStatus split_up = split(bucket, tag, segment, sequence);
    if (split_up != OpenStatus::kOk) return split_up;
  }
}

bool BucketIndex::insert_into(Segment segment, uint32_t tag, RecordId id) {
  const uint64_t entry = uint64_t{tag} << 32 | id;
  return insert_into_group(segment, first_group(tag), entry) ||
         insert_into_group(segment, second_group(tag), entry);
}

bool BucketIndex::insert_into_group(Segment segment, uint32_t number, uint64_t entry) {
  const uint64_t* entries = group(segment.page, number);
  for (uint32_t i = 0; i < kGroupEntries; ++i) {
    const uint64_t held = entries[i];
    if (held != 0 && same_segment(entry_tag(held), entry_tag(entry), segment.depth)) continue;
    if (write_set_.room() == 0) return false;
    reinterpret_cast<uint64_t*>(write_set_.stage(group_line(segment.page, number)))[i] = entry;
    return true;
  }
  return false;
}

// Both groups are full: moves one of their entries to its other group.
bool BucketIndex::make_place(Segment segment, uint32_t tag) {
  for (const uint32_t number : {first_group(tag), second_group(tag)}) {
    for (uint32_t i = 0; i < kGroupEntries; ++i) {
      const uint64_t entry = group(segment.page, number)[i];
      const uint32_t first = first_group(entry_tag(entry));
      const uint32_t other = first == number ? second_group(entry_tag(entry)) : first;
      if (write_set_.room() < 3 || !insert_into_group(segment, other, entry)) continue;
      reinterpret_cast<uint64_t*>(write_set_.stage(group_line(segment.page, number)))[i] = 0;
      return true;
    }
  }
  return false;
}

bool BucketIndex::remove(uint32_t bucket, uint32_t tag, RecordId id) {
  const Segment segment = segment_of(header(bucket), tag);
  if (segment.page == 0) return false;
  for (const uint32_t number : {first_group(tag), second_group(tag)}) {
    const uint64_t* entries = group(segment.page, number);
    for (uint32_t i = 0; i < kGroupEntries; ++i) {
      if (entries[i] != (uint64_t{tag} << 32 | id)) continue;
      reinterpret_cast<uint64_t*>(write_set_.stage(group_line(segment.page, number)))[i] = 0;
      return true;
    }
  }
  return false;
}

OpenStatus BucketIndex::make_first_segment(uint32_t bucket, uint64_t sequence) {
  uint32_t page = 0;
  const OpenStatus claimed = claim(PageKind::kSegment, bucket, sequence, page);
  if (claimed != OpenStatus::kOk) return claimed;
  persistence_.zero(regions_.page(page), kPageBytes);
  BucketHeader& staged = stage_header(bucket);
  staged.root_page = page;
  staged.depth = 0;
  ++staged.index_pages;
  return OpenStatus::kOk;
}

OpenStatus BucketIndex::split(uint32_t bucket, uint32_t tag, Segment segment, uint64_t sequence) {
  if (segment.depth == header(bucket).depth) {
    const OpenStatus deeper = deepen_directory(bucket, sequence);
    if (deeper != OpenStatus::kOk) return deeper;
  }
  const uint32_t depth = header(bucket).depth;
  const uint32_t span = 1u << (depth - segment.depth);  // directory words that name this segment
  if (write_set_.room() < span / kDirectoryWordsInLine + 2) return OpenStatus::kWriteSetFull;
  uint32_t upper_page = 0;
  const OpenStatus claimed = claim(PageKind::kSegment, bucket, sequence, upper_page);
  if (claimed != OpenStatus::kOk) return claimed;
  copy_upper_half(segment.page, upper_page, tag, segment.depth);

  BucketHeader& staged = stage_header(bucket);
  ++staged.index_pages;
  const uint32_t first = directory_start(depth) + ((tag >> (32 - depth)) & ~(span - 1));
  for (uint32_t i = 0; i < span; ++i) {
    const uint32_t page = i < span / 2 ? segment.page : upper_page;
    stage_directory_word(staged.root_page, first + i,
                         DirectoryEntry{page, segment.depth + 1}.pack());
  }
  return OpenStatus::kOk;
}

// Entries keep their group and place: both follow from the tag's lower bits, at every depth.
void BucketIndex::copy_upper_half(uint32_t from_page, uint32_t to_page, uint32_t tag,
                                  uint32_t depth) {
  const uint32_t upper = tag | 1u << (31 - depth);
  for (uint32_t number = 0; number < kSegmentGroups; ++number) {
    const uint64_t* from = group(from_page, number);
    alignas(kLineBytes) std::array<uint64_t, kGroupEntries> kept = {};
    for (uint32_t i = 0; i < kGroupEntries; ++i) {
      if (from[i] != 0 && same_segment(entry_tag(from[i]), upper, depth + 1)) kept[i] = from[i];
    }
    std::byte* to = regions_.page(to_page) + number * kLineBytes;
    persistence_.store(to, kept.data(), kLineBytes);
  }
  if (!planted(PlantedBug::kMissingPageFlush)) {
    persistence_.flush(regions_.page(to_page), kPageBytes);
  }
}

// Doubles the directory into words that nothing reads yet, then stages the greater depth.
OpenStatus BucketIndex::deepen_directory(uint32_t bucket, uint64_t sequence) {
  const BucketHeader before = header(bucket);
  if (before.depth == kMaxDepth) return OpenStatus::kPoolFull;
  const uint32_t depth = before.depth + 1;
  if (write_set_.room() < 2) return OpenStatus::kWriteSetFull;
  uint32_t page = before.root_page;
  if (before.depth == 0 || depth == kMaxDepth) {
    const OpenStatus claimed = claim(PageKind::kDirectory, bucket, sequence, page);
    if (claimed != OpenStatus::kOk) return claimed;
  }
  const uint32_t start = directory_start(depth);
  for (uint32_t i = 0; i < 1u << depth; ++i) {
    const uint32_t word =
        before.depth == 0 ? DirectoryEntry{before.root_page, 0}.pack()
                          : directory_word(before.root_page, directory_start(before.depth) + i / 2);
    // The smallest directories share the page's first line with the one in use.
    if (page == before.root_page && start < kDirectoryWordsInLine) {
      stage_directory_word(page, start + i, word);
    } else {
      persistence_.store32(regions_.page(page) + (start + i) * sizeof(word), word);
    }
  }
  persistence_.flush(regions_.page(page) + start * sizeof(uint32_t), sizeof(uint32_t) << depth);
  BucketHeader& staged = stage_header(bucket);
  staged.depth = depth;
  if (page != before.root_page) ++staged.index_pages;
  staged.root_page = page;
  return OpenStatus::kOk;
}

// Home lines alone, without the write set: a wrong guess costs nothing.
void BucketIndex::prefetch_group(uint32_t bucket, uint32_t tag) const {
  const Segment segment = segment_of(header(bucket), tag);
  if (segment.page == 0) return;
  __builtin_prefetch(regions_.base() + group_line(segment.page, first_group(tag)) * kLineBytes);
}

void BucketIndex::prefetch_both_groups(uint32_t bucket, uint32_t tag) const {
  const Segment segment = segment_of(header(bucket), tag);
  if (segment.page == 0) return;
  __builtin_prefetch(regions_.base() + group_line(segment.page, first_group(tag)) * kLineBytes);
  __builtin_prefetch(regions_.base() + group_line(segment.page, second_group(tag)) * kLineBytes);
}

bool BucketIndex::prefetch_record(uint32_t bucket, uint32_t tag) const {
  const Segment segment = segment_of(header(bucket), tag);
  if (segment.page == 0) return false;
  const uint64_t* entries = group(segment.page, first_group(tag));
  const unsigned found = entries_with_tag(entries, tag);
  for (unsigned rest = found; rest != 0; rest &= rest - 1) {
    const auto id = static_cast<RecordId>(entries[__builtin_ctz(rest)]);
    __builtin_prefetch(&regions_.record(id));
    __builtin_prefetch(regions_.record(id).hard);
  }
  return found != 0;
}

}  // namespace flowkeep
