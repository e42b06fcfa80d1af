// nat44: source NAT for IPv4 (RFC 3022, 4787, 5382, 5508).
//
// An external port is free for a flow exactly when the key that the flow would have outside is
// unclaimed: the flow table is the allocator. Ports come in blocks of 64 that buckets lease, so
// that a packet from the outside finds its bucket by its destination port alone.
//
// The first port tried depends on the inside endpoint only, so an endpoint keeps one external
// endpoint towards all remote hosts (endpoint-independent mapping, RFC 4787 REQ-1) unless another
// endpoint already uses it towards that very remote endpoint. Addresses are paired with inside
// hosts (REQ-2) as long as the address has blocks, and the port's parity is kept if possible
// (REQ-4). A packet from the outside passes only as part of a flow (address- and port-dependent
// filtering). Not done: hairpinning (REQ-9), port forwarding.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "nfs/function.h"
#include "nfs/nat44/nat44.pb.h"
#include "nfs/nat44/port_blocks.h"
#include "nfs/nat44/rewrite.h"

namespace flowkeep {

class Nat44 {
 public:
  using Config = nfs::Nat44Config;
  static constexpr std::string_view kType = "nat44";
  static constexpr Scope kScope = Scope::kEndpoint;
  static constexpr bool kMapsEndpoints = true;
  struct Hard {
    Endpoint external;  // losing it breaks open connections
  };
  static_assert(sizeof(Hard) == 8);
  struct Soft {
    PortBlocks blocks;
  };

  static Result<Nat44> create(const Config& config, const FunctionContext& context);
  Soft make_soft() const;
  Decision open(NewFlow<Nat44>& flow, Soft& soft) const;
  void process(Burst<Nat44>& burst, Soft& soft) const;
  bool still_allowed(const FlowKey& inside, Side initiator, const Hard& hard, Soft& soft) const;
  FlowKey outside_key(const FlowKey& inside, const Hard& hard) const;
  std::span<const Be32> external_addresses() const { return addresses_; }

 private:
  Nat44(std::vector<Be32> addresses, BlockRange range);
  Be16 port_on_address(NewFlow<Nat44>& flow, Soft& soft, uint32_t address, uint64_t hash) const;
  Be16 port_in_block(const NewFlow<Nat44>& flow, uint32_t address, uint16_t block, uint64_t hash,
                     uint32_t probes) const;

  std::vector<Be32> addresses_;
  BlockRange range_;
};

}  // namespace flowkeep
