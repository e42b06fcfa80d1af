#include "dataplane/pktgen/latency_histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace flowkeep::pktgen {
namespace {

TEST(LatencyHistogram, EmptyIsZero) {
  const LatencyHistogram histogram;
  EXPECT_EQ(histogram.total(), 0u);
  EXPECT_EQ(histogram.smallest(), 0u);
  EXPECT_EQ(histogram.quantile(0.5), 0u);
}

TEST(LatencyHistogram, BucketsAreContiguousAndHoldTheirHighestValue) {
  for (size_t bucket = 0; bucket < 3000; ++bucket) {
    const uint64_t highest = LatencyHistogram::highest_of(bucket);
    EXPECT_EQ(LatencyHistogram::bucket_of(highest), bucket);
    EXPECT_EQ(LatencyHistogram::bucket_of(highest + 1), bucket + 1);
  }
}

TEST(LatencyHistogram, TakesTheLargestValueThereIs) {
  LatencyHistogram histogram;
  histogram.record(UINT64_MAX);
  histogram.record(0);
  EXPECT_EQ(histogram.smallest(), 0u);
  EXPECT_EQ(histogram.quantile(0.5), 0u);
  EXPECT_EQ(histogram.quantile(1.0), UINT64_MAX);
}

TEST(LatencyHistogram, SmallValuesAreExact) {
  LatencyHistogram histogram;
  for (uint64_t value = 1; value <= 100; ++value) histogram.record(value);
  EXPECT_EQ(histogram.quantile(0.0), 1u);
  EXPECT_EQ(histogram.quantile(0.5), 50u);
  EXPECT_EQ(histogram.quantile(0.9), 90u);
  EXPECT_EQ(histogram.quantile(1.0), 100u);
}

TEST(LatencyHistogram, QuantilesOfRandomValuesAreWithinTheError) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  LatencyHistogram histogram;
  std::vector<uint64_t> values;
  for (int count = 0; count < 50'000; ++count) {
    values.push_back(random() >> (random() % 60));
    histogram.record(values.back());
  }
  std::sort(values.begin(), values.end());
  for (const double fraction : {0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0}) {
    const auto rank = static_cast<size_t>(std::ceil(fraction * 50'000));
    const uint64_t exact = values[rank - 1];
    const uint64_t reported = histogram.quantile(fraction);
    EXPECT_GE(reported, exact);
    EXPECT_LE(reported - exact, exact / LatencyHistogram::kSteps) << fraction;
  }
}

}  // namespace
}  // namespace flowkeep::pktgen
