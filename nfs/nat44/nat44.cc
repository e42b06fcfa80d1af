#include "nfs/nat44/nat44.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <string>
#include <utility>

#include "nfs/nat44/rewrite.h"

namespace flowkeep {
namespace {

constexpr std::array kProtocols = {kProtocolTcp, kProtocolUdp, kProtocolIcmp};

bool translates(uint8_t protocol) {
  return std::ranges::find(kProtocols, protocol) != kProtocols.end();
}

Endpoint source_of(const FlowKey& inside) {
  return {inside.src, inside.src_port, {}};
}

bool same(const Endpoint& a, const Endpoint& b) {
  return a.address == b.address && a.port == b.port;
}

// Flows of an endpoint with a remote host (address-dependent filtering).
StateKey contact_key(const FlowKey& inside) {
  return {.kind = Subscribers::kContactKind,
          .address = inside.src,
          .port = inside.src_port,
          .protocol = inside.protocol,
          .peer = inside.dst};
}

Decision refuse(AnyNewFlow& flow, MappingRefusal refusal) {
  switch (refusal) {
    case MappingRefusal::kHostLimit:
      flow.count(kHostLimitCounter);
      return Decision::refuse(DropReason::kNatHostLimit);
    case MappingRefusal::kPortsExhausted:
      flow.count(kPortsExhaustedCounter);
      return Decision::refuse(DropReason::kNatPortsExhausted);
    case MappingRefusal::kPoolFull:
      return Decision::refuse(DropReason::kPoolFull);
    case MappingRefusal::kNone:
      break;
  }
  return Decision::accept();
}

}  // namespace

Result<Nat44> Nat44::create(const Config& config, const FunctionContext& context) {
  auto settings = read_nat44_settings(config, context.field);
  if (!settings.ok()) return settings.error();
  return Nat44(std::make_unique<const Nat44Settings>(std::move(*settings)));
}

Nat44::Nat44(std::unique_ptr<const Nat44Settings> settings)
    : settings_(std::move(settings)), subscribers_(*settings_) {}

std::vector<std::string> Nat44::counter_names() const {
  return {"mappings",   "blocks_assigned", "blocks_released",
          "host_limit", "ports_exhausted", "filtered"};
}

// ---- A flow's first packet.

Decision Nat44::open(NewFlow<Nat44>& flow, Soft&) const {
  const FlowKey& inside = flow.inside_key();
  const bool to_external =
      flow.initiator() == Side::kOutside && settings_->index_of(inside.src).has_value();
  if (!to_external && settings_->leaves_alone(inside)) return leave_alone(flow);
  if (!translates(inside.protocol)) {
    return Decision::refuse(DropReason::kNatUnsupportedProtocol);
  }
  return flow.initiator() == Side::kInside ? open_from_inside(flow) : open_from_outside(flow);
}

// Endpoint-independent mapping (RFC 4787 REQ-1, RFC 5382 REQ-1, RFC 5508 REQ-1).
Decision Nat44::open_from_inside(NewFlow<Nat44>& flow) const {
  const FlowKey& inside = flow.inside_key();
  const Forward* forward =
      settings_->forwards.of_inside(inside.protocol, inside.src, inside.src_port);
  Subscribers::Given given;
  if (flow.mapping()) {
    given.external = {flow.mapping()->outside.dst, flow.mapping()->outside.dst_port, {}};
  } else if (forward != nullptr) {
    given.external = forward->external;
  } else {
    given = subscribers_.give(flow);
    if (given.refused != MappingRefusal::kNone) return refuse(flow, given.refused);
    flow.set_mapping_account(static_cast<uint8_t>(given.account));
  }
  if (!accept(flow, given.external)) {
    const auto released =
        Subscribers::take_back(flow.keyed(), inside.src, given.external, given.account);
    if (released) {
      flow.tell(kBlocksReleasedCounter, Subscribers::event_key(*released),
                {released->units.last_port(), 0});
    }
    return Decision::refuse(DropReason::kPoolFull);
  }
  if (!flow.mapping() && forward == nullptr) flow.count(kMappingsCounter);
  return Decision::accept();
}

// Known by its own keys on both sides, and counted as nobody's mapping (RFC 6888 REQ-6).
Decision Nat44::leave_alone(NewFlow<Nat44>& flow) {
  flow.keeps_its_name();
  flow.commit(Hard{source_of(flow.inside_key())});
  return Decision::accept();
}

Decision Nat44::open_from_outside(NewFlow<Nat44>& flow) const {
  const FlowKey& arrival = flow.inside_key();  // its source is still the external endpoint
  const Endpoint external = source_of(arrival);
  const Forward* forward =
      settings_->forwards.to_external(arrival.protocol, external.address, external.port);
  if (!flow.mapping() && forward == nullptr) return Decision::refuse(DropReason::kNatNoMapping);
  const Endpoint inside = flow.mapping() ? source_of(flow.mapping()->inside) : forward->inside;
  flow.set_inside_endpoint(inside.address, inside.port);
  if (forward == nullptr && !filter_lets_in(flow, flow.inside_key())) {
    flow.count(kFilteredCounter);
    return Decision::refuse(DropReason::kNatFiltered);
  }
  return accept(flow, external) ? Decision::accept() : Decision::refuse(DropReason::kPoolFull);
}

// RFC 4787 REQ-8, RFC 5382 REQ-3: of packets that no flow of the endpoint explains.
bool Nat44::filter_lets_in(NewFlow<Nat44>& flow, const FlowKey& inside) const {
  switch (settings_->filtering) {
    case Filtering::kEndpointIndependent:
      return true;
    case Filtering::kAddressDependent:
      return flow.keyed().find<uint64_t>(contact_key(inside)).has_value();
    case Filtering::kAddressAndPortDependent:
      return false;
  }
  return false;
}

// False: the pool is full; nothing is counted.
bool Nat44::accept(NewFlow<Nat44>& flow, const Endpoint& external) const {
  const bool forwarded =
      settings_->forwards.to_external(flow.inside_key().protocol, external.address,
                                      external.port) != nullptr;
  if (forwarded) flow.needs_no_lease();
  Hard hard{external};
  if (tracks_contacts()) hard.set_counts_contact();
  flow.commit(hard);
  if (!tracks_contacts()) return true;
  KeyedState state = flow.keyed();
  const StateKey key = contact_key(flow.inside_key());
  return state.put(key, state.find<uint64_t>(key).value_or(0) + 1);
}

// ---- A flow's end.

void Nat44::close(EndingFlow<Nat44>& flow, Soft&) const {
  KeyedState state = flow.keyed();
  if (flow.hard().counts_contact()) {
    const StateKey key = contact_key(flow.inside_key());
    const uint64_t flows = state.find<uint64_t>(key).value_or(0);
    if (flows > 1) {
      [[maybe_unused]] const bool put = state.put(key, flows - 1);
      assert(put);  // it was there
    } else {
      state.erase(key);
    }
  }
  if (flow.ends_mapping()) {
    const auto released = Subscribers::take_back(state, flow.inside_key().src, flow.hard().external,
                                                 static_cast<Account>(flow.mapping_account()));
    if (released) {
      flow.tell(kBlocksReleasedCounter, Subscribers::event_key(*released),
                {released->units.last_port(), flow.now_s() - released->assigned_s});
    }
  }
}

// ---- Changes of the configuration.

std::optional<Nat44::Hard> Nat44::migrate(uint32_t from_version,
                                          std::span<const uint8_t> old) const {
  Hard hard;
  if (from_version != 1 || old.size() != sizeof(hard)) return std::nullopt;
  std::memcpy(&hard, old.data(), sizeof(hard));
  return hard;
}

// A mapping stays as long as its external endpoint would be given to its host today.
bool Nat44::still_allowed(const FlowRecord& flow, const Hard&, const KeyedState& keyed,
                          Soft&) const {
  const FlowKey& inside = flow.inside_key;
  const Endpoint external{flow.outside_key.dst, flow.outside_key.dst_port, {}};
  const bool translated = !same(external, source_of(inside));
  if (settings_->leaves_alone(inside)) return !translated;
  if (!translated) return false;
  const Forwards& forwards = settings_->forwards;
  const Forward* of_inside = forwards.of_inside(inside.protocol, inside.src, inside.src_port);
  const Forward* to_external =
      forwards.to_external(inside.protocol, external.address, external.port);
  if (of_inside != nullptr || to_external != nullptr) return of_inside == to_external;
  // A forward that is no more has no lease either, by which others would keep off its port.
  if (!is_leased(flow)) return false;
  const auto address = settings_->index_of(external.address);
  if (!address || !settings_->range.contains(unit_of(external.port))) return false;
  if (settings_->blocks) {
    return static_cast<Account>(mapping_account(flow)) == Account::kHostAndBlock &&
           subscribers_.lies_in_block(keyed, inside.src, external);
  }
  if (!settings_->deterministic) return true;
  const auto units = settings_->deterministic->units_of(inside.src);
  return units && units->contains(*address, unit_of(external.port));
}

// ---- Every packet.

void Nat44::process(Burst<Nat44>& burst, Soft&) const {
  if (burst.side() == Side::kInside) {
    burst.for_each([](FlowPacket<Nat44>& packet) {
      const Endpoint external = packet.hard().external;
      if (same(external, source_of(packet.inside_key()))) return;
      const bool error = packet.meta().inner_l3_offset != 0;
      (error ? rewrite_error_from_inside : rewrite_source)(packet.edit(), packet.meta(), external);
    });
    return;
  }
  burst.for_each([](FlowPacket<Nat44>& packet) {
    const Endpoint inside = source_of(packet.inside_key());
    if (same(packet.hard().external, inside)) return;
    const bool error = packet.meta().inner_l3_offset != 0;
    (error ? rewrite_error_from_outside : rewrite_destination)(packet.edit(), packet.meta(),
                                                               inside);
  });
}

// ---- Leases of ports that nobody uses any more.

void Nat44::sweep(SweptBucket& bucket, Soft&) const {
  const UnitRange range = settings_->range;
  constexpr auto kUnits = static_cast<uint32_t>(kPortBlocks);
  const uint32_t places = static_cast<uint32_t>(settings_->addresses.size()) * kUnits;
  for (uint32_t n = 0; n < places && bucket.may_look_further(); ++n) {
    const uint32_t place = bucket.next_place(places);
    const uint32_t address = place / kUnits, unit = place % kUnits;
    if (!range.contains(unit)) continue;
    if (bucket.lease_owner(address, unit) != static_cast<int32_t>(bucket.bucket())) continue;
    bucket.looked_at_one();
    if (unit_is_idle(bucket, address, unit)) bucket.lease_release(address, unit);
  }
}

bool Nat44::unit_is_idle(SweptBucket& bucket, uint32_t address, uint32_t unit) const {
  if (subscribers_.block_of(bucket.keyed(), address, unit)) return false;
  FlowKey name{};
  name.dst = settings_->addresses[address];
  name.side = Side::kOutside;
  for (const uint8_t protocol : kProtocols) {
    name.protocol = protocol;
    for (uint32_t port = unit * kUnitPorts; port < (unit + 1) * kUnitPorts; ++port) {
      name.dst_port = Be16::from_host(static_cast<uint16_t>(port));
      if (!bucket.outside_endpoint_free(name)) return false;
    }
  }
  return true;
}

}  // namespace flowkeep
