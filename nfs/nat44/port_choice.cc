#include "nfs/nat44/port_choice.h"

#include <algorithm>

namespace flowkeep {
namespace {

// Neighbouring buckets begin 4 units apart, which spreads 256 buckets over an address.
uint32_t candidate(uint32_t bucket, uint32_t rank, UnitRange range) {
  return range.first + (bucket * 4 + rank) % range.count;
}

// Order in which a unit's ports are tried: from a start that depends on the endpoint, those with
// the inside port's parity first (RFC 4787 REQ-4).
uint32_t probe_offset(uint64_t hash, Be16 inside_port, uint32_t probe) {
  const auto start = static_cast<uint32_t>(hash >> 32) & (kUnitPorts - 2);
  const uint32_t parity = (inside_port.host() ^ (probe >= kUnitPorts / 2 ? 1U : 0U)) & 1U;
  return ((start + 2 * probe) & (kUnitPorts - 2)) | parity;
}

}  // namespace

uint32_t PortChoice::paired_address() const {
  return static_cast<uint32_t>(flow_.hash_inside_host() % settings_.addresses.size());
}

std::optional<Endpoint> PortChoice::shared() {
  const auto count = static_cast<uint32_t>(settings_.addresses.size());
  const uint32_t tried = settings_.pooling == Pooling::kPaired ? 1 : count;
  for (uint32_t i = 0; i < tried; ++i) {
    const uint32_t address = (paired_address() + i) % count;
    if (const auto external = preserved(address)) return external;
    if (const auto external = on_address(address, kMostProbes / kUnitPorts / tried)) {
      return external;
    }
  }
  return std::nullopt;
}

// The inside port itself.
std::optional<Endpoint> PortChoice::preserved(uint32_t address) {
  if (!settings_.preserve_ports) return std::nullopt;
  const Endpoint wanted{settings_.addresses[address], flow_.inside_key().src_port, {}};
  const uint32_t unit = unit_of(wanted.port);
  if (!settings_.range.contains(unit) || !hold(address, unit) || !is_free(wanted)) {
    return std::nullopt;
  }
  return wanted;
}

std::optional<Endpoint> PortChoice::on_address(uint32_t address, uint32_t most_units) {
  const uint32_t units = settings_.range.count;
  auto external = in_held_units(address, start(units), Effort::kQuick, kQuickUnits);
  if (!external) external = in_new_unit(address);
  if (external) return external;
  return in_held_units(address, start_now(units, most_units), Effort::kThorough, most_units);
}

std::optional<Endpoint> PortChoice::in_held_units(uint32_t address, uint32_t start, Effort effort,
                                                  uint32_t most_units) {
  const auto bucket = static_cast<int32_t>(flow_.bucket());
  for (uint32_t rank = 0; rank < settings_.range.count && most_units > 0; ++rank) {
    const uint32_t unit = candidate(flow_.bucket(), start + rank, settings_.range);
    if (flow_.lease_owner(address, unit) != bucket) continue;
    --most_units;
    if (const auto external = in_unit(address, unit, effort)) return external;
  }
  return std::nullopt;
}

// Each bucket walks the units in an order of its own and takes the first that nobody holds.
std::optional<Endpoint> PortChoice::in_new_unit(uint32_t address) {
  for (uint32_t rank = 0; rank < settings_.range.count; ++rank) {
    const uint32_t unit = candidate(flow_.bucket(), rank, settings_.range);
    if (flow_.lease_owner(address, unit) < 0 && hold(address, unit)) {
      return in_unit(address, unit, Effort::kThorough);
    }
  }
  return std::nullopt;
}

std::optional<Endpoint> PortChoice::within(std::span<const PortUnits> blocks) {
  for (const PortUnits& block : blocks) {
    const auto external = in_units({&block, 1}, start(block.count), Effort::kQuick, kQuickUnits);
    if (external) return external;
  }
  if (blocks.empty()) return std::nullopt;
  constexpr uint32_t kMostUnits = kMostProbes / kUnitPorts;
  const uint32_t units = static_cast<uint32_t>(blocks.size()) * blocks.front().count;
  return in_units(blocks, start_now(units, kMostUnits), Effort::kThorough, kMostUnits);
}

// The blocks' units are counted through from 0.
std::optional<Endpoint> PortChoice::in_units(std::span<const PortUnits> blocks, uint32_t start,
                                             Effort effort, uint32_t most_units) {
  const uint32_t of_block = blocks.front().count;
  const uint32_t units = static_cast<uint32_t>(blocks.size()) * of_block;
  for (uint32_t i = 0; i < std::min(units, most_units); ++i) {
    const uint32_t n = (start + i) % units;
    const PortUnits& block = blocks[n / of_block];
    const uint32_t unit = block.first + n % of_block;
    if (!hold(block.address, unit)) continue;
    if (const auto external = in_unit(block.address, unit, effort)) return external;
  }
  return std::nullopt;
}

uint32_t PortChoice::start(uint32_t places) const {
  return static_cast<uint32_t>(hash_ >> 40) % places;
}

// The next second's search goes on where this one's ends.
uint32_t PortChoice::start_now(uint32_t places, uint32_t searched) const {
  return static_cast<uint32_t>((start(places) + uint64_t{flow_.now_s()} * searched) % places);
}

std::optional<Endpoint> PortChoice::in_unit(uint32_t address, uint32_t unit, Effort effort) {
  const uint32_t probes = effort == Effort::kQuick ? kQuickProbes : kUnitPorts;
  for (uint32_t probe = 0; probe < probes; ++probe) {
    const uint32_t offset = probe_offset(hash_, flow_.inside_key().src_port, probe);
    const auto port = static_cast<uint16_t>(unit * kUnitPorts + offset);
    const Endpoint external{settings_.addresses[address], Be16::from_host(port), {}};
    if (is_free(external)) return external;
  }
  return std::nullopt;
}

// Is the unit the bucket's, from now on at the latest?
bool PortChoice::hold(uint32_t address, uint32_t unit) {
  return flow_.lease_acquire(address, unit) ||
         flow_.lease_owner(address, unit) == static_cast<int32_t>(flow_.bucket());
}

bool PortChoice::is_free(const Endpoint& external) {
  ++probes_;
  const FlowKey& inside = flow_.inside_key();
  return flow_.outside_endpoint_free(translated_key(inside, external)) &&
         settings_.forwards.to_external(inside.protocol, external.address, external.port) ==
             nullptr;
}

}  // namespace flowkeep
