#include "state/extents.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "state/checksum.h"

namespace flowkeep {

namespace {

constexpr uint64_t kExtentMagic = 0x3130545845464b46ULL;  // "FKFEXT01"
constexpr size_t kFirstBlockContent = kBlockBytes - sizeof(ExtentHeader);

}  // namespace

uint64_t extent_checksum(const ExtentHeader& header, std::span<const std::byte> content,
                         HashSecret secret) {
  const uint64_t start = (uint64_t{header.record} << 32 | header.bytes) ^ kExtentMagic;
  const size_t in_words = content.size() / 8 * 8;
  const uint64_t of_words = checksum64(content.data(), in_words, start, secret);
  if (in_words == content.size()) return of_words;
  uint64_t rest = 0;
  std::memcpy(&rest, content.data() + in_words, content.size() - in_words);
  return checksum64(&rest, sizeof(rest), of_words, secret);
}

Extents::Extents(const Regions& regions, uint32_t chain, WriteSet& write_set, BucketIndex& index,
                 PageClaims& claims, Persistence& persistence)
    : regions_(regions),
      secret_(regions.superblock().secret),
      chain_(chain),
      write_set_(write_set),
      index_(index),
      claims_(claims),
      persistence_(persistence),
      gathered_(std::make_unique<std::array<std::byte, kMaxExtentBytes>>()) {
  released_.reserve(kMaxReleased);
}

uint32_t Extents::next_of(uint32_t block) const {
  const uint64_t line = uint64_t{block_page(block)} * kLinesPerPage;
  return reinterpret_cast<const ExtentPageHead*>(write_set_.view(line))->next[block_place(block)];
}

void Extents::stage_next(uint32_t block, uint32_t next) {
  const uint64_t line = uint64_t{block_page(block)} * kLinesPerPage;
  reinterpret_cast<ExtentPageHead*>(write_set_.stage(line))->next[block_place(block)] = next;
}

// 0: the list is damaged.
uint32_t Extents::last_of(uint32_t first_block) const {
  uint32_t block = first_block;
  for (uint32_t walked = 0; walked < kMaxExtentBlocks && is_block(block); ++walked) {
    const uint32_t next = next_of(block);
    if (next == 0) return block;
    block = next;
  }
  return 0;
}

// How many blocks the free list has, counted no further than `at_most`.
uint32_t Extents::free_blocks(uint32_t bucket, uint32_t at_most) const {
  uint32_t count = 0;
  for (uint32_t block = index_.header(bucket).free_block; count < at_most && is_block(block);
       block = next_of(block)) {
    ++count;
  }
  return count;
}

std::span<const std::byte> Extents::read(RecordId id, uint32_t first_block) const {
  if (!is_block(first_block)) return {};
  ExtentHeader header;
  std::memcpy(&header, regions_.block(first_block), sizeof(header));
  if (header.bytes == 0 || header.bytes > kMaxExtentBytes || header.record != id) return {};
  const std::byte* const first = regions_.block(first_block) + sizeof(header);
  std::span<const std::byte> content(first, header.bytes);
  if (header.bytes > kFirstBlockContent) {
    std::byte* to = gathered_->data();
    std::memcpy(to, first, kFirstBlockContent);
    size_t rest = header.bytes - kFirstBlockContent;
    uint32_t block = first_block;
    for (to += kFirstBlockContent; rest != 0; to += kBlockBytes) {
      block = next_of(block);
      if (!is_block(block)) return {};
      const size_t here = std::min<size_t>(rest, kBlockBytes);
      std::memcpy(to, regions_.block(block), here);
      rest -= here;
    }
    content = {gathered_->data(), header.bytes};
  }
  return extent_checksum(header, content, secret_) == header.checksum
             ? content
             : std::span<const std::byte>{};
}

OpenStatus Extents::write(uint32_t bucket, RecordId id, std::span<const std::byte> content,
                          uint64_t sequence, uint32_t& first_block) {
  assert(!content.empty() && content.size() <= kMaxExtentBytes);
  const uint32_t blocks = extent_blocks(content.size());
  if (write_set_.room() < kLinesPerChange) return OpenStatus::kWriteSetFull;
  while (free_blocks(bucket, blocks) < blocks) {
    const OpenStatus grown = grow(bucket, sequence);
    if (grown != OpenStatus::kOk) return grown;
  }
  ExtentHeader header = {static_cast<uint32_t>(content.size()), id, 0};
  header.checksum = extent_checksum(header, content, secret_);
  alignas(kLineBytes) std::array<std::byte, kBlockBytes> first;
  const size_t in_first = std::min(content.size(), kFirstBlockContent);
  std::memcpy(first.data(), &header, sizeof(header));
  std::memcpy(first.data() + sizeof(header), content.data(), in_first);
  BucketHeader& staged = index_.stage_header(bucket);
  uint32_t block = staged.free_block;
  first_block = block;
  persistence_.nontemporal(regions_.block(block), first.data(), sizeof(header) + in_first);
  for (content = content.subspan(in_first); !content.empty();) {
    const size_t here = std::min<size_t>(content.size(), kBlockBytes);
    block = next_of(block);
    persistence_.nontemporal(regions_.block(block), content.data(), here);
    content = content.subspan(here);
  }
  staged.free_block = next_of(block);
  stage_next(block, 0);
  written_ = true;
  return OpenStatus::kOk;
}

// A fresh page's blocks go before the free list. Its head is written directly: nothing leads to it.
OpenStatus Extents::grow(uint32_t bucket, uint64_t sequence) {
  if (claims_.room() == 0) return OpenStatus::kWriteSetFull;
  const uint32_t page = claims_.claim(page_tag(PageKind::kExtents, chain_, bucket),
                                      index_.header(bucket).extent_page, sequence);
  if (page == 0) return OpenStatus::kPoolFull;
  BucketHeader& staged = index_.stage_header(bucket);
  ExtentPageHead head = {};
  for (uint32_t place = 0; place < kBlocksPerPage; ++place) {
    head.next[place] =
        place + 1 < kBlocksPerPage ? block_number(page, place + 1) : staged.free_block;
  }
  persistence_.store(&regions_.extent_head(page), &head, sizeof(head));
  persistence_.flush(&regions_.extent_head(page), sizeof(head));
  staged.free_block = block_number(page, 0);
  staged.extent_page = page;
  ++staged.extent_pages;
  return OpenStatus::kOk;
}

// The lines that link_released() will change are staged now, while has_room() still speaks for
// them.
void Extents::release(uint32_t bucket, uint32_t first_block) {
  assert(room() > 0);
  const uint32_t last = last_of(first_block);
  if (last == 0) return;  // a damaged list is nothing to hand out again
  stage_next(last, 0);
  index_.stage_header(bucket);
  released_.push_back({bucket, first_block, last});
}

void Extents::link_released() {
  for (const Released& extent : released_) {
    BucketHeader& header = index_.stage_header(extent.bucket);
    stage_next(extent.last, header.free_block);
    header.free_block = extent.first;
  }
  released_.clear();
}

void Extents::burst_ended() {
  released_.clear();
  written_ = false;
}

}  // namespace flowkeep
