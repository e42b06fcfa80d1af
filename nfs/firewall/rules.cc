#include "nfs/firewall/rules.h"

#include <charconv>
#include <optional>
#include <string_view>
#include <utility>

#include "nfs/ipv4_prefix.h"
#include "nfs/packet.h"

namespace flowkeep {
namespace {

using Strings = google::protobuf::RepeatedPtrField<std::string>;

struct PortRange {
  uint16_t first = 0;
  uint16_t last = 65535;
};

std::string quoted(std::string_view text) {
  return '"' + std::string(text) + '"';
}

std::string element(const std::string& field, int index) {
  return field + '[' + std::to_string(index) + ']';
}

std::optional<uint16_t> parse_port(std::string_view text) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return port;
}

std::optional<PortRange> parse_port_range(std::string_view text) {
  const size_t dash = text.find('-');
  const auto first = parse_port(text.substr(0, dash));
  const auto last = dash == std::string_view::npos ? first : parse_port(text.substr(dash + 1));
  if (!first || !last || *first > *last) return std::nullopt;
  return PortRange{*first, *last};
}

Result<std::vector<Ipv4Prefix>> parse_prefixes(const Strings& texts, const std::string& field) {
  std::vector<Ipv4Prefix> prefixes;
  for (int i = 0; i < texts.size(); ++i) {
    const auto prefix = parse_ipv4_prefix(texts[i]);
    if (!prefix) {
      return invalid(element(field, i), quoted(texts[i]) +
                                            " is no IPv4 prefix; accepted: an address "
                                            "or a prefix without host bits, such as 10.0.0.0/8");
    }
    prefixes.push_back(*prefix);
  }
  if (prefixes.empty()) prefixes.emplace_back();
  return prefixes;
}

Result<std::vector<PortRange>> parse_ports(const Strings& texts, const std::string& field,
                                           uint8_t protocol) {
  std::vector<PortRange> ranges;
  if (!texts.empty() && protocol != kProtocolTcp && protocol != kProtocolUdp) {
    return invalid(field, "ports need a protocol that has them; accepted: protocol tcp or udp");
  }
  for (int i = 0; i < texts.size(); ++i) {
    const auto range = parse_port_range(texts[i]);
    if (!range) {
      return invalid(element(field, i), quoted(texts[i]) +
                                            " is no port or range of ports; accepted: "
                                            "0 to 65535, such as 80 or 1000-2000");
    }
    ranges.push_back(*range);
  }
  if (ranges.empty()) ranges.emplace_back();
  return ranges;
}

Result<uint8_t> parse_protocol(const std::string& text, const std::string& field) {
  if (text.empty() || text == "any") return uint8_t{0};
  if (text == "tcp") return kProtocolTcp;
  if (text == "udp") return kProtocolUdp;
  if (text == "icmp") return kProtocolIcmp;
  if (text == "icmpv6") return kProtocolIcmpv6;
  return invalid(field,
                 "unknown protocol " + quoted(text) + "; accepted: tcp, udp, icmp, icmpv6, any");
}

Result<RuleDirection> parse_direction(const std::string& text, const std::string& field) {
  if (text.empty() || text == "any") return RuleDirection::kAny;
  if (text == "from_inside") return RuleDirection::kFromInside;
  if (text == "from_outside") return RuleDirection::kFromOutside;
  return invalid(
      field, "unknown direction " + quoted(text) + "; accepted: from_inside, from_outside, any");
}

ClassifierRule entry_of(ClassifierRule entry, const Ipv4Prefix& src, const Ipv4Prefix& dst,
                        PortRange src_ports, PortRange dst_ports) {
  entry.src = src.address;
  entry.src_bits = src.bits;
  entry.dst = dst.address;
  entry.dst_bits = dst.bits;
  entry.src_port_first = src_ports.first;
  entry.src_port_last = src_ports.last;
  entry.dst_port_first = dst_ports.first;
  entry.dst_port_last = dst_ports.last;
  return entry;
}

}  // namespace

Result<void> add_rule_entries(const nfs::FirewallRule& rule, const std::string& field,
                              uint32_t index, size_t most, std::vector<ClassifierRule>& entries) {
  const auto protocol = parse_protocol(rule.protocol(), field + ".protocol");
  if (!protocol.ok()) return protocol.error();
  const auto direction = parse_direction(rule.direction(), field + ".direction");
  if (!direction.ok()) return direction.error();
  const auto sources = parse_prefixes(rule.source(), field + ".source");
  if (!sources.ok()) return sources.error();
  const auto destinations = parse_prefixes(rule.destination(), field + ".destination");
  if (!destinations.ok()) return destinations.error();
  const auto src_ports = parse_ports(rule.source_ports(), field + ".source_ports", *protocol);
  if (!src_ports.ok()) return src_ports.error();
  const auto dst_ports =
      parse_ports(rule.destination_ports(), field + ".destination_ports", *protocol);
  if (!dst_ports.ok()) return dst_ports.error();

  // Factor by factor: the product of four long lists would not fit a size_t.
  size_t combinations = 1;
  for (const size_t factor :
       {sources->size(), destinations->size(), src_ports->size(), dst_ports->size()}) {
    if (combinations <= most) combinations *= factor;
  }
  if (combinations > most - entries.size()) {
    return invalid(field, "too many combinations of prefixes and ports; accepted: " +
                              std::to_string(most) + " over all rules");
  }
  ClassifierRule shared;
  shared.protocol = *protocol;
  shared.direction = *direction;
  shared.rule = index;
  for (const Ipv4Prefix& src : *sources) {
    for (const Ipv4Prefix& dst : *destinations) {
      for (PortRange from : *src_ports) {
        for (PortRange to : *dst_ports) entries.push_back(entry_of(shared, src, dst, from, to));
      }
    }
  }
  return {};
}

}  // namespace flowkeep
