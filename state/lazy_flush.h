// LazyFlush: home lines that a burst has changed, flushed little by little while the next burst is
// worked on, whose fence covers them. Write-backs one after the other keep the store queue busy for
// longer than they take; between other work they cost next to nothing.
//
// A worker that dies leaves lines that nobody flushed. They follow from its redo log, and whoever
// goes on with that log takes them over.
//
// Thread rule: one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "state/layout.h"
#include "state/persistence.h"

namespace flowkeep {

class LazyFlush {
 public:
  // `room`: lines; twice what two bursts change, because a record names its first line with each of
  // the others.
  LazyFlush(Persistence& persistence, uint32_t room)
      : persistence_(persistence),
        room_(room),
        lines_(std::make_unique<const std::byte*[]>(room)) {}

  void add(const std::byte* line) {
    if (!persistence_.needs_flushes()) return;
    if (count_ == room_) [[unlikely]]
      flush_last();
    lines_[count_++] = line;
  }
  // A few of them; for the packet path.
  void some() {
    constexpr uint32_t kAtOnce = 2;
    for (uint32_t i = 0; i < kAtOnce && count_ != 0; ++i) flush_last();
  }
  // Before the fence.
  void all() {
    while (count_ != 0) flush_last();
  }

 private:
  void flush_last() { persistence_.flush(lines_[--count_], kLineBytes); }

  Persistence& persistence_;
  const uint32_t room_;
  std::unique_ptr<const std::byte*[]> lines_;
  uint32_t count_ = 0;
};

}  // namespace flowkeep
