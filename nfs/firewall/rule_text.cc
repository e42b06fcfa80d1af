#include "nfs/firewall/rule_text.h"

#include <array>
#include <charconv>
#include <span>

namespace flowkeep {
namespace {

struct NamedNumber {
  std::string_view name;
  uint8_t number;
};

// IANA "Protocol Numbers".
constexpr auto kProtocols = std::to_array<NamedNumber>({{"tcp", 6},
                                                        {"udp", 17},
                                                        {"icmp", 1},
                                                        {"icmpv6", 58},
                                                        {"sctp", 132},
                                                        {"gre", 47},
                                                        {"esp", 50},
                                                        {"ah", 51}});
// IANA "ICMP Type Numbers", with the names that nftables has for them.
constexpr auto kIcmpTypes = std::to_array<NamedNumber>({{"echo-reply", 0},
                                                        {"destination-unreachable", 3},
                                                        {"redirect", 5},
                                                        {"echo-request", 8},
                                                        {"time-exceeded", 11},
                                                        {"parameter-problem", 12},
                                                        {"timestamp-request", 13},
                                                        {"timestamp-reply", 14}});
// IANA "ICMPv6 type Numbers".
constexpr auto kIcmpv6Types = std::to_array<NamedNumber>({{"destination-unreachable", 1},
                                                          {"packet-too-big", 2},
                                                          {"time-exceeded", 3},
                                                          {"parameter-problem", 4},
                                                          {"echo-request", 128},
                                                          {"echo-reply", 129}});
// RFC 9293 section 3.1.
constexpr auto kTcpFlags = std::to_array<NamedNumber>({{"fin", 0x01},
                                                       {"syn", 0x02},
                                                       {"rst", 0x04},
                                                       {"psh", 0x08},
                                                       {"ack", 0x10},
                                                       {"urg", 0x20},
                                                       {"ece", 0x40},
                                                       {"cwr", 0x80}});

std::optional<uint8_t> number_of(std::string_view name, std::span<const NamedNumber> table) {
  for (const NamedNumber& entry : table) {
    if (entry.name == name) return entry.number;
  }
  return std::nullopt;
}

std::string names_of(std::span<const NamedNumber> table) {
  std::string names;
  for (const NamedNumber& entry : table) {
    names.append(names.empty() ? "" : ", ").append(entry.name);
  }
  return names;
}

PortRange single(uint32_t number) {
  const auto value = static_cast<uint16_t>(number);
  return {value, value};
}

Result<uint8_t> flag_bits(const RuleTexts& names, const std::string& field) {
  uint8_t bits = 0;
  for (int i = 0; i < names.size(); ++i) {
    const auto bit = number_of(names[i], kTcpFlags);
    if (!bit) {
      return invalid(field + '[' + std::to_string(i) + ']',
                     "unknown TCP flag " + quoted(names[i]) + "; accepted: " + names_of(kTcpFlags));
    }
    bits = static_cast<uint8_t>(bits | *bit);
  }
  return bits;
}

}  // namespace

std::string quoted(std::string_view text) {
  return '"' + std::string(text) + '"';
}

std::optional<uint32_t> parse_number(std::string_view text, uint32_t most) {
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool leading_zero = text.size() > 1 && text.front() == '0';
  if (error != std::errc{} || end != text.data() + text.size() || leading_zero || number > most)
    return std::nullopt;
  return number;
}

std::optional<PortRange> parse_port_range(std::string_view text) {
  const size_t dash = text.find('-');
  const auto first = parse_number(text.substr(0, dash), 65535);
  const auto last =
      dash == std::string_view::npos ? first : parse_number(text.substr(dash + 1), 65535);
  if (!first || !last || *first > *last) return std::nullopt;
  return PortRange{static_cast<uint16_t>(*first), static_cast<uint16_t>(*last)};
}

Result<std::optional<uint8_t>> parse_protocol(const std::string& text, const std::string& field) {
  if (text.empty() || text == "any") return std::optional<uint8_t>();
  if (const auto named = number_of(text, kProtocols)) return std::optional(*named);
  if (const auto number = parse_number(text, 255))
    return std::optional(static_cast<uint8_t>(*number));
  return invalid(field, "unknown protocol " + quoted(text) + "; accepted: " + names_of(kProtocols) +
                            ", any, or a number up to 255");
}

Result<RuleDirection> parse_direction(const std::string& text, const std::string& field) {
  if (text.empty() || text == "any") return RuleDirection::kAny;
  if (text == "from_inside") return RuleDirection::kFromInside;
  if (text == "from_outside") return RuleDirection::kFromOutside;
  return invalid(
      field, "unknown direction " + quoted(text) + "; accepted: from_inside, from_outside, any");
}

Result<std::optional<AddressFamily>> parse_family(const std::string& text,
                                                  const std::string& field) {
  if (text.empty() || text == "any") return std::optional<AddressFamily>();
  if (text == "ipv4") return std::optional(AddressFamily::kIpv4);
  if (text == "ipv6") return std::optional(AddressFamily::kIpv6);
  return invalid(field, "unknown family " + quoted(text) + "; accepted: ipv4, ipv6, any");
}

Result<PortRange> parse_icmp_type(const std::string& text, bool icmpv6, const std::string& field) {
  if (text.empty()) return PortRange{};
  const std::span<const NamedNumber> names =
      icmpv6 ? std::span<const NamedNumber>(kIcmpv6Types) : kIcmpTypes;
  if (const auto named = number_of(text, names)) return single(*named);
  if (const auto number = parse_number(text, 255)) return single(*number);
  return invalid(field, "unknown type " + quoted(text) + "; accepted: " + names_of(names) +
                            ", or a number up to 255");
}

Result<PortRange> parse_icmp_code(const std::string& text, const std::string& field) {
  if (text.empty()) return PortRange{};
  if (const auto number = parse_number(text, 255)) return single(*number);
  return invalid(field, quoted(text) + " is no code; accepted: a number up to 255");
}

Result<TcpFlagMatch> parse_tcp_flags(const RuleTexts& set, const RuleTexts& unset,
                                     const std::string& field) {
  const auto ones = flag_bits(set, field + ".tcp_flags_set");
  if (!ones.ok()) return ones.error();
  const auto zeros = flag_bits(unset, field + ".tcp_flags_unset");
  if (!zeros.ok()) return zeros.error();
  if ((*ones & *zeros) != 0) {
    return invalid(field + ".tcp_flags_unset",
                   "has a flag of tcp_flags_set; accepted: a flag in one of the two");
  }
  return TcpFlagMatch{static_cast<uint8_t>(*ones | *zeros), *ones};
}

}  // namespace flowkeep
