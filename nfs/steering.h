// Which packets must meet in the same worker: those with the same hash of the chain's steering
// scope, always computed from the inside host's side.
#pragma once

#include <cstdint>

#include "nfs/function.h"

namespace flowkeep {

// `inside`: the packet's flow key, as a packet from the inside has it. A chain that translates
// finds the bucket of IPv4 packets from the outside by their destination port's lease instead.
inline bool is_steered_by_lease(bool chain_translates, const FlowKey& key) {
  return chain_translates && key.side == Side::kOutside && key.family == Family::kIpv4;
}
inline uint64_t steering_hash(Scope scope, const FlowKey& inside, HashSecret secret) {
  switch (scope) {
    case Scope::kFlow:
    case Scope::kEndpoint:
      return hash_endpoint(inside.src, inside.src_port, inside.protocol, secret);
    case Scope::kHost:
    case Scope::kChain:
      return hash_endpoint(inside.src, Be16{}, 0, secret);
  }
  return 0;
}

}  // namespace flowkeep
