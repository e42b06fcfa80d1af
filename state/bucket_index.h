// BucketIndex: finds a flow's record by a key's hash, in one bucket, as the current burst sees it.
// Extendible hashing over 4 KiB segments (after CCEH, Nam et al., FAST'19).
//
// A segment splits by copying the upper half of its entries into a fresh page, which the directory
// then names. The old entries of that half stay behind and are overwritten when their place is
// needed: an entry whose tag does not begin like its segment's is dead. So a split stages only
// directory words; the fresh page is written directly, because nothing leads to it before commit.
#pragma once

#include <cstdint>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "state/flow_table.h"
#include "state/page_claims.h"
#include "state/write_set.h"

namespace flowkeep {

class BucketIndex {
 public:
  BucketIndex(const Regions& regions, uint32_t chain, WriteSet& write_set, PageClaims& claims,
              Persistence& persistence)
      : regions_(regions),
        chain_(chain),
        write_set_(write_set),
        claims_(claims),
        persistence_(persistence) {}

  const BucketHeader& header(uint32_t bucket) const {
    return *reinterpret_cast<const BucketHeader*>(
        write_set_.view(regions_.bucket_line(chain_, bucket)));
  }
  BucketHeader& stage_header(uint32_t bucket) {
    return *reinterpret_cast<BucketHeader*>(write_set_.stage(regions_.bucket_line(chain_, bucket)));
  }

  // Calls `same(record id)` for entries with this tag until it returns true; returns that id or 0.
  template <typename Same>
  RecordId find(uint32_t bucket, uint32_t tag, Same&& same) const;
  // Stages the entry; splits segments as needed. `sequence`: of the burst, for page claims.
  OpenStatus insert(uint32_t bucket, uint32_t tag, RecordId id, uint64_t sequence);
  // Stages the removal of an entry. False: it is not there, which only damage explains.
  bool remove(uint32_t bucket, uint32_t tag, RecordId id);

  // Prefetches the first group, and what the group's entries with this tag point to.
  void prefetch_group(uint32_t bucket, uint32_t tag) const;
  void prefetch_both_groups(uint32_t bucket, uint32_t tag) const;  // for an insertion
  // Of the first group. Is there one?
  bool prefetch_record(uint32_t bucket, uint32_t tag) const;

 private:
  struct Segment {
    uint32_t page = 0;
    uint32_t depth = 0;
  };  // page 0: the bucket has no index yet, or one that is damaged

  Segment segment_of(const BucketHeader& header, uint32_t tag) const;
  uint64_t group_line(uint32_t page, uint32_t group) const {
    return uint64_t{page} * kLinesPerPage + group;
  }
  const uint64_t* group(uint32_t page, uint32_t group) const {
    return reinterpret_cast<const uint64_t*>(write_set_.view(group_line(page, group)));
  }
  static uint64_t directory_line(uint32_t page, uint32_t word) {
    return uint64_t{page} * kLinesPerPage + word / kDirectoryWordsInLine;
  }
  uint32_t directory_word(uint32_t page, uint32_t word) const;
  void stage_directory_word(uint32_t page, uint32_t word, uint32_t value);

  bool insert_into(Segment segment, uint32_t tag, RecordId id);
  bool insert_into_group(Segment segment, uint32_t number, uint64_t entry);
  bool make_place(Segment segment, uint32_t tag);
  OpenStatus make_first_segment(uint32_t bucket, uint64_t sequence);
  OpenStatus split(uint32_t bucket, uint32_t tag, Segment segment, uint64_t sequence);
  OpenStatus deepen_directory(uint32_t bucket, uint64_t sequence);
  void copy_upper_half(uint32_t from_page, uint32_t to_page, uint32_t tag, uint32_t depth);
  OpenStatus claim(PageKind kind, uint32_t bucket, uint64_t sequence, uint32_t& page);

  const Regions regions_;
  const uint32_t chain_;
  WriteSet& write_set_;
  PageClaims& claims_;
  Persistence& persistence_;
};

inline uint32_t entry_tag(uint64_t entry) {
  return static_cast<uint32_t>(entry >> 32);
}

// Bit i: entry i of the group carries the tag.
inline unsigned entries_with_tag(const uint64_t* group, uint32_t tag) {
#if defined(__AVX512F__)
  const __m512i tags = _mm512_maskz_srli_epi64(0xff, _mm512_load_si512(group), 32);
  return _mm512_cmpeq_epi64_mask(tags, _mm512_set1_epi64(static_cast<int64_t>(uint64_t{tag})));
#else
  unsigned mask = 0;
  for (unsigned i = 0; i < kGroupEntries; ++i) mask |= unsigned{entry_tag(group[i]) == tag} << i;
  return mask;
#endif
}

inline uint32_t BucketIndex::directory_word(uint32_t page, uint32_t word) const {
  const auto* line = reinterpret_cast<const uint32_t*>(write_set_.view(directory_line(page, word)));
  return line[word % kDirectoryWordsInLine];
}

// Bounded in whatever the pool holds: damage must not lead out of the pages.
inline BucketIndex::Segment BucketIndex::segment_of(const BucketHeader& header,
                                                    uint32_t tag) const {
  if (!regions_.is_page(header.root_page)) [[unlikely]]
    return {};
  if (header.depth == 0) return {header.root_page, 0};
  if (header.depth > kMaxDepth) [[unlikely]]
    return {};
  const uint32_t word = directory_start(header.depth) + (tag >> (32 - header.depth));
  const auto entry = DirectoryEntry::unpack(directory_word(header.root_page, word));
  if (!regions_.is_page(entry.page) || entry.depth > header.depth) [[unlikely]]
    return {};
  return {entry.page, entry.depth};
}

template <typename Same>
RecordId BucketIndex::find(uint32_t bucket, uint32_t tag, Same&& same) const {
  const Segment segment = segment_of(header(bucket), tag);
  if (segment.page == 0) return 0;
  for (const uint32_t number : {first_group(tag), second_group(tag)}) {
    const uint64_t* entries = group(segment.page, number);
    for (unsigned rest = entries_with_tag(entries, tag); rest != 0; rest &= rest - 1) {
      const auto id = static_cast<RecordId>(entries[__builtin_ctz(rest)]);
      if (regions_.is_record(id) && same(id)) return id;
    }
  }
  return 0;
}

}  // namespace flowkeep
