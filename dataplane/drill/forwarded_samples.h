// ForwardedSamples: how many packets had been forwarded at moments about a millisecond apart, and
// the rates in bins of a millisecond that follow from it: around failures and over the whole run.
// The counters are the switch's own; reading them costs the packet path nothing.
#pragma once

#include <cstdint>
#include <vector>

#include "dataplane/agent.pb.h"

namespace flowkeep {

class ForwardedSamples {
 public:
  explicit ForwardedSamples(uint64_t tsc_hz) : tsc_hz_(static_cast<double>(tsc_hz)) {}

  void add(uint64_t tsc, uint64_t forwarded);
  // Since the sample that was the last at the previous call.
  double recent_pps();
  // `failures_tsc`: ascending.
  node::v1::DrillTimeline timeline(const std::vector<uint64_t>& failures_tsc) const;

 private:
  struct Sample {
    uint64_t tsc;
    uint64_t forwarded;
  };
  // Packets forwarded until then, between samples by interpolation. Outside of the samples: -1.
  double at(double tsc) const;
  double rate(double from_tsc, double until_tsc) const;  // packets/s; -1: not sampled
  void add_run(node::v1::DrillTimeline& timeline) const;

  double tsc_hz_;
  std::vector<Sample> samples_;
  size_t reported_ = 0;
};

}  // namespace flowkeep
