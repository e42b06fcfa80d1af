#include "dataplane/pktgen/arp.h"

#include <algorithm>
#include <cstring>

#include "dataplane/pktgen/packet_format.h"

namespace flowkeep::pktgen {
namespace {

constexpr size_t kArpBytes = 28;
// Hardware Ethernet, protocol IPv4, their address lengths.
constexpr std::array<uint8_t, 6> kFixed = {0, 1, 8, 0, 6, 4};

}  // namespace

std::optional<ArpMessage> read_arp(std::span<const uint8_t> frame) {
  if (frame.size() < kEthernetBytes + kArpBytes) return std::nullopt;
  const uint8_t* arp = frame.data() + kEthernetBytes;
  if (frame[12] != kEtherTypeArp >> 8 || frame[13] != (kEtherTypeArp & 0xff)) return std::nullopt;
  if (!std::equal(kFixed.begin(), kFixed.end(), arp) || arp[6] != 0) return std::nullopt;
  if (arp[7] != 1 && arp[7] != 2) return std::nullopt;
  ArpMessage message;
  message.operation = static_cast<ArpOperation>(arp[7]);
  std::memcpy(message.sender_mac.data(), arp + 8, 6);
  std::memcpy(&message.sender, arp + 14, 4);
  std::memcpy(message.target_mac.data(), arp + 18, 6);
  std::memcpy(&message.target, arp + 24, 4);
  return message;
}

std::array<uint8_t, kArpFrameBytes> write_arp(const ArpMessage& message) {
  std::array<uint8_t, kArpFrameBytes> frame{};
  const bool request = message.operation == ArpOperation::kRequest;
  const MacAddress& destination = request ? kBroadcastMac : message.target_mac;
  std::copy(destination.begin(), destination.end(), frame.begin());
  std::copy(message.sender_mac.begin(), message.sender_mac.end(), frame.begin() + 6);
  frame[12] = kEtherTypeArp >> 8;
  frame[13] = kEtherTypeArp & 0xff;
  uint8_t* arp = frame.data() + kEthernetBytes;
  std::copy(kFixed.begin(), kFixed.end(), arp);
  arp[7] = static_cast<uint8_t>(message.operation);
  std::memcpy(arp + 8, message.sender_mac.data(), 6);
  std::memcpy(arp + 14, &message.sender, 4);
  if (!request) std::memcpy(arp + 18, message.target_mac.data(), 6);
  std::memcpy(arp + 24, &message.target, 4);
  return frame;
}

std::optional<ArpMessage> answer_arp(const ArpMessage& request, const MacAddress& own_mac,
                                     const std::vector<AddressRange>& ranges) {
  if (request.operation != ArpOperation::kRequest) return std::nullopt;
  const bool ours = std::any_of(ranges.begin(), ranges.end(), [&](const AddressRange& range) {
    return range.contains(request.target);
  });
  if (!ours) return std::nullopt;
  return ArpMessage{ArpOperation::kReply, own_mac, request.target, request.sender_mac,
                    request.sender};
}

}  // namespace flowkeep::pktgen
