#include "nfs/ipv4_prefix.h"

#include <charconv>

namespace flowkeep {
namespace {

// A decimal number up to `most` without sign or leading zeros.
std::optional<uint32_t> parse_decimal(std::string_view text, uint32_t most) {
  if (text.empty() || (text.size() > 1 && text.front() == '0')) return std::nullopt;
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value > most) return std::nullopt;
  return value;
}

}  // namespace

std::optional<Be32> parse_ipv4_address(std::string_view text) {
  uint32_t address = 0;
  for (int octet = 0; octet < 4; ++octet) {
    const size_t dot = text.find('.');
    if ((dot == std::string_view::npos) != (octet == 3)) return std::nullopt;
    const auto value = parse_decimal(text.substr(0, dot), 255);
    if (!value) return std::nullopt;
    address = address << 8 | *value;
    if (octet < 3) text.remove_prefix(dot + 1);
  }
  return Be32::from_host(address);
}

std::optional<Ipv4Prefix> parse_ipv4_prefix(std::string_view text) {
  const size_t slash = text.find('/');
  const auto address = parse_ipv4_address(text.substr(0, slash));
  if (!address) return std::nullopt;
  Ipv4Prefix prefix{*address, 32};
  if (slash != std::string_view::npos) {
    const auto bits = parse_decimal(text.substr(slash + 1), 32);
    if (!bits) return std::nullopt;
    prefix.bits = static_cast<uint8_t>(*bits);
  }
  const uint32_t host_mask = prefix.bits == 32 ? 0 : ~uint32_t{0} >> prefix.bits;
  if ((prefix.address.host() & host_mask) != 0) return std::nullopt;
  return prefix;
}

std::string to_string(Be32 address) {
  const uint32_t host = address.host();
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8) {
    text += std::to_string(host >> shift & 0xff);
    if (shift > 0) text += '.';
  }
  return text;
}

}  // namespace flowkeep
