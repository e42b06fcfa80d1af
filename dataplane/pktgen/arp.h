// ARP for IPv4 over Ethernet (RFC 826): reading messages and writing them. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "dataplane/pktgen/mac_address.h"
#include "dataplane/pktgen/ranges.h"

namespace flowkeep::pktgen {

inline constexpr size_t kArpFrameBytes = 60;  // padded to the shortest Ethernet frame

enum class ArpOperation : uint16_t { kRequest = 1, kReply = 2 };

struct ArpMessage {
  ArpOperation operation = ArpOperation::kRequest;
  MacAddress sender_mac{};
  Be32 sender;
  MacAddress target_mac{};
  Be32 target;
};

// Nothing if the frame is no request or reply for IPv4 over Ethernet.
std::optional<ArpMessage> read_arp(std::span<const uint8_t> frame);

// A whole frame; a request is broadcast.
std::array<uint8_t, kArpFrameBytes> write_arp(const ArpMessage& message);

// The answer to a request for an address of one of `ranges`; otherwise nothing.
std::optional<ArpMessage> answer_arp(const ArpMessage& request, const MacAddress& own_mac,
                                     const std::vector<AddressRange>& ranges);

}  // namespace flowkeep::pktgen
