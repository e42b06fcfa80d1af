// Persistence: the only way to write to the state pool. On persistent memory (or with emulation)
// flush() and fence() are libpmem's cache-line write-back and store fence; on other media a store
// is as durable as it will get once it is executed, and both only keep the compiler from
// reordering.
//
// Ordering that callers may rely on: after a process's death every store that it executed is seen,
// in program order; after a power failure only what was flushed before a completed fence() of the
// same processor is certain, and of the rest any 8-byte word may be there or not, in any order,
// with any of the values that it had since it was last certain. One exception: a word stored with
// store64_last() is not there without what was stored to its 64-byte line before it.
//
// Thread rule: none of its own; a word has one writer, or is changed with compare_and_swap().
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__CLWB__)
#include <immintrin.h>
#endif

namespace flowkeep {

// Sees every operation before it happens, stores in units of at most 8 aligned bytes. Tests and the
// crash simulator derive from it: they note what a power cut may lose, or throw where a process
// dies.
class PersistenceObserver {
 public:
  virtual ~PersistenceObserver() = default;
  virtual void storing(void* to, const void* from, size_t bytes) = 0;
  virtual void storing_last(void* to, const void* from, size_t bytes) { storing(to, from, bytes); }
  virtual void flushing(const void* address, size_t bytes) = 0;
  virtual void fencing() = 0;
  // The process that calls is this one, from now on; a process runs no more. For observers that are
  // shared by forked processes, which have numbers of their own.
  virtual void used_by(uint32_t) {}
  virtual void process_ended(uint32_t) {}
};

// Time that a slower medium would take, spent in a busy loop; to study one where there is none.
struct InjectedDelay {
  uint32_t fence_ns = 0;  // for each fence
  uint32_t line_ns = 0;   // for each line flushed, or stored around the cache
  bool any() const { return fence_ns != 0 || line_ns != 0; }
  friend bool operator==(const InjectedDelay&, const InjectedDelay&) = default;
};

class Persistence {
 public:
  // `flushes`: run the cache-line flushes and fences. The delay goes with them: without, there is
  // none.
  explicit Persistence(bool flushes, InjectedDelay delay = {});
  Persistence(const Persistence&) = delete;
  Persistence& operator=(const Persistence&) = delete;

  // False: flush() does nothing.
  bool needs_flushes() const { return flushes_ || observer_ != nullptr; }
  // Null: none. Not on the packet path of a running node.
  void observe(PersistenceObserver* observer) { observer_ = observer; }
  PersistenceObserver* observer() const { return observer_; }
  void used_by(uint32_t process) {
    if (observer_ != nullptr) observer_->used_by(process);
  }
  void process_ended(uint32_t process) {
    if (observer_ != nullptr) observer_->process_ended(process);
  }

  // Words are stored in ascending order, each whole.
  void store(void* to, const void* from, size_t bytes) {
    if (observer_ != nullptr) [[unlikely]]
      return observed_store(to, from, bytes);
    std::memcpy(to, from, bytes);
  }
  // The words of one 64-byte line that `mask` names (bit i: word i).
  void store_line(void* to, const void* from, uint8_t mask);
  void store64(void* to, uint64_t value) {
    if (observer_ != nullptr) [[unlikely]]
      observer_->storing(to, &value, sizeof(value));
    std::atomic_ref<uint64_t>(*static_cast<uint64_t*>(to)).store(value, std::memory_order_release);
  }
  // Durable no earlier than the store64()s to the same line before it: x86 keeps the order of
  // ordinary stores to one line, because it is written back whole. Not after nontemporal(), zero()
  // or store(), whose stores have no order of their own.
  void store64_last(void* to, uint64_t value) {
    if (observer_ != nullptr) [[unlikely]]
      observer_->storing_last(to, &value, sizeof(value));
    std::atomic_ref<uint64_t>(*static_cast<uint64_t*>(to)).store(value, std::memory_order_release);
  }
  void store32(void* to, uint32_t value) {
    if (observer_ != nullptr) [[unlikely]]
      observer_->storing(to, &value, sizeof(value));
    std::atomic_ref<uint32_t>(*static_cast<uint32_t*>(to)).store(value, std::memory_order_release);
  }
  template <typename Word>
  bool compare_and_swap(Word* word, Word expected, Word desired) {
    if (observer_ != nullptr) [[unlikely]] {
      if (*word == expected) observer_->storing(word, &desired, sizeof(desired));
    }
    return std::atomic_ref<Word>(*word).compare_exchange_strong(expected, desired);
  }
  // For bytes that will not be read again soon: around the cache where that saves the flush.
  // `to` is 64-byte aligned. Durable after the next fence().
  void nontemporal(void* to, const void* from, size_t bytes);
  void zero(void* to, size_t bytes);

  void flush(const void* address, size_t bytes) {
    if (observer_ != nullptr) [[unlikely]]
      observer_->flushing(address, bytes);
    if (flushes_) {
#if defined(__CLWB__)
      if (writes_back_) [[likely]]
        return write_back(address, bytes);
#endif
      flush_lines(address, bytes);
    }
  }
  void fence() {
    if (observer_ != nullptr) [[unlikely]]
      observer_->fencing();
    if (flushes_) drain();
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }

 private:
  void observed_store(void* to, const void* from, size_t bytes);
#if defined(__CLWB__)
  // What libpmem's flush does, without the call.
  static void write_back(const void* address, size_t bytes) {
    const auto end = reinterpret_cast<uintptr_t>(address) + bytes;
    for (uintptr_t at = reinterpret_cast<uintptr_t>(address) & ~uintptr_t{63}; at < end; at += 64) {
      _mm_clwb(reinterpret_cast<void*>(at));
    }
  }
#endif
  void flush_lines(const void* address, size_t bytes) const;
  void drain() const;
  void delay_lines(const void* address, size_t bytes) const;

  const bool flushes_;
  const bool delayed_;
  const bool writes_back_;  // a flush is a clwb, no more: no delay, and the caches are volatile
  uint64_t fence_delay_cycles_ = 0;  // of the time-stamp counter
  uint64_t line_delay_cycles_ = 0;
  PersistenceObserver* observer_ = nullptr;
};

}  // namespace flowkeep
