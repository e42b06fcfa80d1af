// PortBlocks: which blocks of 64 external ports a bucket holds, as one worker knows it.
//
// The truth is the pool's lease table, where a block, once leased, stays with its bucket. Each
// bucket looks for blocks in an order of its own that depends on nothing but its number, and takes
// the first free one. So the blocks that it holds are found, in the order in which they were
// leased, by walking that order up to the first free block, whichever worker leased them; and what
// was walked once need not be walked again. This list is soft: it starts empty in every new worker.
//
// Thread rule: belongs to one worker. Allocates in the constructor only.
#pragma once

#include <cstdint>
#include <vector>

#include "state/pool.h"

namespace flowkeep {

// The range of blocks that each external address offers.
struct BlockRange {
  uint32_t first = 16;  // block 16 begins at port 1024
  uint32_t count = static_cast<uint32_t>(kPortBlocks) - 16;
};

class PortBlocks {
 public:
  static constexpr uint16_t kNoBlock = 0;  // block 0 (well-known ports) is never leased

  PortBlocks(uint32_t addresses, BlockRange range);

  // Brings the bucket's list up to date. `Leases` offers lease_owner() and lease_acquire().
  template <typename Leases>
  void refresh(uint32_t bucket, uint32_t address, const Leases& leases) {
    List& list = list_of(bucket, address);
    for (; list.walked < range_.count; ++list.walked) {
      const uint16_t block = candidate(bucket, list.walked);
      const int32_t owner = leases.lease_owner(address, block);
      if (owner < 0) return;
      if (owner == static_cast<int32_t>(bucket)) append(list, address, block);
    }
  }

  // Leases one more block of the address for the bucket: the new block, or kNoBlock if all are
  // taken.
  template <typename Leases>
  uint16_t lease(uint32_t bucket, uint32_t address, Leases& leases) {
    List& list = list_of(bucket, address);
    for (; list.walked < range_.count; ++list.walked) {
      const uint16_t block = candidate(bucket, list.walked);
      // Refused: another bucket's by now, or this one's from a revision that walked another range.
      if (!leases.lease_acquire(address, block) &&
          leases.lease_owner(address, block) != static_cast<int32_t>(bucket)) {
        continue;
      }
      append(list, address, block);
      ++list.walked;
      return block;
    }
    return kNoBlock;
  }

  // The bucket's blocks, oldest lease first: first(), then next() until kNoBlock.
  uint16_t first(uint32_t bucket, uint32_t address) const {
    return lists_[bucket * addresses_ + address].head;
  }
  uint16_t next(uint32_t address, uint16_t block) const {
    return next_[address * kPortBlocks + block];
  }

 private:
  struct List {
    uint16_t head = kNoBlock;
    uint16_t tail = kNoBlock;
    uint16_t walked = 0;  // candidates whose owner is known for good
  };
  List& list_of(uint32_t bucket, uint32_t address) { return lists_[bucket * addresses_ + address]; }
  // Neighbouring buckets begin 4 blocks apart, which spreads 256 buckets over an address.
  uint16_t candidate(uint32_t bucket, uint32_t rank) const {
    return static_cast<uint16_t>(range_.first + (bucket * 4 + rank) % range_.count);
  }
  void append(List& list, uint32_t address, uint16_t block);

  uint32_t addresses_;
  BlockRange range_;
  std::vector<List> lists_;  // of each bucket and address
  std::vector<uint16_t>
      next_;  // of each address and block: a block is in one bucket's list at most
};

}  // namespace flowkeep
