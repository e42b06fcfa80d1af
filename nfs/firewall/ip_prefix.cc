#include "nfs/firewall/ip_prefix.h"

#include <arpa/inet.h>

#include <charconv>
#include <string>

#include "nfs/ipv4_prefix.h"

namespace flowkeep {
namespace {

std::optional<uint8_t> parse_bits(std::string_view text, uint8_t most) {
  uint8_t bits = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), bits);
  const bool leading_zero = text.size() > 1 && text.front() == '0';
  if (error != std::errc{} || end != text.data() + text.size() || leading_zero || bits > most)
    return std::nullopt;
  return bits;
}

bool host_bits_are_zero(const IpPrefix& prefix) {
  IpPrefix masked = prefix;
  for (size_t bit = prefix.bits; bit < 128; ++bit) {
    masked.address[bit / 8] = static_cast<uint8_t>(masked.address[bit / 8] & ~(0x80 >> bit % 8));
  }
  return masked.address == prefix.address;
}

}  // namespace

std::optional<IpPrefix> parse_ip_prefix(std::string_view text) {
  if (text.find(':') == std::string_view::npos) {
    const auto ipv4 = parse_ipv4_prefix(text);
    if (!ipv4) return std::nullopt;
    return IpPrefix{AddressFamily::kIpv4, ipv4->bits, address_bytes(ipv4->address)};
  }
  const size_t slash = text.find('/');
  IpPrefix prefix{AddressFamily::kIpv6, 128, {}};
  const std::string address(text.substr(0, slash));
  if (inet_pton(AF_INET6, address.c_str(), prefix.address.data()) != 1) return std::nullopt;
  if (slash != std::string_view::npos) {
    const auto bits = parse_bits(text.substr(slash + 1), 128);
    if (!bits) return std::nullopt;
    prefix.bits = *bits;
  }
  if (!host_bits_are_zero(prefix)) return std::nullopt;
  return prefix;
}

}  // namespace flowkeep
