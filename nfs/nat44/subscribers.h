// Subscribers: what nat44 keeps of each inside host (RFC 6888): how many mappings it has, and which
// blocks of ports are its own.
//
// A block is assigned when the host's ports do not suffice, up to the configured number, and given
// back with the last mapping in it. It is known by two names: the host's n-th block, and its first
// external endpoint.
//
// What was counted for a mapping is kept with the mapping (Account), and a block keeps what it
// consists of: configurations come and go while mappings last, and an end must take back what its
// begin has counted, no more and no less. Ports are given from blocks of today's size and place
// alone.
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

// What was counted for a mapping.
enum class Account : uint8_t { kNone, kHost, kHostAndBlock };

enum class MappingRefusal : uint8_t { kNone, kHostLimit, kPortsExhausted, kPoolFull };

class Subscribers {
 public:
  struct Host {
    uint32_t mappings = 0;
    uint32_t blocks = 0;  // bit n: it has an n-th block, of this configuration or another
  };
  struct Block {
    uint32_t mappings = 0;
    uint32_t ordinal = 0;  // of the host's blocks
    Be32 host;
    PortUnits units;
    uint32_t assigned_s = 0;  // Unix time, seconds
    Be32 external;

    bool contains(const Endpoint& endpoint) const {
      return endpoint.address == external && units.contains(units.address, unit_of(endpoint.port));
    }
  };
  static_assert(sizeof(Block) == 32);
  // Kinds of nat44's keyed state.
  static constexpr uint8_t kHostKind = 0, kBlockKind = 1, kContactKind = 2;

  explicit Subscribers(const Nat44Settings& settings) : settings_(settings) {}

  // Chooses the external endpoint of a new mapping and counts it; refused, nothing is counted.
  struct Given {
    MappingRefusal refused = MappingRefusal::kNone;
    Endpoint external{};
    Account account = Account::kNone;
  };
  Given give(AnyNewFlow& flow) const;
  // The mapping has ended, for which `account` was counted, if by another configuration. A block
  // that ends with it is the result.
  static std::optional<Block> take_back(KeyedState state, Be32 host, const Endpoint& external,
                                        Account account);
  // What a log says of a block: its host, and the external address with its first port.
  static FlowKey event_key(const Block& block);

  static std::optional<Host> host(const KeyedState& state, Be32 address);
  // Does the endpoint lie in a block of the host, and one that this configuration would assign?
  bool lies_in_block(const KeyedState& state, Be32 host, const Endpoint& external) const;
  // The block of this configuration that the unit lies in.
  std::optional<Block> block_of(const KeyedState& state, uint32_t address, uint32_t unit) const;

 private:
  Given from_ports(AnyNewFlow& flow) const;
  Given from_blocks(AnyNewFlow& flow, Host& host) const;
  Given count_in(AnyNewFlow& flow, Host& host, Block& block, const Endpoint& external) const;
  static void leave_block(KeyedState& state, Block& block);
  std::optional<Block> assign(AnyNewFlow& flow, uint32_t ordinal) const;
  bool take_units(AnyNewFlow& flow, const PortUnits& units) const;
  bool is_of_plan(const Block& block) const;
  uint32_t places() const { return settings_.range.count / settings_.blocks->units; }
  PortUnits block_units(uint32_t address, uint32_t place) const;
  static std::optional<Block> find_block(const KeyedState& state, const Host& host, Be32 address,
                                         uint32_t ordinal);
  static std::optional<Block> find_block(const KeyedState& state, const Host& host, Be32 address,
                                         const Endpoint& external);
  static StateKey block_name(Be32 external, const PortUnits& units);
  static StateKey host_key(Be32 address) { return {.kind = kHostKind, .address = address}; }
  static StateKey block_key(Be32 host, uint32_t ordinal) {
    return {.kind = kBlockKind,
            .address = host,
            .port = Be16::from_host(static_cast<uint16_t>(ordinal))};
  }

  const Nat44Settings& settings_;
};

}  // namespace flowkeep
