#include "dataplane/pktgen/latency_histogram.h"

#include <algorithm>
#include <cmath>

namespace flowkeep::pktgen {

uint64_t LatencyHistogram::quantile(double fraction) const {
  if (total_ == 0) return 0;
  const double wanted = std::ceil(fraction * static_cast<double>(total_));
  const uint64_t rank = std::clamp<uint64_t>(static_cast<uint64_t>(wanted), 1, total_);
  uint64_t seen = 0;
  for (size_t bucket = 0; bucket < kBuckets; ++bucket) {
    seen += counts_[bucket];
    if (seen >= rank) return std::min(highest_of(bucket), largest_);
  }
  return largest_;
}

}  // namespace flowkeep::pktgen
