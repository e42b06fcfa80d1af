// MacAddress: the six bytes of an Ethernet address, and their text form.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

namespace flowkeep::pktgen {

using MacAddress = std::array<uint8_t, 6>;

inline constexpr MacAddress kBroadcastMac = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

inline std::string mac_text(const MacAddress& mac) {
  char text[18];
  std::snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
                mac[4], mac[5]);
  return text;
}

// "02:00:00:00:00:01"
inline std::optional<MacAddress> parse_mac(const std::string& text) {
  MacAddress mac{};
  int end = 0;
  const int fields = std::sscanf(text.c_str(), "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0],
                                 &mac[1], &mac[2], &mac[3], &mac[4], &mac[5], &end);
  if (fields != 6 || static_cast<size_t>(end) != text.size()) return std::nullopt;
  return mac;
}

}  // namespace flowkeep::pktgen
