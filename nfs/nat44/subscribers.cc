#include "nfs/nat44/subscribers.h"

#include <cassert>

namespace flowkeep {

namespace {

// State that is there needs no room.
template <typename T>
void replace(KeyedState& state, const StateKey& key, const T& value) {
  [[maybe_unused]] const bool put = state.put(key, value);
  assert(put);
}

}  // namespace

std::optional<Subscribers::Host> Subscribers::host(const KeyedState& state, Be32 address) {
  return state.find<Host>(host_key(address));
}

Subscribers::Given Subscribers::give(AnyNewFlow& flow) const {
  const Be32 address = flow.inside_key().src;
  if (!settings_.counts_hosts()) {
    Host nobody;
    const auto external = choose(flow, nobody);
    return external ? Given{MappingRefusal::kNone, *external}
                    : Given{MappingRefusal::kPortsExhausted};
  }
  KeyedState state = flow.keyed();
  Host host = Subscribers::host(state, address).value_or(Host{});
  if (settings_.mappings_per_host != 0 && host.mappings >= settings_.mappings_per_host) {
    return {MappingRefusal::kHostLimit};
  }
  const auto external = choose(flow, host);
  if (!external) return {MappingRefusal::kPortsExhausted};
  ++host.mappings;
  if (!state.put(host_key(address), host)) return {MappingRefusal::kPoolFull};
  return {MappingRefusal::kNone, *external};
}

std::optional<Endpoint> Subscribers::choose(AnyNewFlow& flow, Host& host) const {
  if (settings_.blocks) return from_blocks(flow, host);
  PortChoice choice(settings_, flow);
  if (!settings_.deterministic) return choice.shared();
  const auto units = settings_.deterministic->units_of(flow.inside_key().src);
  return units ? choice.within(*units) : std::nullopt;
}

// From the blocks that the host has, in their order, or from a new one.
std::optional<Endpoint> Subscribers::from_blocks(AnyNewFlow& flow, Host& host) const {
  KeyedState state = flow.keyed();
  PortChoice choice(settings_, flow);
  for (uint32_t ordinal = 0; ordinal < settings_.blocks->most; ++ordinal) {
    const StateKey key = block_key(flow.inside_key().src, ordinal);
    std::optional<Block> block = state.find<Block>(key);
    const bool is_new = !block;
    if (is_new) block = assign(flow, ordinal);
    if (!block) return std::nullopt;
    const auto external = choice.within(block->units);
    if (!external) continue;
    ++block->mappings;
    const StateKey name = block_name(block->units);
    if (!state.put(key, *block, &name)) return std::nullopt;
    host.blocks |= 1u << ordinal;
    if (is_new) {
      flow.count(kBlocksAssignedCounter);
      flow.tell(kBlocksAssignedCounter, event_key(*block), {block->units.last_port()});
    }
    return external;
  }
  return std::nullopt;
}

// A block that nobody has, on the address that the host is paired with. A host that asks for the
// same again begins its search at the same place.
std::optional<Subscribers::Block> Subscribers::assign(AnyNewFlow& flow, uint32_t ordinal) const {
  const auto addresses = static_cast<uint32_t>(settings_.addresses.size());
  const uint32_t paired = PortChoice(settings_, flow).paired_address();
  const uint32_t places = settings_.range.count / settings_.blocks->units;
  const auto start = static_cast<uint32_t>(flow.hash_inside_host() >> 32);
  const uint32_t tried = settings_.pooling == Pooling::kPaired ? 1 : addresses;
  for (uint32_t i = 0; i < tried; ++i) {
    for (uint32_t n = 0; n < places; ++n) {
      const PortUnits units = block_units((paired + i) % addresses, (start + n) % places);
      if (!take_units(flow, units)) continue;
      return Block{0, ordinal, flow.inside_key().src, units, flow.now_s()};
    }
  }
  return std::nullopt;
}

// Units that the bucket leases and that are in nobody's block were left by a burst that did not
// commit, or by a block that has ended.
bool Subscribers::take_units(AnyNewFlow& flow, const PortUnits& units) const {
  const auto bucket = static_cast<int32_t>(flow.bucket());
  for (uint32_t unit = units.first; unit < units.first + units.count; ++unit) {
    const int32_t owner = flow.lease_owner(units.address, unit);
    if (owner >= 0 && owner != bucket) return false;
  }
  if (flow.keyed().find_second<Block>(block_name(units))) return false;
  for (uint32_t unit = units.first; unit < units.first + units.count; ++unit) {
    const bool leased =
        flow.lease_acquire(units.address, unit) || flow.lease_owner(units.address, unit) == bucket;
    if (!leased) return false;
  }
  return true;
}

std::optional<Subscribers::Block> Subscribers::take_back(KeyedState state, const FlowKey& inside,
                                                         const Endpoint& external) const {
  auto host = Subscribers::host(state, inside.src);
  if (!host || host->mappings == 0) return std::nullopt;
  --host->mappings;
  const auto address = settings_.index_of(external.address);
  auto block = address ? block_of(state, *address, unit_of(external.port)) : std::nullopt;
  if (block && block->mappings != 0) {
    const StateKey key = block_key(inside.src, block->ordinal);
    if (--block->mappings == 0) {
      state.erase(key);
      host->blocks &= ~(1u << block->ordinal);
    } else {
      replace(state, key, *block);
    }
  }
  if (host->mappings == 0) {
    state.erase(host_key(inside.src));
  } else {
    replace(state, host_key(inside.src), *host);
  }
  return block && block->mappings == 0 ? block : std::nullopt;
}

FlowKey Subscribers::event_key(const Block& block) const {
  FlowKey key;
  key.src = block.host;
  key.dst = settings_.addresses[block.units.address];
  key.dst_port = Be16::from_host(static_cast<uint16_t>(block.units.first * kUnitPorts));
  return key;
}

std::optional<Subscribers::Block> Subscribers::block_of(const KeyedState& state, uint32_t address,
                                                        uint32_t unit) const {
  if (!settings_.blocks || !settings_.range.contains(unit)) return std::nullopt;
  const uint32_t place = (unit - settings_.range.first) / settings_.blocks->units;
  return state.find_second<Block>(block_name(block_units(address, place)));
}

PortUnits Subscribers::block_units(uint32_t address, uint32_t place) const {
  const uint32_t units = settings_.blocks->units;
  return {address, settings_.range.first + place * units, units};
}

StateKey Subscribers::block_name(const PortUnits& units) const {
  return {.kind = kBlockKind,
          .address = settings_.addresses[units.address],
          .port = Be16::from_host(static_cast<uint16_t>(units.first * kUnitPorts))};
}

}  // namespace flowkeep
