// IPv4 addresses and prefixes as people write them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "state/flow_key.h"

namespace flowkeep {

struct Ipv4Prefix {
  Be32 address;      // host bits are zero
  uint8_t bits = 0;  // 0 to 32

  bool contains(Be32 other) const {
    const uint32_t mask = bits == 0 ? 0 : ~uint32_t{0} << (32 - bits);
    return ((other.host() ^ address.host()) & mask) == 0;
  }
};

// Dotted quad, decimal, no leading zeros.
std::optional<Be32> parse_ipv4_address(std::string_view text);
// "10.0.0.0/8"; "10.1.2.3" is a /32. Host bits must be zero.
std::optional<Ipv4Prefix> parse_ipv4_prefix(std::string_view text);
std::string to_string(Be32 address);

}  // namespace flowkeep
