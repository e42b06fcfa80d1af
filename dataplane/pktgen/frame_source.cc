#include "dataplane/pktgen/frame_source.h"

#include <cassert>

namespace flowkeep::pktgen {

FlowSource::FlowSource(FlowSet flows, const FrameBuilder& builder, uint16_t run)
    : flows_(std::move(flows)), builder_(builder), run_(run), sent_(flows_.size()) {}

size_t FlowSource::next(uint8_t* frame, uint64_t now_tsc) {
  const uint32_t flow = cursor_;
  builder_.build(
      frame, flows_[flow],
      ProbeTag{run_, phase_, flow, static_cast<uint32_t>(sent_[flow]), now_tsc & kTscMask});
  ++sent_[flow];
  cursor_ = flow + 1 == flows_.size() ? 0 : flow + 1;
  return builder_.frame_bytes();
}

void FlowSource::take_back(uint32_t frames) {
  for (; frames > 0; --frames) {
    cursor_ = cursor_ == 0 ? flows_.size() - 1 : cursor_ - 1;
    assert(sent_[cursor_] > 0);
    --sent_[cursor_];
  }
}

double FlowSource::mean_size_bytes() const {
  return static_cast<double>(builder_.frame_bytes() + kFcsBytes);
}

}  // namespace flowkeep::pktgen
