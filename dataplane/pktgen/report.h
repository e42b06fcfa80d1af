// Report: what a run measured, as JSON and as a table. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "dataplane/pktgen/latency_histogram.h"

namespace flowkeep::pktgen {

struct LatencyReport {
  uint64_t packets = 0;
  double min_us = 0, p50_us = 0, p90_us = 0, p99_us = 0, p999_us = 0, max_us = 0;

  static LatencyReport of(const LatencyHistogram& ticks, double ticks_per_us);
};

// One direction's packets. lost, duplicated and reordered include the warm-up.
struct PathReport {
  uint64_t sent = 0;
  uint64_t received = 0;  // duplicates too
  uint64_t lost = 0;
  uint64_t lost_flows = 0;
  uint64_t duplicated = 0;
  uint64_t reordered = 0;
  uint64_t too_late = 0;
  uint64_t mapping_changes = 0;
  LatencyReport latency;

  bool lossless() const;
};

struct Report {
  std::string profile;
  std::string rate;
  std::string tx_device, rx_device;
  uint32_t flows = 0;
  double size_bytes = 0;  // mean, with FCS
  bool tagged = true;
  bool interrupted = false;
  bool hugepages = false;
  double duration_s = 0;  // of sending, without warm-up

  PathReport path;
  std::optional<PathReport> echo;  // the way back
  uint64_t echo_not_sent = 0;
  uint64_t warmup_packets = 0;
  uint64_t not_sent = 0;
  uint64_t tx_stalled = 0;
  uint64_t foreign = 0;
  uint64_t bad_checksum = 0;
  uint64_t flows_seen = 0;
  uint64_t distinct_sources = 0;
  double tx_pps = 0, rx_pps = 0;  // without warm-up
  double throughput_gbps = 0;     // received, frames with FCS
  double longest_gap_ms = 0;
  double longest_tx_gap_ms = 0;
  uint32_t gap_limit_ms = 0;
  uint64_t gaps = 0;  // longer than gap_limit_ms

  bool lossless() const;  // both ways, and no packet was damaged
};

std::string to_json(const Report& report);
std::string to_table(const Report& report);

}  // namespace flowkeep::pktgen
