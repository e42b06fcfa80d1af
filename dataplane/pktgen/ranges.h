// Ranges of IPv4 addresses and of ports, as given on the command line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "state/flow_key.h"

namespace flowkeep::pktgen {

// `count` addresses from `first` on; never empty, never beyond 255.255.255.255.
struct AddressRange {
  Be32 first;
  uint32_t count = 1;

  Be32 at(uint32_t index) const { return Be32::from_host(first.host() + index); }
  bool contains(Be32 address) const { return address.host() - first.host() < count; }
};

struct PortRange {
  uint16_t first = 0;
  uint32_t count = 1;

  Be16 at(uint32_t index) const { return Be16::from_host(static_cast<uint16_t>(first + index)); }
};

// A prefix that replaces the leading bits of an address.
struct Prefix {
  Be32 network;
  uint32_t mask = 0;  // host byte order

  Be32 replace_in(Be32 address) const {
    return Be32::from_host((network.host() & mask) | (address.host() & ~mask));
  }
};

std::string address_text(Be32 address);
std::optional<Be32> parse_address(std::string_view text);                // "10.0.0.1"
std::optional<AddressRange> parse_address_range(std::string_view text);  // "a", "a-b", "a/24"
std::optional<PortRange> parse_port_range(std::string_view text);        // "7", "1024-2047"
std::optional<Prefix> parse_prefix(std::string_view text);               // "10.0.0.0/8"

}  // namespace flowkeep::pktgen
