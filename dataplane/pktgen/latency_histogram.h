// LatencyHistogram: counts of values in buckets of a fixed relative width (each power of two is cut
// into kSteps), so that a quantile is at most 1/kSteps (1.6 %) too high. Any 64-bit value; no
// allocation.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace flowkeep::pktgen {

class LatencyHistogram {
 public:
  static constexpr unsigned kStepBits = 6;
  static constexpr uint64_t kSteps = uint64_t{1} << kStepBits;

  void record(uint64_t value) {
    ++counts_[bucket_of(value)];
    ++total_;
    if (value < smallest_) smallest_ = value;
    if (value > largest_) largest_ = value;
  }

  uint64_t total() const { return total_; }
  uint64_t smallest() const { return total_ == 0 ? 0 : smallest_; }
  uint64_t largest() const { return largest_; }

  // The highest value of the bucket that holds the value of rank ceil(fraction * total), but no
  // more than largest(). 0 when empty.
  uint64_t quantile(double fraction) const;

  static constexpr size_t bucket_of(uint64_t value) {
    if (value < kSteps) return static_cast<size_t>(value);
    const unsigned shift = static_cast<unsigned>(std::bit_width(value)) - kStepBits - 1;
    return static_cast<size_t>((uint64_t{shift} << kStepBits) + (value >> shift));
  }
  static constexpr uint64_t highest_of(size_t bucket) {
    if (bucket < kSteps) return bucket;
    const size_t shift = (bucket >> kStepBits) - 1;
    const uint64_t step = (bucket & (kSteps - 1)) + kSteps;
    return (step << shift) + ((uint64_t{1} << shift) - 1);
  }

 private:
  static constexpr size_t kBuckets = (64 - kStepBits + 1) << kStepBits;
  std::array<uint64_t, kBuckets> counts_{};
  uint64_t total_ = 0;
  uint64_t smallest_ = UINT64_MAX;
  uint64_t largest_ = 0;
};

}  // namespace flowkeep::pktgen
