// libFuzzer targets: FLOWKEEP_FUZZED is the type of the function, or "chain".
//
//   ./flowkeep fuzz nat44
#include <gtest/gtest.h>

#include "nfs/fuzz_chain.h"

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  GTEST_FLAG_SET(break_on_failure, true);  // of the harness's own checks
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  flowkeep::fuzz_chain({bytes, size}, FLOWKEEP_FUZZED);
  return 0;
}
