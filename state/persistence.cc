#include "state/persistence.h"

#include <libpmem.h>
#include <x86intrin.h>

#include <algorithm>
#include <bit>
#include <chrono>

namespace flowkeep {

namespace {

double tsc_cycles_per_ns() {
  using Clock = std::chrono::steady_clock;
  constexpr auto kLook = std::chrono::milliseconds(10);
  const auto start = Clock::now();
  const uint64_t start_tsc = __rdtsc();
  while (Clock::now() - start < kLook) _mm_pause();
  const uint64_t cycles = __rdtsc() - start_tsc;
  const std::chrono::duration<double, std::nano> passed = Clock::now() - start;
  return static_cast<double>(cycles) / passed.count();
}

void spin(uint64_t cycles) {
  const uint64_t start = __rdtsc();
  while (__rdtsc() - start < cycles) {
  }
}

}  // namespace

Persistence::Persistence(bool flushes, InjectedDelay delay)
    : flushes_(flushes),
      delayed_(flushes && delay.any()),
      writes_back_(flushes && delay.line_ns == 0 && pmem_has_auto_flush() != 1) {
  if (!delayed_) return;
  const double per_ns = tsc_cycles_per_ns();
  fence_delay_cycles_ = static_cast<uint64_t>(delay.fence_ns * per_ns);
  line_delay_cycles_ = static_cast<uint64_t>(delay.line_ns * per_ns);
}

void Persistence::store_line(void* to, const void* from, uint8_t mask) {
  if (observer_ == nullptr) [[likely]] {
#if defined(__AVX512F__)
    _mm512_mask_storeu_epi64(to, mask, _mm512_loadu_si512(from));
    return;
#endif
  }
  auto* words = static_cast<uint64_t*>(to);
  const auto* values = static_cast<const uint64_t*>(from);
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const int word = std::countr_zero(rest);
    store64(&words[word], values[word]);
  }
}

void Persistence::observed_store(void* to, const void* from, size_t bytes) {
  auto* target = static_cast<std::byte*>(to);
  const auto* source = static_cast<const std::byte*>(from);
  while (bytes != 0) {
    const size_t in_word =
        sizeof(uint64_t) - reinterpret_cast<uintptr_t>(target) % sizeof(uint64_t);
    const size_t step = std::min(bytes, in_word);
    observer_->storing(target, source, step);
    std::memcpy(target, source, step);
    target += step;
    source += step;
    bytes -= step;
  }
}

void Persistence::nontemporal(void* to, const void* from, size_t bytes) {
  if (observer_ != nullptr) [[unlikely]] {
    observed_store(to, from, bytes);
    observer_->flushing(to, bytes);
    return;
  }
  if (flushes_) {
    pmem_memcpy(to, from, bytes, PMEM_F_MEM_NODRAIN | PMEM_F_MEM_NONTEMPORAL);
    if (delayed_) [[unlikely]]
      delay_lines(to, bytes);
  } else {
    std::memcpy(to, from, bytes);
  }
}

void Persistence::zero(void* to, size_t bytes) {
  if (observer_ != nullptr) [[unlikely]] {
    const uint64_t nothing = 0;
    for (size_t at = 0; at < bytes; at += sizeof(nothing)) {
      observed_store(static_cast<std::byte*>(to) + at, &nothing, sizeof(nothing));
    }
  } else {
    std::memset(to, 0, bytes);
  }
  flush(to, bytes);
}

void Persistence::flush_lines(const void* address, size_t bytes) const {
  pmem_flush(address, bytes);
  if (delayed_) [[unlikely]]
    delay_lines(address, bytes);
}

void Persistence::drain() const {
  pmem_drain();
  if (delayed_) [[unlikely]]
    spin(fence_delay_cycles_);
}

void Persistence::delay_lines(const void* address, size_t bytes) const {
  constexpr uintptr_t kLine = 64;
  if (bytes == 0 || line_delay_cycles_ == 0) return;
  const auto first = reinterpret_cast<uintptr_t>(address) / kLine;
  const auto last = (reinterpret_cast<uintptr_t>(address) + bytes - 1) / kLine;
  spin((last - first + 1) * line_delay_cycles_);
}

}  // namespace flowkeep
