// Extents: a flow's state of variable size, in blocks of its bucket's extent pages.
//
// Copy on write. New content goes straight into blocks that nothing leads to; the burst's redo
// record carries only the reference in the flow record and the heads of two lists, so that neither
// the write set nor the redo slot bounds the content. An extent that is replaced or whose flow
// closes is put on the bucket's free list by the same redo record, never before: until the commit
// its bytes stay what they were.
//
// The blocks of an extent are linked the way those of the free list are. Taking the first n free
// blocks, or giving an extent back, changes one link and the bucket's header, whatever n is.
//
// Thread rule: one for each FlowTable; the caller owns every bucket that it names.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "state/bucket_index.h"
#include "state/layout.h"
#include "state/page_claims.h"
#include "state/persistence.h"
#include "state/write_set.h"

namespace flowkeep {

// What an extent's header carries as its checksum.
uint64_t extent_checksum(const ExtentHeader& header, std::span<const std::byte> content,
                         HashSecret secret);

class Extents {
 public:
  Extents(const Regions& regions, uint32_t chain, WriteSet& write_set, BucketIndex& index,
          PageClaims& claims, Persistence& persistence);

  // Content of the extent that starts at this block. Empty: the pool is damaged there. Valid until
  // the next call or the end of the burst.
  std::span<const std::byte> read(RecordId id, uint32_t first_block) const;
  // Writes the content into fresh blocks of the bucket, the first of which is stored in
  // `first_block`. `content`: 1 to kMaxExtentBytes. With any other status than kOk nothing changed,
  // but a bucket that has grown stays so.
  OpenStatus write(uint32_t bucket, RecordId id, std::span<const std::byte> content,
                   uint64_t sequence, uint32_t& first_block);
  // Free as of the burst's commit.
  void release(uint32_t bucket, uint32_t first_block);
  // Before the redo record is built: stages the release of what was released.
  void link_released();
  bool any_written() const { return written_; }  // since the last burst_ended()
  void burst_ended();

  // Further releases that this burst may make.
  uint32_t room() const { return static_cast<uint32_t>(released_.capacity() - released_.size()); }
  // Lines that write() and release() stage at most, the bucket's header included.
  static constexpr uint32_t kLinesPerChange = 3;
  static constexpr uint32_t claims_for(size_t bytes) {
    return (extent_blocks(bytes) + kBlocksPerPage - 1) / kBlocksPerPage;
  }

 private:
  struct Released {
    uint32_t bucket;
    uint32_t first;
    uint32_t last;
  };
  static constexpr size_t kMaxReleased = 1024;

  bool is_block(uint32_t block) const {
    return block_place(block) < kBlocksPerPage && regions_.is_page(block_page(block));
  }
  uint32_t next_of(uint32_t block) const;
  void stage_next(uint32_t block, uint32_t next);
  uint32_t last_of(uint32_t first_block) const;
  uint32_t free_blocks(uint32_t bucket, uint32_t at_most) const;
  OpenStatus grow(uint32_t bucket, uint64_t sequence);

  const Regions regions_;
  const HashSecret secret_;
  const uint32_t chain_;
  WriteSet& write_set_;
  BucketIndex& index_;
  PageClaims& claims_;
  Persistence& persistence_;
  bool written_ = false;
  std::vector<Released> released_;
  std::unique_ptr<std::array<std::byte, kMaxExtentBytes>> gathered_;  // what read() returns
};

}  // namespace flowkeep
