// Subscribers: what nat44 keeps of each inside host (RFC 6888): how many mappings it has, and which
// blocks of ports are its own.
//
// A block is assigned when the host's ports do not suffice, up to the configured number, and given
// back with the last mapping in it. It is known by two names: the host's n-th block, and the
// external address with the block's place there.
//
// Thread rule: immutable; the state is a bucket's.
#pragma once

#include <cstdint>
#include <optional>

#include "nfs/keyed_state.h"
#include "nfs/nat44/port_choice.h"
#include "nfs/nat44/settings.h"

namespace flowkeep {

// nat44's counters: packets that made a mapping, that were given a new block, and that were
// refused; blocks that were given back are events alone.
enum Nat44Counter : uint8_t {
  kMappingsCounter,
  kBlocksAssignedCounter,
  kBlocksReleasedCounter,
  kHostLimitCounter,
  kPortsExhaustedCounter,
  kFilteredCounter,
};

enum class MappingRefusal : uint8_t { kNone, kHostLimit, kPortsExhausted, kPoolFull };

class Subscribers {
 public:
  struct Host {
    uint32_t mappings = 0;
    uint32_t blocks = 0;  // bit n: it has an n-th block
  };
  struct Block {
    uint32_t mappings = 0;
    uint32_t ordinal = 0;  // of the host's blocks
    Be32 host;
    PortUnits units;
    uint32_t assigned_s = 0;  // Unix time, seconds
  };
  // Kinds of nat44's keyed state.
  static constexpr uint8_t kHostKind = 0, kBlockKind = 1, kContactKind = 2;

  explicit Subscribers(const Nat44Settings& settings) : settings_(settings) {}

  // Chooses the external endpoint of a new mapping and counts it.
  struct Given {
    MappingRefusal refused = MappingRefusal::kNone;
    Endpoint external{};
  };
  Given give(AnyNewFlow& flow) const;
  // The mapping has ended. A block that ends with it is the result.
  std::optional<Block> take_back(KeyedState state, const FlowKey& inside,
                                 const Endpoint& external) const;
  // What a log says of a block: its host, and the external address with its first port.
  FlowKey event_key(const Block& block) const;

  static std::optional<Host> host(const KeyedState& state, Be32 address);
  // The block that the unit lies in.
  std::optional<Block> block_of(const KeyedState& state, uint32_t address, uint32_t unit) const;

 private:
  std::optional<Endpoint> choose(AnyNewFlow& flow, Host& host) const;
  std::optional<Endpoint> from_blocks(AnyNewFlow& flow, Host& host) const;
  std::optional<Block> assign(AnyNewFlow& flow, uint32_t ordinal) const;
  bool take_units(AnyNewFlow& flow, const PortUnits& units) const;
  PortUnits block_units(uint32_t address, uint32_t place) const;
  StateKey block_name(const PortUnits& units) const;
  static StateKey host_key(Be32 address) { return {.kind = kHostKind, .address = address}; }
  static StateKey block_key(Be32 host, uint32_t ordinal) {
    return {.kind = kBlockKind,
            .address = host,
            .port = Be16::from_host(static_cast<uint16_t>(ordinal))};
  }

  const Nat44Settings& settings_;
};

}  // namespace flowkeep
