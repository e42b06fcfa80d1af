// WorkerMemory: what a standby does with its spare time: it maps the pages that it will need once a
// slot is given to it.
//
// A process that was forked shares its memory with the others but not the page tables of what is
// shared: each page costs it a fault at the first touch, tens of microseconds on a virtual machine.
// Mapped ahead, a take-over meets none, however many flows the pool holds. The code that it runs is
// read beforehand too: hypervisors with page tables of their own (shadow paging) fault at the first
// access, whatever the guest has mapped.
//
// Uses madvise(MADV_POPULATE_READ, MADV_POPULATE_WRITE); refused before Linux 5.14: the pages then
// come when they are touched.
//
// Thread rule: belongs to one worker.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "dataplane/arena.h"
#include "state/pool.h"

namespace flowkeep {

class WorkerMemory {
 public:
  WorkerMemory(const Arena& arena, const Pool& pool);

  // What a take-over is sure to need: the rings, control blocks and redo logs of every slot.
  void map_essentials() const;
  // Reads a piece of the code that bursts run. False: all has been read.
  bool read_more();
  // One more piece of the rest, which is the packets and the pool's pages in use: a millisecond
  // or less. False: there was nothing left; there is again when the pool has grown.
  bool map_more();

 private:
  const Arena& arena_;
  const Pool& pool_;
  std::vector<std::span<std::byte>> code_;     // still to be read
  std::vector<std::span<std::byte>> packets_;  // pieces still to be mapped, taken from the end
  uint64_t next_page_ = 0;                     // of the pool, to be looked at
  uint64_t claims_ = UINT64_MAX;               // pool_.page_claims() before the last look began
};

}  // namespace flowkeep
