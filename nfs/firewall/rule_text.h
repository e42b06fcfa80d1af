// The words of firewall rules: protocols, ICMP types, TCP flags, directions, ports. Each function
// takes the field's path for its error, which says what would be accepted.
#pragma once

#include <google/protobuf/repeated_field.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "nfs/firewall/classifier.h"
#include "state/result.h"

namespace flowkeep {

using RuleTexts = google::protobuf::RepeatedPtrField<std::string>;

struct PortRange {
  uint16_t first = 0;  // inclusive
  uint16_t last = 65535;
};

struct TcpFlagMatch {
  uint8_t mask = 0;
  uint8_t value = 0;
};

std::string quoted(std::string_view text);

// A decimal number without sign or leading zeros, up to `most`.
std::optional<uint32_t> parse_number(std::string_view text, uint32_t most);
// "80", "1000-2000".
std::optional<PortRange> parse_port_range(std::string_view text);

// Nothing: every protocol.
Result<std::optional<uint8_t>> parse_protocol(const std::string& text, const std::string& field);
Result<RuleDirection> parse_direction(const std::string& text, const std::string& field);
// Nothing: both.
Result<std::optional<AddressFamily>> parse_family(const std::string& text,
                                                  const std::string& field);
// Of ICMP, or of ICMPv6. Empty text: every type or code.
Result<PortRange> parse_icmp_type(const std::string& text, bool icmpv6, const std::string& field);
Result<PortRange> parse_icmp_code(const std::string& text, const std::string& field);
Result<TcpFlagMatch> parse_tcp_flags(const RuleTexts& set, const RuleTexts& unset,
                                     const std::string& field);

}  // namespace flowkeep
