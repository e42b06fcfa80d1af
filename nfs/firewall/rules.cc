#include "nfs/firewall/rules.h"

#include <algorithm>
#include <array>

#include "nfs/packet.h"

namespace flowkeep {
namespace {

constexpr uint8_t kSctp = 132;

// What a rule says below the addresses.
struct UpperLayer {
  std::vector<PortRange> src_ports;  // ICMP: types
  std::vector<PortRange> dst_ports;  // ICMP: codes
  TcpFlagMatch flags;
};

bool has_ports(std::optional<uint8_t> protocol) {
  return protocol == kProtocolTcp || protocol == kProtocolUdp || protocol == kSctp;
}
bool is_icmp(std::optional<uint8_t> protocol) {
  return protocol == kProtocolIcmp || protocol == kProtocolIcmpv6;
}

Result<void> refuse_fields_of_other_protocols(const nfs::FirewallRule& rule,
                                              const std::string& field,
                                              std::optional<uint8_t> protocol) {
  const bool flags = rule.tcp_flags_set_size() + rule.tcp_flags_unset_size() > 0;
  if (flags && protocol != kProtocolTcp) {
    return invalid(field + (rule.tcp_flags_set_size() > 0 ? ".tcp_flags_set" : ".tcp_flags_unset"),
                   "flags need a protocol that has them; accepted: protocol tcp");
  }
  const bool ports = rule.source_ports_size() + rule.destination_ports_size() > 0;
  if (ports && !has_ports(protocol)) {
    return invalid(field + (rule.source_ports_size() > 0 ? ".source_ports" : ".destination_ports"),
                   "ports need a protocol that has them; accepted: protocol tcp, udp or sctp");
  }
  const bool type = !rule.icmp_type().empty();
  if ((type || !rule.icmp_code().empty()) && !is_icmp(protocol)) {
    return invalid(field + (type ? ".icmp_type" : ".icmp_code"),
                   "types and codes need a protocol that has them; accepted: protocol icmp or "
                   "icmpv6");
  }
  if (!type && !rule.icmp_code().empty()) {
    return invalid(field + ".icmp_code",
                   "means something else with each type; accepted: together with icmp_type");
  }
  return {};
}

Result<UpperLayer> upper_layer(const nfs::FirewallRule& rule, const NamedSets& sets,
                               const std::string& field, std::optional<uint8_t> protocol) {
  if (const auto fits = refuse_fields_of_other_protocols(rule, field, protocol); !fits.ok())
    return fits.error();
  UpperLayer layer;
  if (is_icmp(protocol)) {
    const auto type =
        parse_icmp_type(rule.icmp_type(), protocol == kProtocolIcmpv6, field + ".icmp_type");
    if (!type.ok()) return type.error();
    const auto code = parse_icmp_code(rule.icmp_code(), field + ".icmp_code");
    if (!code.ok()) return code.error();
    layer.src_ports = {*type};
    layer.dst_ports = {*code};
    return layer;
  }
  const auto from = sets.ports(rule.source_ports(), field + ".source_ports");
  if (!from.ok()) return from.error();
  const auto to = sets.ports(rule.destination_ports(), field + ".destination_ports");
  if (!to.ok()) return to.error();
  const auto flags = parse_tcp_flags(rule.tcp_flags_set(), rule.tcp_flags_unset(), field);
  if (!flags.ok()) return flags.error();
  layer.src_ports = from->empty() ? std::vector<PortRange>{{}} : *from;
  layer.dst_ports = to->empty() ? std::vector<PortRange>{{}} : *to;
  layer.flags = *flags;
  return layer;
}

// The prefixes of one family; everything of it if the rule has no list.
std::vector<IpPrefix> of_family(const std::vector<IpPrefix>& prefixes, AddressFamily family) {
  if (prefixes.empty()) return {IpPrefix{family, 0, {}}};
  std::vector<IpPrefix> chosen;
  std::ranges::copy_if(prefixes, std::back_inserter(chosen),
                       [family](const IpPrefix& prefix) { return prefix.family == family; });
  return chosen;
}

bool may_be_of(AddressFamily family, std::optional<AddressFamily> wanted,
               std::optional<uint8_t> protocol) {
  if (wanted && *wanted != family) return false;
  if (protocol == kProtocolIcmp) return family == AddressFamily::kIpv4;
  return protocol != kProtocolIcmpv6 || family == AddressFamily::kIpv6;
}

void add_combinations(const ClassifierRule& shared, const std::vector<IpPrefix>& sources,
                      const std::vector<IpPrefix>& destinations, const UpperLayer& layer,
                      std::vector<ClassifierRule>& entries) {
  for (const IpPrefix& src : sources) {
    for (const IpPrefix& dst : destinations) {
      for (const PortRange from : layer.src_ports) {
        for (const PortRange to : layer.dst_ports) {
          ClassifierRule& entry = entries.emplace_back(shared);
          entry.family = src.family;
          entry.src = src.address;
          entry.src_bits = src.bits;
          entry.dst = dst.address;
          entry.dst_bits = dst.bits;
          entry.src_port_first = from.first;
          entry.src_port_last = from.last;
          entry.dst_port_first = to.first;
          entry.dst_port_last = to.last;
        }
      }
    }
  }
}

// Factor by factor: the product of four long lists would not fit a size_t.
bool fits(std::array<size_t, 4> factors, size_t most) {
  size_t combinations = 1;
  for (const size_t factor : factors) {
    if (combinations <= most) combinations *= factor;
  }
  return combinations <= most;
}

}  // namespace

Result<void> add_rule_entries(const nfs::FirewallRule& rule, const NamedSets& sets,
                              const std::string& field, uint32_t index, size_t most,
                              std::vector<ClassifierRule>& entries) {
  const auto protocol = parse_protocol(rule.protocol(), field + ".protocol");
  if (!protocol.ok()) return protocol.error();
  const auto direction = parse_direction(rule.direction(), field + ".direction");
  if (!direction.ok()) return direction.error();
  const auto family = parse_family(rule.family(), field + ".family");
  if (!family.ok()) return family.error();
  const auto sources = sets.prefixes(rule.source(), field + ".source");
  if (!sources.ok()) return sources.error();
  const auto destinations = sets.prefixes(rule.destination(), field + ".destination");
  if (!destinations.ok()) return destinations.error();
  const auto layer = upper_layer(rule, sets, field, *protocol);
  if (!layer.ok()) return layer.error();

  ClassifierRule shared;
  shared.any_protocol = !protocol->has_value();
  shared.protocol = protocol->value_or(0);
  shared.tcp_flags_mask = layer->flags.mask;
  shared.tcp_flags = layer->flags.value;
  shared.direction = *direction;
  shared.rule = index;
  const size_t before = entries.size();
  for (const AddressFamily each : {AddressFamily::kIpv4, AddressFamily::kIpv6}) {
    if (!may_be_of(each, *family, *protocol)) continue;
    const auto from = of_family(*sources, each);
    const auto to = of_family(*destinations, each);
    if (!fits({from.size(), to.size(), layer->src_ports.size(), layer->dst_ports.size()},
              most - entries.size())) {
      return invalid(field, "too many combinations of prefixes and ports; accepted: " +
                                std::to_string(most) + " over all rules");
    }
    add_combinations(shared, from, to, *layer, entries);
  }
  if (entries.size() > before) return {};
  return invalid(field,
                 "no packet can match: its family, protocol, source and destination have no "
                 "address family in common; accepted: at least one");
}

}  // namespace flowkeep
