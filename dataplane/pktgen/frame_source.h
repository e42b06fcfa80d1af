// FrameSource: where the frames of a run come from, one after the other. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "dataplane/pktgen/flow_set.h"
#include "dataplane/pktgen/frame_builder.h"

namespace flowkeep::pktgen {

class FrameSource {
 public:
  virtual ~FrameSource() = default;
  // Writes the next frame (at most kLongestFrameBytes) and returns its length without FCS; 0: no
  // more.
  virtual size_t next(uint8_t* frame, uint64_t now_tsc) = 0;
  // The last `frames` frames were not sent: they come again (tagged anew).
  virtual void take_back(uint32_t frames) = 0;
  // Mean length of its frames, with FCS.
  virtual double mean_size_bytes() const = 0;
};

// Tagged frames, flow after flow, round and round.
class FlowSource : public FrameSource {
 public:
  FlowSource(FlowSet flows, const FrameBuilder& builder, uint16_t run);

  void set_phase(Phase phase) { phase_ = phase; }
  size_t next(uint8_t* frame, uint64_t now_tsc) override;
  void take_back(uint32_t frames) override;
  double mean_size_bytes() const override;

  // sent()[flow]: frames made and not taken back.
  std::span<const uint64_t> sent() const { return sent_; }

 private:
  FlowSet flows_;
  FrameBuilder builder_;
  uint16_t run_;
  Phase phase_ = Phase::kWarmup;
  uint32_t cursor_ = 0;
  std::vector<uint64_t> sent_;
};

}  // namespace flowkeep::pktgen
