// PersistenceRecording: every store, flush and fence of a run, in order, with the processor that
// did it, and the marks that the run leaves between them to say how far it has got.
//
// Several workers are recorded in one thread: act_as() says whose turn it is. That matters for
// fences, which order only what their own processor flushed.
//
// Thread rule: one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "state/persistence.h"

namespace flowkeep {

struct RecordedOperation {
  enum class Kind : uint8_t { kStore, kStoreLast, kFlush, kFence, kMark };
  Kind kind;
  uint8_t processor;
  uint32_t bytes;  // flush
  uint64_t at;     // store: byte offset of the word; flush: of the first byte
  uint64_t value;  // store: the whole word afterwards; mark: the run's own number
};

class PersistenceRecording : public PersistenceObserver {
 public:
  // `base`: start of the pool's mapping; offsets are relative to it.
  explicit PersistenceRecording(const std::byte* base) : base_(base) {}

  void act_as(uint8_t processor) { processor_ = processor; }
  void mark(uint64_t value);
  void clear() { operations_.clear(); }
  // What a processor flushed is durable once its process has left it for good: on the way out the
  // kernel executes locked instructions, which x86 orders after earlier flushes.
  void process_left_processor() { fencing(); }

  void storing(void* to, const void* from, size_t bytes) override;
  void storing_last(void* to, const void* from, size_t bytes) override;
  void flushing(const void* address, size_t bytes) override;
  void fencing() override;

  const std::vector<RecordedOperation>& operations() const { return operations_; }

 private:
  void add_store(RecordedOperation::Kind kind, void* to, const void* from, size_t bytes);

  const std::byte* const base_;
  uint8_t processor_ = 0;
  std::vector<RecordedOperation> operations_;
};

}  // namespace flowkeep
