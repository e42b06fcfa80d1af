// libFuzzer target: everything that reads a pool, over one that is damaged as the input says.
//
//   ./flowkeep fuzz pool
#include <cstdio>

#include "state/damaged_pool.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace flowkeep;
  if (size < 1 + sizeof(PoolChange) || size > 1 + 64 * sizeof(PoolChange)) return 0;
  static DamagedPool pool;  // the format and its secret cost too much to repeat
  pool.restore();
  const bool starts = bytes[0] % 2 != 0;
  for (size_t at = 1; at + sizeof(PoolChange) <= size; at += sizeof(PoolChange)) {
    PoolChange change;
    std::memcpy(&change, bytes + at, sizeof(change));
    pool.apply(change);
  }
  pool.look();
  if (starts) pool.start();
  if (const std::string left = pool.mend(); !left.empty()) {
    std::fprintf(stderr, "after the repair: %s\n", left.c_str());
    std::abort();
  }
  return 0;
}
