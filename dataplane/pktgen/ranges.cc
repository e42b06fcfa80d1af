#include "dataplane/pktgen/ranges.h"

#include <arpa/inet.h>

#include <charconv>

namespace flowkeep::pktgen {
namespace {

std::optional<uint32_t> parse_number(std::string_view text, uint32_t most) {
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number > most)
    return std::nullopt;
  return number;
}

uint32_t mask_of(uint32_t length) {
  return length == 0 ? 0 : ~uint32_t{0} << (32 - length);
}

}  // namespace

std::string address_text(Be32 address) {
  char text[INET_ADDRSTRLEN];
  return inet_ntop(AF_INET, &address.raw, text, sizeof(text));
}

std::optional<Be32> parse_address(std::string_view text) {
  Be32 address;
  if (inet_pton(AF_INET, std::string(text).c_str(), &address.raw) != 1) return std::nullopt;
  return address;
}

std::optional<Prefix> parse_prefix(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const auto address = parse_address(text.substr(0, slash));
  const auto length = parse_number(text.substr(slash + 1), 32);
  if (!address || !length) return std::nullopt;
  const uint32_t mask = mask_of(*length);
  return Prefix{Be32::from_host(address->host() & mask), mask};
}

std::optional<AddressRange> parse_address_range(std::string_view text) {
  if (text.find('/') != std::string_view::npos) {
    const auto prefix = parse_prefix(text);
    if (!prefix || prefix->mask == 0) return std::nullopt;
    return AddressRange{prefix->network, ~prefix->mask + 1};
  }
  const size_t dash = text.find('-');
  const auto first = parse_address(text.substr(0, dash));
  if (!first) return std::nullopt;
  if (dash == std::string_view::npos) return AddressRange{*first, 1};
  const auto last = parse_address(text.substr(dash + 1));
  if (!last || last->host() < first->host() || last->host() - first->host() == UINT32_MAX)
    return std::nullopt;
  return AddressRange{*first, last->host() - first->host() + 1};
}

std::optional<PortRange> parse_port_range(std::string_view text) {
  const size_t dash = text.find('-');
  const auto first = parse_number(text.substr(0, dash), 65535);
  if (!first || *first == 0) return std::nullopt;
  if (dash == std::string_view::npos) return PortRange{static_cast<uint16_t>(*first), 1};
  const auto last = parse_number(text.substr(dash + 1), 65535);
  if (!last || *last < *first) return std::nullopt;
  return PortRange{static_cast<uint16_t>(*first), *last - *first + 1};
}

}  // namespace flowkeep::pktgen
