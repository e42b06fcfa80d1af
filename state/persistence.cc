#include "state/persistence.h"

#include <libpmem.h>

#include <algorithm>
#include <bit>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace flowkeep {

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

void Persistence::flush_lines(const void* address, size_t bytes) {
  pmem_flush(address, bytes);
}

void Persistence::drain() {
  pmem_drain();
}

}  // namespace flowkeep
