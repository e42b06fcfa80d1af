#include "nfs/nat44/settings.h"

#include <algorithm>
#include <utility>

#include "nfs/ipv4_prefix.h"
#include "nfs/packet.h"

namespace flowkeep {
namespace {

constexpr uint32_t kLastPort = 65535;

Error not_accepted(const std::string& field, const std::string& value,
                   const std::string& accepted) {
  return invalid(field, '"' + value + "\" is not accepted; accepted: " + accepted);
}

Result<std::vector<Be32>> read_addresses(const nfs::Nat44Config& config, const std::string& field) {
  std::vector<Be32> addresses;
  for (int i = 0; i < config.external_addresses_size(); ++i) {
    const std::string& text = config.external_addresses(i);
    const std::string element = field + '[' + std::to_string(i) + ']';
    const auto address = parse_ipv4_address(text);
    if (!address) {
      return invalid(element, '"' + text + "\" is no IPv4 address; accepted: such as 203.0.113.10");
    }
    const uint32_t first_octet = address->host() >> 24;
    if (first_octet == 0 || first_octet == 127 || first_octet >= 224) {
      return invalid(element, '"' + text + "\" is no unicast address that others can reach");
    }
    if (std::ranges::find(addresses, *address) != addresses.end()) {
      return invalid(element, '"' + text + "\" is given twice; accepted: each address once");
    }
    addresses.push_back(*address);
  }
  if (addresses.empty() || addresses.size() > kMaxExternalAddresses) {
    return invalid(field, std::to_string(addresses.size()) + " addresses given; accepted: 1 to " +
                              std::to_string(kMaxExternalAddresses));
  }
  // Leases go by an address's place, which must not depend on the order that somebody writes.
  std::ranges::sort(addresses, {}, &Be32::host);
  return addresses;
}

Result<UnitRange> read_range(const nfs::Nat44Config& config, const std::string& field) {
  if (!config.has_port_range()) return UnitRange{};
  const uint32_t first = config.port_range().first();
  const uint32_t last = config.port_range().last();
  if (first < kFirstLeasedPort || last > kLastPort || first > last) {
    return invalid(field, std::to_string(first) + " to " + std::to_string(last) +
                              " is no range of external ports; accepted: 1024 to 65535");
  }
  const uint32_t first_unit = (first + kUnitPorts - 1) / kUnitPorts;
  const uint32_t end_unit = (last + 1) / kUnitPorts;
  if (end_unit <= first_unit) {
    return invalid(field,
                   "contains no whole block of 64 ports that begins at a multiple of 64; "
                   "accepted: such as 1024 to 65535");
  }
  return UnitRange{first_unit, end_unit - first_unit};
}

Result<Filtering> read_filtering(const std::string& text, const std::string& field) {
  if (text == "endpoint_independent") return Filtering::kEndpointIndependent;
  if (text == "address_dependent") return Filtering::kAddressDependent;
  if (text.empty() || text == "address_and_port_dependent") {
    return Filtering::kAddressAndPortDependent;
  }
  return not_accepted(field, text,
                      "endpoint_independent, address_dependent, address_and_port_dependent");
}

Result<Pooling> read_pooling(const std::string& text, const std::string& field) {
  if (text.empty() || text == "paired") return Pooling::kPaired;
  if (text == "paired_if_possible") return Pooling::kPairedIfPossible;
  return not_accepted(field, text, "paired, paired_if_possible");
}

Result<std::optional<BlockPlan>> read_blocks(const nfs::Nat44Config& config, UnitRange range,
                                             const std::string& field) {
  if (!config.has_port_blocks()) return std::optional<BlockPlan>();
  const uint32_t ports = config.port_blocks().ports();
  if (ports == 0 || ports % kUnitPorts != 0 || ports / kUnitPorts > range.count) {
    return not_accepted(field + ".ports", std::to_string(ports),
                        "a multiple of 64 up to " + std::to_string(range.count * kUnitPorts) +
                            ", the ports of the range");
  }
  const uint32_t most = config.port_blocks().blocks_per_host();
  if (most > kMostBlocksOfHost) {
    return not_accepted(field + ".blocks_per_host", std::to_string(most), "1 to 16");
  }
  return std::optional(BlockPlan{ports / kUnitPorts, std::max(most, 1u)});
}

Result<std::optional<DeterministicMap>> read_deterministic(const nfs::Nat44Config& config,
                                                           uint32_t addresses, UnitRange range,
                                                           const std::string& field) {
  if (!config.has_deterministic()) return std::optional<DeterministicMap>();
  if (config.has_port_blocks()) {
    return invalid(field, "is given with port_blocks; accepted: one of the two");
  }
  const std::string& text = config.deterministic().inside();
  const auto inside = parse_ipv4_prefix(text);
  if (!inside) return not_accepted(field + ".inside", text, "a prefix such as 10.0.0.0/24");
  const auto map = DeterministicMap::of(*inside, addresses, range);
  if (!map) {
    return invalid(field + ".inside",
                   '"' + text +
                       "\" has more hosts than there are blocks of 64 ports; accepted: at most " +
                       std::to_string(uint64_t{addresses} * range.count) + " hosts");
  }
  return std::optional(*map);
}

Result<Endpoint> read_endpoint(const std::string& address, uint32_t port, const std::string& field,
                               const std::string& side) {
  const auto parsed = parse_ipv4_address(address);
  if (!parsed) return not_accepted(field + "." + side + "_address", address, "an IPv4 address");
  if (port == 0 || port > kLastPort) {
    return not_accepted(field + "." + side + "_port", std::to_string(port), "1 to 65535");
  }
  return Endpoint{*parsed, Be16::from_host(static_cast<uint16_t>(port)), {}};
}

Result<Forward> read_forward(const nfs::PortForward& config, const std::string& field) {
  if (config.protocol() != "tcp" && config.protocol() != "udp") {
    return not_accepted(field + ".protocol", config.protocol(), "tcp, udp");
  }
  const auto external =
      read_endpoint(config.external_address(), config.external_port(), field, "external");
  if (!external.ok()) return external.error();
  const auto inside = read_endpoint(config.inside_address(), config.inside_port(), field, "inside");
  if (!inside.ok()) return inside.error();
  return Forward{config.protocol() == "tcp" ? kProtocolTcp : kProtocolUdp, {}, *external, *inside};
}

Result<Forwards> read_forwards(const nfs::Nat44Config& config, const Nat44Settings& settings,
                               const std::string& field) {
  Forwards forwards;
  if (static_cast<size_t>(config.port_forwards_size()) > kMostForwards) {
    return invalid(field, std::to_string(config.port_forwards_size()) +
                              " forwards given; accepted: at most " +
                              std::to_string(kMostForwards));
  }
  for (int i = 0; i < config.port_forwards_size(); ++i) {
    const std::string element = field + '[' + std::to_string(i) + ']';
    const auto forward = read_forward(config.port_forwards(i), element);
    if (!forward.ok()) return forward.error();
    const Endpoint &external = forward->external, &inside = forward->inside;
    if (!settings.index_of(external.address)) {
      return not_accepted(element + ".external_address", to_string(external.address),
                          "one of external_addresses");
    }
    if (forwards.to_external(forward->protocol, external.address, external.port) != nullptr ||
        forwards.of_inside(forward->protocol, inside.address, inside.port) != nullptr) {
      return invalid(element, "forwards an endpoint that another one does; accepted: each once");
    }
    forwards.add(*forward);
  }
  return forwards;
}

Result<UntranslatedDestination> read_untranslated(const nfs::UntranslatedDestination& config,
                                                  const Nat44Settings& settings,
                                                  const std::string& field) {
  UntranslatedDestination made;
  const auto prefix = parse_ipv4_prefix(config.prefix());
  if (!prefix) {
    return not_accepted(field + ".prefix", config.prefix(), "a prefix such as 192.0.2.0/24");
  }
  made.prefix = *prefix;
  for (const Be32 external : settings.addresses) {
    if (!prefix->contains(external)) continue;
    return not_accepted(field + ".prefix", config.prefix(),
                        "a prefix without the external address " + to_string(external));
  }
  if (config.protocol() == "tcp") {
    made.protocol = kProtocolTcp;
  } else if (config.protocol() == "udp") {
    made.protocol = kProtocolUdp;
  } else if (config.protocol() == "icmp") {
    made.protocol = kProtocolIcmp;
  } else if (!config.protocol().empty()) {
    return not_accepted(field + ".protocol", config.protocol(), "tcp, udp, icmp");
  }
  if (!config.has_ports()) return made;
  if (made.protocol != kProtocolTcp && made.protocol != kProtocolUdp) {
    return invalid(field + ".ports", "are given without protocol tcp or udp");
  }
  const uint32_t first = config.ports().first(), last = config.ports().last();
  if (first == 0 || last > kLastPort || first > last) {
    return invalid(field + ".ports", std::to_string(first) + " to " + std::to_string(last) +
                                         " is no range of ports; accepted: 1 to 65535");
  }
  made.first_port = static_cast<uint16_t>(first);
  made.last_port = static_cast<uint16_t>(last);
  return made;
}

Result<std::vector<UntranslatedDestination>> read_all_untranslated(const nfs::Nat44Config& config,
                                                                   const Nat44Settings& settings,
                                                                   const std::string& field) {
  if (config.untranslated_size() > kMostUntranslated) {
    return invalid(field, std::to_string(config.untranslated_size()) +
                              " destinations given; accepted: at most " +
                              std::to_string(kMostUntranslated));
  }
  std::vector<UntranslatedDestination> all;
  for (int i = 0; i < config.untranslated_size(); ++i) {
    const auto one =
        read_untranslated(config.untranslated(i), settings, field + '[' + std::to_string(i) + ']');
    if (!one.ok()) return one.error();
    all.push_back(*one);
  }
  return all;
}

// Moves a value out of `from`, or keeps its error.
template <typename T, typename Target>
bool take(Result<T> from, Target& into, std::optional<Error>& error) {
  if (error) return false;
  if (from.ok()) {
    into = std::move(*from);
  } else {
    error = from.error();
  }
  return !error;
}

}  // namespace

std::optional<uint32_t> Nat44Settings::index_of(Be32 address) const {
  const auto found = std::ranges::find(addresses, address);
  if (found == addresses.end()) return std::nullopt;
  return static_cast<uint32_t>(found - addresses.begin());
}

bool Nat44Settings::leaves_alone(const FlowKey& inside) const {
  return std::ranges::any_of(untranslated, [&](const auto& one) { return one.has(inside); });
}

Result<Nat44Settings> read_nat44_settings(const nfs::Nat44Config& config,
                                          const std::string& field) {
  Nat44Settings settings;
  std::optional<Error> error;
  take(read_addresses(config, field + ".external_addresses"), settings.addresses, error) &&
      take(read_range(config, field + ".port_range"), settings.range, error) &&
      take(read_filtering(config.filtering(), field + ".filtering"), settings.filtering, error) &&
      take(read_pooling(config.pooling(), field + ".pooling"), settings.pooling, error) &&
      take(read_blocks(config, settings.range, field + ".port_blocks"), settings.blocks, error) &&
      take(read_deterministic(config, static_cast<uint32_t>(settings.addresses.size()),
                              settings.range, field + ".deterministic"),
           settings.deterministic, error) &&
      take(read_forwards(config, settings, field + ".port_forwards"), settings.forwards, error) &&
      take(read_all_untranslated(config, settings, field + ".untranslated"), settings.untranslated,
           error);
  if (error) return *error;
  settings.preserve_ports = config.preserve_ports();
  settings.mappings_per_host = config.mappings_per_host();
  return settings;
}

}  // namespace flowkeep
