// TokenBucket: so many a second, and so many at once. Exact in whole tokens, because time comes in
// whole seconds: what is left never depends on how often it was asked.
//
// Thread rule: one worker's soft state. A new worker begins with a full bucket.
#pragma once

#include <algorithm>
#include <cstdint>

namespace flowkeep {

class TokenBucket {
 public:
  TokenBucket(uint32_t per_second, uint32_t burst)
      : per_second_(per_second), burst_(burst), tokens_(burst) {}

  // One token, if there is one. A clock that goes back brings none.
  bool take(uint32_t now_s) {
    const auto passed_s = static_cast<int32_t>(now_s - filled_s_);
    if (passed_s != 0) filled_s_ = now_s;
    if (passed_s > 0) {
      const uint64_t filled = tokens_ + uint64_t{per_second_} * static_cast<uint32_t>(passed_s);
      tokens_ = static_cast<uint32_t>(std::min<uint64_t>(filled, burst_));
    }
    if (tokens_ == 0) return false;
    --tokens_;
    return true;
  }

 private:
  uint32_t per_second_;
  uint32_t burst_;
  uint32_t tokens_;
  uint32_t filled_s_ = 0;
};

}  // namespace flowkeep
