#include "nfs/nat44/subscribers.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <span>

namespace flowkeep {

namespace {

// Of a host's blocks: twice as many as a configuration allows, for those of an earlier one.
constexpr uint32_t kMostOrdinals = 2 * kMostBlocksOfHost;
static_assert(kMostOrdinals <= 32);

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
  if (!settings_.counts_hosts()) return from_ports(flow);
  KeyedState state = flow.keyed();
  const Be32 address = flow.inside_key().src;
  Host host = Subscribers::host(state, address).value_or(Host{});
  if (settings_.mappings_per_host != 0 && host.mappings >= settings_.mappings_per_host) {
    return {MappingRefusal::kHostLimit};
  }
  ++host.mappings;
  if (settings_.blocks) return from_blocks(flow, host);
  Given given = from_ports(flow);
  if (given.refused != MappingRefusal::kNone) return given;
  if (!state.put(host_key(address), host)) return {MappingRefusal::kPoolFull};
  given.account = Account::kHost;
  return given;
}

Subscribers::Given Subscribers::from_ports(AnyNewFlow& flow) const {
  PortChoice choice(settings_, flow);
  std::optional<Endpoint> external;
  if (!settings_.deterministic) {
    external = choice.shared();
  } else if (const auto units = settings_.deterministic->units_of(flow.inside_key().src)) {
    external = choice.within(*units);
  }
  return external ? Given{MappingRefusal::kNone, *external}
                  : Given{MappingRefusal::kPortsExhausted};
}

// From the blocks that the host has, or from a new one. Those of another configuration only wait
// for their mappings to end.
Subscribers::Given Subscribers::from_blocks(AnyNewFlow& flow, Host& host) const {
  const KeyedState state = flow.keyed();
  std::array<PortUnits, kMostBlocksOfHost> blocks;
  uint32_t of_plan = 0, unused = kMostOrdinals;
  for (uint32_t ordinal = 0; ordinal < kMostOrdinals && of_plan < settings_.blocks->most;
       ++ordinal) {
    const auto block = find_block(state, host, flow.inside_key().src, ordinal);
    if (!block) unused = std::min(unused, ordinal);
    if (block && is_of_plan(*block)) blocks[of_plan++] = block->units;
  }
  PortChoice choice(settings_, flow);
  if (const auto external = choice.within(std::span(blocks).first(of_plan))) {
    auto block = find_block(state, host, flow.inside_key().src, *external);
    assert(block);
    return count_in(flow, host, *block, *external);
  }
  if (of_plan == settings_.blocks->most || unused == kMostOrdinals) {
    return {MappingRefusal::kPortsExhausted};
  }
  auto block = assign(flow, unused);
  const auto external = block ? choice.within(block->units) : std::nullopt;
  return external ? count_in(flow, host, *block, *external)
                  : Given{MappingRefusal::kPortsExhausted};
}

// All or nothing.
Subscribers::Given Subscribers::count_in(AnyNewFlow& flow, Host& host, Block& block,
                                         const Endpoint& external) const {
  KeyedState state = flow.keyed();
  const bool is_new = block.mappings++ == 0;
  const StateKey name = block_name(block.external, block.units);
  if (!state.put(block_key(block.host, block.ordinal), block, &name)) {
    return {MappingRefusal::kPoolFull};
  }
  host.blocks |= 1u << block.ordinal;
  if (!state.put(host_key(block.host), host)) {
    leave_block(state, block);
    return {MappingRefusal::kPoolFull};
  }
  if (is_new) {
    flow.count(kBlocksAssignedCounter);
    flow.tell(kBlocksAssignedCounter, event_key(block), {block.units.last_port()});
  }
  return {MappingRefusal::kNone, external, Account::kHostAndBlock};
}

void Subscribers::leave_block(KeyedState& state, Block& block) {
  const StateKey key = block_key(block.host, block.ordinal);
  if (--block.mappings == 0) {
    state.erase(key);
  } else {
    replace(state, key, block);
  }
}

// A block that nobody has, on the address that the host is paired with. A host that asks for the
// same again begins its search at the same place.
std::optional<Subscribers::Block> Subscribers::assign(AnyNewFlow& flow, uint32_t ordinal) const {
  const auto addresses = static_cast<uint32_t>(settings_.addresses.size());
  const uint32_t paired = PortChoice(settings_, flow).paired_address();
  const auto start = static_cast<uint32_t>(flow.hash_inside_host() >> 32);
  const uint32_t tried = settings_.pooling == Pooling::kPaired ? 1 : addresses;
  for (uint32_t i = 0; i < tried; ++i) {
    for (uint32_t n = 0; n < places(); ++n) {
      const PortUnits units = block_units((paired + i) % addresses, (start + n) % places());
      if (!take_units(flow, units)) continue;
      return Block{0,     ordinal,      flow.inside_key().src,
                   units, flow.now_s(), settings_.addresses[units.address]};
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
  if (flow.keyed().find_second<Block>(block_name(settings_.addresses[units.address], units))) {
    return false;
  }
  for (uint32_t unit = units.first; unit < units.first + units.count; ++unit) {
    const bool leased =
        flow.lease_acquire(units.address, unit) || flow.lease_owner(units.address, unit) == bucket;
    if (!leased) return false;
  }
  return true;
}

std::optional<Subscribers::Block> Subscribers::take_back(KeyedState state, Be32 address,
                                                         const Endpoint& external,
                                                         Account account) {
  auto host = Subscribers::host(state, address);
  if (account == Account::kNone || !host || host->mappings == 0) return std::nullopt;
  --host->mappings;
  auto block = account == Account::kHostAndBlock ? find_block(state, *host, address, external)
                                                 : std::nullopt;
  if (block) {
    leave_block(state, *block);
    if (block->mappings == 0) host->blocks &= ~(1u << block->ordinal);
  }
  if (host->mappings == 0) {
    state.erase(host_key(address));
  } else {
    replace(state, host_key(address), *host);
  }
  return block && block->mappings == 0 ? block : std::nullopt;
}

FlowKey Subscribers::event_key(const Block& block) {
  FlowKey key;
  key.src = block.host;
  key.dst = block.external;
  key.dst_port = Be16::from_host(static_cast<uint16_t>(block.units.first * kUnitPorts));
  return key;
}

bool Subscribers::lies_in_block(const KeyedState& state, Be32 address,
                                const Endpoint& external) const {
  const auto host = Subscribers::host(state, address);
  const auto block = host ? find_block(state, *host, address, external) : std::nullopt;
  return block && is_of_plan(*block);
}

std::optional<Subscribers::Block> Subscribers::find_block(const KeyedState& state, const Host& host,
                                                          Be32 address, uint32_t ordinal) {
  if ((host.blocks >> ordinal & 1) == 0) return std::nullopt;
  return state.find<Block>(block_key(address, ordinal));
}

std::optional<Subscribers::Block> Subscribers::find_block(const KeyedState& state, const Host& host,
                                                          Be32 address, const Endpoint& external) {
  for (uint32_t ordinal = 0; ordinal < kMostOrdinals; ++ordinal) {
    const auto block = find_block(state, host, address, ordinal);
    if (block && block->contains(external)) return block;
  }
  return std::nullopt;
}

std::optional<Subscribers::Block> Subscribers::block_of(const KeyedState& state, uint32_t address,
                                                        uint32_t unit) const {
  if (!settings_.blocks || !settings_.range.contains(unit)) return std::nullopt;
  const uint32_t place = (unit - settings_.range.first) / settings_.blocks->units;
  return state.find_second<Block>(
      block_name(settings_.addresses[address], block_units(address, place)));
}

bool Subscribers::is_of_plan(const Block& block) const {
  if (!settings_.blocks || block.units.count != settings_.blocks->units) return false;
  const uint32_t offset = block.units.first - settings_.range.first;
  return offset % block.units.count == 0 && offset / block.units.count < places() &&
         settings_.index_of(block.external) == block.units.address;
}

PortUnits Subscribers::block_units(uint32_t address, uint32_t place) const {
  const uint32_t units = settings_.blocks->units;
  return {address, settings_.range.first + place * units, units};
}

StateKey Subscribers::block_name(Be32 external, const PortUnits& units) {
  return {.kind = kBlockKind,
          .address = external,
          .port = Be16::from_host(static_cast<uint16_t>(units.first * kUnitPorts))};
}

}  // namespace flowkeep
