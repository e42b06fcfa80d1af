// Forward: an external endpoint that belongs to an inside endpoint by configuration, whoever
// begins. Packets to it find their bucket by the inside endpoint, not by a lease of ports.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "state/flow_key.h"

namespace flowkeep {

struct Endpoint {
  Be32 address;
  Be16 port;  // ICMP echo: the identifier
  Be16 zero;
};
static_assert(sizeof(Endpoint) == 8);

struct Forward {
  uint8_t protocol = 0;
  uint8_t zero[3] = {};
  Endpoint external;
  Endpoint inside;
};
static_assert(sizeof(Forward) == 20);
inline constexpr size_t kMostForwards = 64;  // of a chain: few, so that a search does

// The one to which a packet from the outside goes; null: none.
inline const Forward* find_forward(std::span<const Forward> forwards, const FlowKey& outside) {
  for (const Forward& forward : forwards) {
    if (forward.external.port == outside.dst_port && forward.external.address == outside.dst &&
        forward.protocol == outside.protocol) {
      return &forward;
    }
  }
  return nullptr;
}

// The key of such a packet as the inside sees its flow.
inline FlowKey inside_key_of(const Forward& forward, const FlowKey& outside) {
  FlowKey inside = outside.reversed();
  inside.src = forward.inside.address;
  inside.src_port = forward.inside.port;
  return inside;
}

}  // namespace flowkeep
