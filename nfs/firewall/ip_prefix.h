// Prefixes of either address family, as people write them in rules.
#pragma once

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>

#include "nfs/firewall/header_tuple.h"

namespace flowkeep {

struct IpPrefix {
  AddressFamily family = AddressFamily::kIpv4;
  uint8_t bits = 0;        // 0 to 32, or to 128
  AddressBytes address{};  // host bits are zero
};

// "10.0.0.0/8", "2001:db8::/32" (RFC 4291 section 2.3); without a length it is one address. Host
// bits must be zero.
std::optional<IpPrefix> parse_ip_prefix(std::string_view text);

// Do the first `bits` bits agree?
inline bool same_prefix(const AddressBytes& a, const AddressBytes& b, uint8_t bits) {
  const size_t whole = bits / 8;
  if (std::memcmp(a.data(), b.data(), whole) != 0) return false;
  const uint32_t rest = bits % 8;
  return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

}  // namespace flowkeep
