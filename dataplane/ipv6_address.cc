#include "dataplane/ipv6_address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace flowkeep {

bool Ipv6Prefix::contains(const Ipv6Address& other) const {
  const size_t whole = length / 8;
  if (std::memcmp(address.data(), other.data(), whole) != 0) return false;
  if (length % 8 == 0) return true;
  const auto mask = static_cast<uint8_t>(0xff00 >> length % 8);
  return ((address[whole] ^ other[whole]) & mask) == 0;
}

Result<Ipv6Address> parse_ipv6(const std::string& text, const std::string& field) {
  Ipv6Address address;
  if (inet_pton(AF_INET6, text.c_str(), address.data()) == 1) return address;
  return invalid(field, "\"" + text + "\" is no IPv6 address; accepted: 2001:db8::1");
}

Result<Ipv6Prefix> parse_ipv6_prefix(const std::string& text, const std::string& field) {
  const size_t slash = text.find('/');
  const std::string length = slash == std::string::npos ? "128" : text.substr(slash + 1);
  Ipv6Prefix prefix;
  const auto [end, failed] =
      std::from_chars(length.data(), length.data() + length.size(), prefix.length);
  const bool bad_length =
      failed != std::errc() || end != length.data() + length.size() || prefix.length > 128;
  if (bad_length ||
      inet_pton(AF_INET6, text.substr(0, slash).c_str(), prefix.address.data()) != 1) {
    return invalid(field, "\"" + text + "\" is no IPv6 prefix; accepted: 2001:db8::/64");
  }
  return prefix;
}

std::string format_ipv6(const Ipv6Address& address) {
  char text[INET6_ADDRSTRLEN];
  inet_ntop(AF_INET6, address.data(), text, sizeof(text));
  return text;
}

Ipv6Address link_local_address(const uint8_t* mac) {
  return {0xfe,   0x80,   0,    0,    0,      0,      0,     0, static_cast<uint8_t>(mac[0] ^ 0x02),
          mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]};
}

Ipv6Address solicited_node_group(const Ipv6Address& address) {
  Ipv6Address group = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0xff};
  std::copy(address.begin() + 13, address.end(), group.begin() + 13);
  return group;
}

}  // namespace flowkeep
