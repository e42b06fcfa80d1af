// The bytes of the state pool, region by region; docs/state-format.md describes the same in prose.
// A change here is a change of kPoolFormatVersion.
#pragma once

#include <cstddef>
#include <cstdint>

#include "state/flow_key.h"
#include "state/flow_record.h"
#include "state/planted_bug.h"
#include "state/pool.h"
#include "state/state_layout.h"

namespace flowkeep {

inline constexpr uint64_t kPoolMagic = 0x5045454b574f4c46ULL;  // "FLOWKEEP"
inline constexpr uint64_t kRedoMagic = 0x31304f4445524b46ULL;  // "FKREDO01"
inline constexpr size_t kLineBytes = 64;
inline constexpr uint32_t kLinesPerPage = kPageBytes / kLineBytes;
inline constexpr uint32_t kRecordsPerPage = kPageBytes / sizeof(FlowRecord);
inline constexpr uint32_t kRecordLines = sizeof(FlowRecord) / kLineBytes;
inline constexpr uint64_t kMaxPoolBytes = uint64_t{1}
                                          << 39;  // record ids are 32 bits, 5 of them the place

// Record id: page number * 32 + place in the page, which is below kRecordsPerPage; 0 is none.
inline constexpr uint32_t kRecordPlaces = 32;
static_assert(kRecordsPerPage == 21 && kMaxPoolBytes / kPageBytes * kRecordPlaces <= uint64_t{1}
                                                                                         << 32);
constexpr uint32_t record_id(uint32_t page, uint32_t place) {
  return page * kRecordPlaces + place;
}
constexpr uint32_t record_page(uint32_t id) {
  return id / kRecordPlaces;
}
constexpr uint32_t record_place(uint32_t id) {
  return id % kRecordPlaces;
}
// Number of its first line in the pool.
constexpr uint64_t record_line(uint32_t id) {
  return uint64_t{record_page(id)} * kLinesPerPage + record_place(id) * kRecordLines;
}
// The record of which this is a line, whichever page it is in; the last line of a page is none's.
constexpr uint32_t record_of_line(uint64_t line) {
  return record_id(static_cast<uint32_t>(line / kLinesPerPage),
                   static_cast<uint32_t>(line % kLinesPerPage) / kRecordLines);
}

// Where the regions lie; follows from the pool's size alone.
struct Geometry {
  uint64_t pool_bytes;
  uint32_t page_bytes;
  uint32_t record_bytes;
  uint32_t chains;
  uint32_t buckets;  // headers for each chain
  uint32_t worker_slots;
  uint32_t external_addresses;  // of each chain
  uint32_t port_blocks;         // of each address
  uint32_t redo_slot_bytes;
  uint64_t chains_at;  // byte offsets
  uint64_t buckets_at;
  uint64_t leases_at;
  uint64_t layouts_at;
  uint64_t logs_at;
  uint64_t page_table_at;
  uint64_t pages_at;
  uint64_t pages;

  static Geometry of(uint64_t pool_bytes);
};
static_assert(sizeof(Geometry) == 104);

// Page 0. Written once; the magic last.
struct Superblock {
  uint64_t magic;      // +0
  uint32_t version;    // +8
  uint32_t reserved;   // +12 zero
  Geometry geometry;   // +16
  HashSecret secret;   // +120
  uint64_t created_s;  // +136 Unix time, seconds
  uint64_t checksum;   // +144 of bytes 0 to 143
};
static_assert(sizeof(Superblock) == 152 && offsetof(Superblock, checksum) == 144);

// In the superblock's page, at +2048; never flushed, any value is correct.
struct PageHints {
  uint64_t next_page;  // index in the page table where the search for a free page starts
  uint64_t releases;   // grows whenever pages are given back
};
inline constexpr size_t kPageHintsAt = 2048;

enum class ChainState : uint64_t { kFree = 0, kAttached = 1, kDropping = 2 };

struct ChainEntry {
  char name[64];         // +0 zero-terminated
  ChainState state;      // +64 decides; changed last
  uint32_t buckets;      // +72
  uint32_t attached_s;   // +76 Unix time, seconds
  uint64_t checksum;     // +80 of name, buckets and attached_s
  uint8_t reserved[40];  // +88 zero
};
static_assert(sizeof(ChainEntry) == 128);
static_assert(kMaxChains * sizeof(ChainEntry) <= kPageBytes);

// One for each bucket of each chain. All zero: the bucket has never held a flow.
struct alignas(kLineBytes) BucketHeader {
  uint32_t root_page;     // +0  depth 0: the only segment; otherwise the directory page; 0 none
  uint32_t depth;         // +4  of the directory
  uint32_t free_record;   // +8  first record of the free list; 0 none
  uint32_t flows;         // +12 live flows
  uint32_t record_page;   // +16 newest record page, the others follow by the page table; 0 none
  uint32_t records_used;  // +20 records of record_page handed out at least once
  uint32_t record_pages;  // +24
  uint32_t index_pages;   // +28 segments and directories
  uint32_t free_block;    // +32 first block of the free list of extent blocks; 0 none
  uint32_t extent_page;   // +36 newest extent page, the others follow by the page table; 0 none
  uint32_t extent_pages;  // +40
  uint32_t keyed;         // +44 records in use that are no flows
  uint8_t reserved[16];   // +48 zero
};
static_assert(sizeof(BucketHeader) == 64);

// ---- State layouts: where the functions of a chain's revisions keep their hard state.

// Free when its checksum is wrong. The revisions of two valid entries overlap only if a change was
// interrupted; the entries are the same then.
struct LayoutEntry {
  uint64_t checksum;        // +0 of what follows
  uint32_t first_revision;  // +8
  uint32_t last_revision;   // +12 the revisions in between are of this layout, if they exist
  uint32_t reserved[11];    // +16 zero
  StateLayout layout;       // +60 functions, 4; +64 each function, 48
  uint8_t pad[16];          // +496 zero
};
static_assert(sizeof(LayoutEntry) == 512 && offsetof(LayoutEntry, layout) == 60);
static_assert(sizeof(StateLayout) == 4 + kMaxLayoutFunctions * sizeof(FunctionLayout));
inline constexpr size_t kLayoutEntries = 16;  // of each chain
static_assert(kLayoutEntries * sizeof(LayoutEntry) % kPageBytes == 0);

// A page claimed by a burst, noted before the claim. It belongs to a bucket for good once the redo
// record `sequence` is committed; until then recovery gives it back.
struct PendingClaim {
  uint64_t sequence;      // +0 written after `page_and_tag`; 0: none
  uint64_t page_and_tag;  // +8 page number << 32 | tag
};
inline constexpr size_t kPendingClaims = 248;

struct LogHeader {
  uint64_t retired;  // +0 records up to this sequence are never applied again; retired_mark()
  uint8_t pad0[56];
  uint64_t applied;  // +64 soft: the worker has stored home everything up to this sequence
  uint8_t pad1[56];
  PendingClaim pending[kPendingClaims];  // +128
};
static_assert(sizeof(LogHeader) == kPageBytes);
inline constexpr size_t kLogBytes = sizeof(LogHeader) + 2 * kRedoSlotBytes;

// Starts a redo slot. The payload follows: for each changed line one descriptor word and the
// changed words in ascending order.
struct RedoHeader {
  uint64_t magic;          // +0
  uint64_t sequence;       // +8  record n lies in slot n % 2
  uint64_t checksum;       // +16 of this header (checksum taken as 0) and the payload
  uint32_t inbox;          // +24 BurstPositions
  uint32_t outbox;         // +28
  uint32_t lines;          // +32
  uint32_t payload_bytes;  // +36
  uint64_t reserved[3];    // +40 zero
};
static_assert(sizeof(RedoHeader) == kLineBytes);

// What a line is part of, as far as applying it differs.
enum class LineKind : uint8_t { kPlain = 0, kRecordFirst = 1, kRecordSecond = 2, kRecordThird = 3 };
// Of a flow record's line: which of them, from 0.
constexpr uint32_t line_of_record(LineKind kind) {
  return static_cast<uint32_t>(kind) - static_cast<uint32_t>(LineKind::kRecordFirst);
}

// Descriptor word: line number (byte offset / 64; 33 bits cover the largest pool), word mask, kind.
struct RedoLine {
  uint64_t line;
  uint8_t mask;
  LineKind kind;
  static constexpr RedoLine unpack(uint64_t word) {
    return {word & ((uint64_t{1} << 40) - 1), static_cast<uint8_t>(word >> 40),
            static_cast<LineKind>(word >> 48)};
  }
  constexpr uint64_t pack() const {
    return line | uint64_t{mask} << 40 | static_cast<uint64_t>(kind) << 48;
  }
};

enum class PageKind : uint32_t { kRecords = 1, kSegment = 2, kDirectory = 3, kExtents = 4 };

// Page table word: 0 free, otherwise tag | next page of the bucket's list of record or extent pages
// << 32.
constexpr uint32_t page_tag(PageKind kind, uint32_t chain, uint32_t bucket) {
  return 1u << 31 | static_cast<uint32_t>(kind) << 28 | chain << 16 | bucket;
}
constexpr uint32_t tag_chain(uint32_t tag) {
  return tag >> 16 & 0xfff;
}
constexpr uint32_t tag_bucket(uint32_t tag) {
  return tag & 0xffff;
}
constexpr PageKind tag_kind(uint32_t tag) {
  return static_cast<PageKind>(tag >> 28 & 7);
}
static_assert(kMaxChains <= 0x1000 && kMaxBuckets <= 0x10000);

// ---- Index.
inline constexpr uint32_t kGroupEntries = kLineBytes / sizeof(uint64_t);
inline constexpr uint32_t kSegmentGroups = kLinesPerPage;
inline constexpr uint32_t kMaxDepth = 10;
inline constexpr uint32_t kDirectoryWordsInLine = kLineBytes / sizeof(uint32_t);

// A directory of depth d < kMaxDepth uses the words [2^d, 2^(d+1)) of its page, so that the next
// depth is written beside it while it is in use; depth kMaxDepth fills a page of its own.
constexpr uint32_t directory_start(uint32_t depth) {
  return depth == kMaxDepth ? 0 : 1u << depth;
}
// Directory word: page number, depth of the segment << 28.
struct DirectoryEntry {
  uint32_t page;
  uint32_t depth;
  static constexpr DirectoryEntry unpack(uint32_t word) { return {word & 0x0fffffff, word >> 28}; }
  constexpr uint32_t pack() const { return page | depth << 28; }
};
static_assert(kMaxPoolBytes / kPageBytes <= 0x10000000);

// Index entry: tag (upper half of the key's hash) << 32 | record id. The tag's upper bits choose
// the segment, its lower bits the two groups.
constexpr uint32_t hash_tag(uint64_t hash) {
  return static_cast<uint32_t>(hash >> 32);
}
constexpr uint32_t first_group(uint32_t tag) {
  return tag % kSegmentGroups;
}
constexpr uint32_t second_group(uint32_t tag) {
  const uint32_t other = tag / kSegmentGroups % kSegmentGroups;
  return other != first_group(tag) ? other : other ^ 1;
}

// ---- Extents: state of variable size beside the flow records, in blocks of nine lines.
inline constexpr uint32_t kBlocksPerPage = 7;
inline constexpr uint32_t kBlockBytes = 9 * kLineBytes;

// First line of an extent page; changes by commit alone. The blocks follow; their bytes are written
// directly, while nothing leads to them.
struct ExtentPageHead {
  uint32_t next[kBlocksPerPage];  // +0 of each block: the next of its extent or of the free list, 0
                                  // ends both
  uint8_t reserved[36];           // +28 zero
};
static_assert(sizeof(ExtentPageHead) == kLineBytes);
static_assert(sizeof(ExtentPageHead) + kBlocksPerPage * kBlockBytes == kPageBytes);

// Block number: page number * 8 + place in the page; 0 is none.
constexpr uint32_t block_number(uint32_t page, uint32_t place) {
  return page * 8 + place;
}
constexpr uint32_t block_page(uint32_t block) {
  return block / 8;
}
constexpr uint32_t block_place(uint32_t block) {
  return block % 8;
}

// Starts an extent's first block; the content follows, through the blocks in the order of their
// list.
struct ExtentHeader {
  uint32_t bytes;     // +0 of the content: 1 to kMaxExtentBytes
  uint32_t record;    // +4 id of the flow record
  uint64_t checksum;  // +8 of the two fields above and the content, zero-padded to 8 bytes
};
static_assert(sizeof(ExtentHeader) == 16);
constexpr uint32_t extent_blocks(size_t bytes) {
  return bytes == 0 ? 0
                    : static_cast<uint32_t>((sizeof(ExtentHeader) + bytes + kBlockBytes - 1) /
                                            kBlockBytes);
}
inline constexpr uint32_t kMaxExtentBlocks = extent_blocks(kMaxExtentBytes);

// ---- Typed access to a mapped pool. Copied freely; the geometry has been checked.
class Regions {
 public:
  Regions() = default;
  Regions(std::byte* base, const Geometry& geometry) : base_(base), geometry_(geometry) {}

  std::byte* base() const { return base_; }
  const Geometry& geometry() const { return geometry_; }
  Superblock& superblock() const { return *reinterpret_cast<Superblock*>(base_); }
  PageHints& page_hints() const { return *reinterpret_cast<PageHints*>(base_ + kPageHintsAt); }
  ChainEntry& chain(uint32_t chain) const {
    return reinterpret_cast<ChainEntry*>(base_ + geometry_.chains_at)[chain];
  }
  uint64_t bucket_line(uint32_t chain, uint32_t bucket) const {
    return geometry_.buckets_at / kLineBytes + chain * kMaxBuckets + bucket;
  }
  BucketHeader& bucket(uint32_t chain, uint32_t bucket) const {
    return reinterpret_cast<BucketHeader*>(base_)[bucket_line(chain, bucket)];
  }
  uint32_t* leases(uint32_t chain) const {
    return reinterpret_cast<uint32_t*>(base_ + geometry_.leases_at) +
           chain * kMaxExternalAddresses * kPortBlocks;
  }
  LayoutEntry* layouts(uint32_t chain) const {
    return reinterpret_cast<LayoutEntry*>(base_ + geometry_.layouts_at) + chain * kLayoutEntries;
  }
  LogHeader& log(uint32_t log) const {
    return *reinterpret_cast<LogHeader*>(base_ + geometry_.logs_at + log * kLogBytes);
  }
  std::byte* redo_slot(uint32_t log, uint64_t sequence) const {
    return base_ + geometry_.logs_at + log * kLogBytes + sizeof(LogHeader) +
           (planted(PlantedBug::kSlotReusedTooEarly) ? 0 : sequence % 2) * kRedoSlotBytes;
  }
  uint64_t first_page() const { return geometry_.pages_at / kPageBytes; }
  bool is_page(uint64_t page) const { return page - first_page() < geometry_.pages; }
  bool is_record(uint32_t id) const {
    return is_page(record_page(id)) && record_place(id) < kRecordsPerPage;
  }
  uint64_t* page_table() const {
    return reinterpret_cast<uint64_t*>(base_ + geometry_.page_table_at);
  }
  uint64_t& page_word(uint32_t page) const { return page_table()[page - first_page()]; }
  std::byte* page(uint32_t page) const { return base_ + uint64_t{page} * kPageBytes; }
  ExtentPageHead& extent_head(uint32_t page) const {
    return *reinterpret_cast<ExtentPageHead*>(this->page(page));
  }
  // The block must be one of a page's kBlocksPerPage.
  std::byte* block(uint32_t block) const {
    return page(block_page(block)) + sizeof(ExtentPageHead) + block_place(block) * kBlockBytes;
  }
  FlowRecord& record(uint32_t id) const {
    return *reinterpret_cast<FlowRecord*>(base_ + record_line(id) * kLineBytes);
  }
  // May a redo record change this line? Only bucket headers and pages change by commit.
  bool is_committed_line(uint64_t line) const {
    const uint64_t at = line * kLineBytes;
    return (at >= geometry_.buckets_at && at < geometry_.leases_at) || is_page(at / kPageBytes);
  }

 private:
  std::byte* base_ = nullptr;
  Geometry geometry_ = {};
};

}  // namespace flowkeep
