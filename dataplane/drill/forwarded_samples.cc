#include "dataplane/drill/forwarded_samples.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace flowkeep {
namespace {

constexpr int kFirstBin = -20;  // milliseconds from the failure
constexpr int kEndBin = 40;
constexpr double kShadowMs = 10;  // so long after another failure a bin shows that one
constexpr size_t kRunBins = 60;

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double median(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

void ForwardedSamples::add(uint64_t tsc, uint64_t forwarded) {
  samples_.push_back({tsc, forwarded});
}

double ForwardedSamples::recent_pps() {
  if (samples_.size() < reported_ + 2) return 0;
  const Sample& from = samples_[reported_];
  reported_ = samples_.size() - 1;
  return rate(static_cast<double>(from.tsc), static_cast<double>(samples_.back().tsc));
}

double ForwardedSamples::at(double tsc) const {
  const auto after = std::lower_bound(
      samples_.begin(), samples_.end(), tsc,
      [](const Sample& sample, double t) { return static_cast<double>(sample.tsc) < t; });
  if (after == samples_.end()) return -1;
  if (static_cast<double>(after->tsc) == tsc) return static_cast<double>(after->forwarded);
  if (after == samples_.begin()) return -1;
  const Sample& before = *(after - 1);
  const double share =
      (tsc - static_cast<double>(before.tsc)) / static_cast<double>(after->tsc - before.tsc);
  return static_cast<double>(before.forwarded) +
         share * static_cast<double>(after->forwarded - before.forwarded);
}

double ForwardedSamples::rate(double from_tsc, double until_tsc) const {
  const double from = at(from_tsc);
  const double until = at(until_tsc);
  return from < 0 || until < 0 ? -1 : (until - from) * tsc_hz_ / (until_tsc - from_tsc);
}

node::v1::DrillTimeline ForwardedSamples::timeline(const std::vector<uint64_t>& failures) const {
  node::v1::DrillTimeline timeline;
  const double ms = tsc_hz_ / 1000;
  timeline.set_bin_ms(1);
  timeline.set_first_ms(kFirstBin);
  for (int bin = kFirstBin; bin < kEndBin; ++bin) {
    std::vector<double> rates;
    for (size_t i = 0; i < failures.size(); ++i) {
      const double from = static_cast<double>(failures[i]) + bin * ms;
      // Another failure that falls into the bin or casts its shadow on it.
      const auto near = std::lower_bound(failures.begin(), failures.end(),
                                         static_cast<uint64_t>(from - kShadowMs * ms));
      const auto other =
          near - failures.begin() == static_cast<std::ptrdiff_t>(i) ? near + 1 : near;
      if (other != failures.end() && static_cast<double>(*other) < from + ms) continue;
      const double pps = rate(from, from + ms);
      if (pps >= 0) rates.push_back(pps);
    }
    timeline.add_mean_pps(rates.empty() ? -1 : mean(rates));
    timeline.add_failures(static_cast<uint32_t>(rates.size()));
    timeline.add_worst_pps(rates.empty() ? -1 : *std::min_element(rates.begin(), rates.end()));
    timeline.add_median_pps(rates.empty() ? -1 : median(rates));
  }
  add_run(timeline);
  return timeline;
}

void ForwardedSamples::add_run(node::v1::DrillTimeline& timeline) const {
  if (samples_.size() < 2) return;
  const double ms = tsc_hz_ / 1000;
  const auto begin = static_cast<double>(samples_.front().tsc);
  const double length_ms = (static_cast<double>(samples_.back().tsc) - begin) / ms;
  const double bin_ms = std::max(1.0, std::ceil(length_ms / static_cast<double>(kRunBins)));
  timeline.set_run_bin_ms(bin_ms);
  for (double from_ms = 0; from_ms + bin_ms <= length_ms; from_ms += bin_ms) {
    const double from = begin + from_ms * ms;
    double worst = rate(from, from + ms);
    for (double part = 1; part < bin_ms; ++part)
      worst = std::min(worst, rate(from + part * ms, from + (part + 1) * ms));
    timeline.add_run_pps(rate(from, from + bin_ms * ms));
    timeline.add_run_worst_pps(worst);
  }
}

}  // namespace flowkeep
