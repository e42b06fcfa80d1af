// FunctionEvent: something that a function tells the users about one packet: a rule with a log
// matched, a block of ports was assigned. Its name is that of one of the chain's counters.
//
// Events of a burst are staged while it runs and become readable with its commit, once each,
// whatever dies (dataplane/event_ring.h). They never block: beyond kBurstEvents they are counted.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "nfs/packet.h"

namespace flowkeep {

struct FunctionEvent {
  FlowKey key;              // of the packet, as it came
  uint32_t at_s = 0;        // Unix time
  uint16_t counter = 0;     // number of the chain's counter that gives it its name
  uint16_t revision = 0;    // low bits, for the number of the counter; set by the worker
  uint64_t values[5] = {};  // what the function has to say beside
};
static_assert(sizeof(FunctionEvent) == 64);

inline constexpr size_t kBurstEvents = 128;

class EventStage {
 public:
  void add(const FunctionEvent& event) {
    if (count_ == events_.size()) {
      ++lost_;
      return;
    }
    events_[count_++] = event;
  }
  void add(uint16_t counter, uint32_t now_s, const Packet& packet) {
    FunctionEvent event;
    event.key = packet.meta->key;
    event.at_s = now_s;
    event.counter = counter;
    add(event);
  }
  std::span<const FunctionEvent> all() const { return std::span(events_).first(count_); }
  uint64_t lost() const { return lost_; }
  void clear() { count_ = 0, lost_ = 0; }

 private:
  std::array<FunctionEvent, kBurstEvents> events_;
  size_t count_ = 0;
  uint64_t lost_ = 0;
};

}  // namespace flowkeep
