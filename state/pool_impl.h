// What a Pool holds; shared with FlowTable and RedoLog, which work on the same mapping.
#pragma once

#include <string>

#include "state/layout.h"
#include "state/persistence.h"
#include "state/pool.h"

namespace flowkeep {

struct Pool::Impl {
  Impl(bool flushes, InjectedDelay injected)
      : delay(flushes ? injected : InjectedDelay{}), persistence(flushes, injected) {}
  ~Impl();  // unmaps; pool.cc

  std::string path;
  int fd = -1;              // holds the lock
  size_t mapped_bytes = 0;  // to unmap in the end; 0: somebody else's memory
  Medium medium = Medium::kDisk;
  bool emulated = false;
  bool formatted = false;
  const InjectedDelay delay;
  Regions regions;
  mutable Persistence persistence;
};

}  // namespace flowkeep
