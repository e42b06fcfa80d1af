// Transmitter: hands a source's frames to a device at the pacer's rate. Never waits: a burst that
// the device does not take at once is offered again at each step. A patient series goes on until it
// is taken; another one gives the rest of the burst back to the source after kLongestStallS, and
// counts it as not sent.
//
// Thread rule: one thread, the device's.
#pragma once

#include <array>
#include <cstdint>

#include "dataplane/pktgen/ethernet_device.h"
#include "dataplane/pktgen/frame_source.h"
#include "dataplane/pktgen/gap_meter.h"
#include "dataplane/pktgen/pacer.h"

namespace flowkeep::pktgen {

class Transmitter {
 public:
  static constexpr double kLongestStallS = 0.1;

  Transmitter(EthernetDevice& device, rte_mempool* pool, FrameSource& source, uint64_t ticks_per_s,
              uint64_t gap_limit_ticks);
  ~Transmitter();
  Transmitter(const Transmitter&) = delete;
  Transmitter& operator=(const Transmitter&) = delete;

  // Starts a series of at most `most` frames. A patient one waits for a slow device without limit.
  void begin(double rate_pps, uint64_t most, bool patient, uint64_t now_tsc);
  // Sends what is due. Returns whether it did anything.
  bool step(uint64_t now_tsc);
  // Ends the series: offers what is left of the last burst until it is taken or the stall limit is
  // over.
  void finish();

  // The series is complete, or the source has no more.
  bool exhausted() const { return offered_ == count_ && (remaining_ == 0 || source_dry_); }
  uint64_t ticks_to_next(uint64_t now_tsc) const { return pacer_.ticks_to_next(now_tsc); }

  // Late packets wait for their turn, not for the device.
  bool catching_up(uint64_t now_tsc) const { return offered_ == count_ && pacer_.behind(now_tsc); }

  // Of the series that began last.
  uint64_t sent() const { return sent_; }
  uint64_t sent_bytes() const { return sent_bytes_; }  // with FCS
  uint64_t not_sent() const { return not_sent_ + (patient_ ? 0 : pacer_.given_up()); }
  uint64_t stalled() const { return stalled_; }  // bursts that the device did not take at once
  const GapMeter& gaps() const { return gaps_; }

 private:
  uint16_t make_burst(uint64_t now_tsc);
  void offer(uint64_t now_tsc);
  void give_up();

  EthernetDevice& device_;
  rte_mempool* pool_;
  FrameSource& source_;
  double ticks_per_s_;
  uint64_t gap_limit_ticks_;
  Pacer pacer_;
  GapMeter gaps_;
  bool patient_ = false;
  bool finishing_ = false;
  bool source_dry_ = false;
  std::array<rte_mbuf*, kBurst> burst_{};
  uint16_t count_ = 0;    // frames in burst_
  uint16_t offered_ = 0;  // of which the device has taken these
  uint64_t stalled_since_ = 0;
  uint64_t remaining_ = 0;
  uint64_t sent_ = 0, sent_bytes_ = 0, not_sent_ = 0, stalled_ = 0;
};

}  // namespace flowkeep::pktgen
