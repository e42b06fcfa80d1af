// Timeouts from the message of an API that has them as fields of the same names; 0: the default.
#pragma once

#include "nfs/flow_phase.h"

namespace flowkeep {

template <typename Message>
Timeouts timeouts_of(const Message& message) {
  Timeouts timeouts;
  const auto set = [](uint32_t& field, uint32_t value) {
    if (value != 0) field = value;
  };
  set(timeouts.tcp_opening_s, message.tcp_opening_s());
  set(timeouts.tcp_established_s, message.tcp_established_s());
  set(timeouts.tcp_closing_s, message.tcp_closing_s());
  set(timeouts.tcp_closed_s, message.tcp_closed_s());
  set(timeouts.udp_opening_s, message.udp_opening_s());
  set(timeouts.udp_s, message.udp_s());
  set(timeouts.icmp_s, message.icmp_s());
  set(timeouts.other_s, message.other_s());
  return timeouts;
}

}  // namespace flowkeep
