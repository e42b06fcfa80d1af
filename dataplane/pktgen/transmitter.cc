#include "dataplane/pktgen/transmitter.h"

#include <rte_cycles.h>
#include <rte_mbuf.h>
#include <sched.h>

#include <algorithm>

namespace flowkeep::pktgen {

Transmitter::Transmitter(EthernetDevice& device, rte_mempool* pool, FrameSource& source,
                         uint64_t ticks_per_s, uint64_t gap_limit_ticks)
    : device_(device),
      pool_(pool),
      source_(source),
      ticks_per_s_(static_cast<double>(ticks_per_s)),
      gap_limit_ticks_(gap_limit_ticks),
      pacer_(1, ticks_per_s_, 0),
      gaps_(gap_limit_ticks) {}

Transmitter::~Transmitter() {
  give_up();
}

void Transmitter::begin(double rate_pps, uint64_t most, bool patient, uint64_t now_tsc) {
  pacer_ = Pacer(rate_pps, ticks_per_s_, now_tsc);
  gaps_ = GapMeter(gap_limit_ticks_);
  patient_ = patient;
  finishing_ = false;
  remaining_ = most;
  sent_ = sent_bytes_ = not_sent_ = stalled_ = 0;
}

bool Transmitter::step(uint64_t now_tsc) {
  if (offered_ == count_) {
    count_ = make_burst(now_tsc);
    offered_ = 0;
    if (count_ == 0) return false;
  }
  const uint16_t before = offered_;
  offer(now_tsc);
  return offered_ != before;
}

uint16_t Transmitter::make_burst(uint64_t now_tsc) {
  if (remaining_ == 0 || source_dry_) return 0;
  const auto most = static_cast<uint32_t>(std::min<uint64_t>(kBurst, remaining_));
  const auto wanted = static_cast<uint16_t>(pacer_.take(now_tsc, most));
  if (wanted == 0) return 0;
  if (rte_pktmbuf_alloc_bulk(pool_, burst_.data(), wanted) != 0) {
    not_sent_ += patient_ ? 0 : wanted;
    return 0;
  }
  uint16_t made = 0;
  for (; made < wanted; ++made) {
    rte_mbuf* packet = burst_[made];
    const size_t bytes = source_.next(rte_pktmbuf_mtod(packet, uint8_t*), now_tsc);
    if (bytes == 0) {
      source_dry_ = true;
      rte_pktmbuf_free_bulk(burst_.data() + made, wanted - made);
      break;
    }
    packet->data_len = static_cast<uint16_t>(bytes);
    packet->pkt_len = static_cast<uint32_t>(bytes);
  }
  remaining_ -= made;
  stalled_since_ = 0;
  return made;
}

void Transmitter::offer(uint64_t now_tsc) {
  std::array<uint16_t, kBurst> bytes;
  const auto left = static_cast<uint16_t>(count_ - offered_);
  // A packet that the device has taken is no longer ours to look at.
  for (uint16_t index = 0; index < left; ++index) bytes[index] = burst_[offered_ + index]->data_len;
  const uint16_t taken = device_.transmit(burst_.data() + offered_, left);
  for (uint16_t index = 0; index < taken; ++index) sent_bytes_ += bytes[index] + kFcsBytes;
  sent_ += taken;
  offered_ = static_cast<uint16_t>(offered_ + taken);
  if (taken > 0) gaps_.on_event(now_tsc);
  if (offered_ == count_) return;
  const bool gives_up = !patient_ || finishing_;
  if (stalled_since_ == 0) {
    ++stalled_;
    stalled_since_ = now_tsc;
  } else if (taken > 0) {
    stalled_since_ = now_tsc;
  } else if (gives_up &&
             static_cast<double>(now_tsc - stalled_since_) > kLongestStallS * ticks_per_s_) {
    give_up();
  }
}

void Transmitter::give_up() {
  const auto left = static_cast<uint16_t>(count_ - offered_);
  if (left == 0) return;
  rte_pktmbuf_free_bulk(burst_.data() + offered_, left);
  source_.take_back(left);
  not_sent_ += left;
  count_ = offered_ = 0;
}

void Transmitter::finish() {
  remaining_ = 0;
  finishing_ = true;
  while (offered_ != count_) {
    offer(rte_rdtsc());
    if (offered_ != count_) sched_yield();
  }
}

}  // namespace flowkeep::pktgen
