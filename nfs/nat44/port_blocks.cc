#include "nfs/nat44/port_blocks.h"

namespace flowkeep {

PortBlocks::PortBlocks(uint32_t addresses, BlockRange range)
    : addresses_(addresses),
      range_(range),
      lists_(kMaxBuckets * addresses),
      next_(kPortBlocks * addresses, kNoBlock) {}

void PortBlocks::append(List& list, uint32_t address, uint16_t block) {
  if (list.head == kNoBlock) {
    list.head = block;
  } else {
    next_[address * kPortBlocks + list.tail] = block;
  }
  list.tail = block;
}

}  // namespace flowkeep
