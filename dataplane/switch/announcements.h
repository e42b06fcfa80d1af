// Announcements: when a port tells its link which addresses are its own, so that neighbours which
// knew them elsewhere (at the node that failed, say) learn the new place at once: whenever the link
// comes up and whenever an address is added; twice, two seconds apart (RFC 5227 section 2.3, for
// gratuitous ARP; RFC 4861 section 7.2.6, for unsolicited neighbour advertisements).
//
// Pure. Thread rule: the switch's I/O thread only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "state/flow_key.h"

namespace flowkeep {

inline constexpr uint32_t kAnnouncements = 2;
inline constexpr uint64_t kAnnouncementIntervalMs = 2000;

class Announcements {
 public:
  // Asked now and then; true: announce all of them now.
  bool due(bool link_up, std::span<const Be32> addresses, uint64_t now_ms) {
    const bool came_up = link_up && !link_was_up_;
    const bool added = std::ranges::any_of(addresses, [this](Be32 address) {
      return std::ranges::find(known_, address) == known_.end();
    });
    link_was_up_ = link_up;
    known_.assign(addresses.begin(), addresses.end());
    if (came_up || added) {
      left_ = kAnnouncements;
      next_ms_ = now_ms;
    }
    if (!link_up || left_ == 0 || now_ms < next_ms_) return false;
    --left_;
    next_ms_ = now_ms + kAnnouncementIntervalMs;
    return true;
  }

 private:
  bool link_was_up_ = false;
  std::vector<Be32> known_;
  uint32_t left_ = 0;
  uint64_t next_ms_ = 0;
};

}  // namespace flowkeep
