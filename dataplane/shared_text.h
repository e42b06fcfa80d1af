// A short text in shared memory, with one writer and readers in other processes that see it whole
// or not at all.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace flowkeep {

template <size_t kBytes>
class SharedText {
 public:
  void set(std::string_view text) {
    const uint32_t version = version_.load(std::memory_order_relaxed);
    version_.store(version + 1, std::memory_order_relaxed);  // odd: being written
    std::atomic_thread_fence(std::memory_order_release);
    const size_t length = std::min(text.size(), kBytes - 1);
    std::memcpy(bytes_, text.data(), length);
    bytes_[length] = '\0';
    version_.store(version + 2, std::memory_order_release);
  }
  // Empty if it is being written just now.
  std::string get() const {
    const uint32_t before = version_.load(std::memory_order_acquire);
    char copy[kBytes];
    std::memcpy(copy, bytes_, kBytes);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (before % 2 != 0 || version_.load(std::memory_order_relaxed) != before) return {};
    return std::string(copy, strnlen(copy, kBytes));
  }

 private:
  std::atomic<uint32_t> version_{0};
  char bytes_[kBytes] = {};
};

}  // namespace flowkeep
