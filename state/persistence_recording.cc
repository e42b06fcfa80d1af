#include "state/persistence_recording.h"

#include <cassert>
#include <cstring>

namespace flowkeep {

void PersistenceRecording::mark(uint64_t value) {
  operations_.push_back({RecordedOperation::Kind::kMark, processor_, 0, 0, value});
}

void PersistenceRecording::add_store(RecordedOperation::Kind kind, void* to, const void* from,
                                     size_t bytes) {
  const auto at = static_cast<uint64_t>(static_cast<std::byte*>(to) - base_);
  const uint64_t in_word = at % sizeof(uint64_t);
  assert(in_word + bytes <= sizeof(uint64_t));
  uint64_t word = 0;
  std::memcpy(&word, static_cast<std::byte*>(to) - in_word, sizeof(word));
  std::memcpy(reinterpret_cast<std::byte*>(&word) + in_word, from, bytes);
  operations_.push_back({kind, processor_, 0, at - in_word, word});
}

void PersistenceRecording::storing(void* to, const void* from, size_t bytes) {
  add_store(RecordedOperation::Kind::kStore, to, from, bytes);
}

void PersistenceRecording::storing_last(void* to, const void* from, size_t bytes) {
  add_store(RecordedOperation::Kind::kStoreLast, to, from, bytes);
}

void PersistenceRecording::flushing(const void* address, size_t bytes) {
  if (bytes == 0) return;
  const auto at = static_cast<uint64_t>(static_cast<const std::byte*>(address) - base_);
  operations_.push_back(
      {RecordedOperation::Kind::kFlush, processor_, static_cast<uint32_t>(bytes), at, 0});
}

void PersistenceRecording::fencing() {
  operations_.push_back({RecordedOperation::Kind::kFence, processor_, 0, 0, 0});
}

}  // namespace flowkeep
