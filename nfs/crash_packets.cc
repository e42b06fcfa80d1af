#include "nfs/crash_packets.h"

#include <array>

namespace flowkeep {

namespace {

constexpr std::array<const char*, 4> kRemotes = {"198.51.100.7", "198.51.100.8", "203.0.113.200",
                                                 "192.0.2.66"};
constexpr std::array<uint16_t, 3> kRemotePorts = {53, 443, 8080};

template <typename Choices>
auto pick(const Choices& choices, std::mt19937_64& random) {
  return choices[random() % std::size(choices)];
}

constexpr std::array<const char*, 3> kWideRemotes = {"2001:db8:1::7", "2001:db8:1::8",
                                                     "2001:db8:2::66"};

std::string address_text(const Ipv6Address& address) {
  char text[INET6_ADDRSTRLEN] = {};
  inet_ntop(AF_INET6, address.data(), text, sizeof(text));
  return text;
}

// `addresses`: of a key of IPv6.
Bytes frame_of(const FlowKey& key, const WideAddresses& addresses, uint8_t tcp_flags) {
  const bool is_wide = key.family == Family::kIpv6;
  const std::string src = is_wide ? address_text(addresses.src) : to_string(key.src);
  const std::string dst = is_wide ? address_text(addresses.dst) : to_string(key.dst);
  switch (key.protocol) {
    case kProtocolTcp:
      return PacketBuilder::tcp(src, key.src_port.host(), dst, key.dst_port.host(), tcp_flags)
          .build();
    case kProtocolUdp:
      return PacketBuilder::udp(src, key.src_port.host(), dst, key.dst_port.host()).build();
    default:
      return key.side == Side::kInside
                 ? PacketBuilder::echo_request(src, dst, key.src_port.host()).build()
                 : PacketBuilder::echo_reply(src, dst, key.dst_port.host()).build();
  }
}

}  // namespace

CrashPacket packet_of_flow(const FlowRecord& flow, Side side, uint8_t tcp_flags) {
  if (side == Side::kInside) return {side, frame_of(flow.inside_key, flow.addresses, tcp_flags)};
  return {side, frame_of(flow.outside_key, flow.addresses.reversed(), tcp_flags)};
}

// Few ports: endpoints with several flows. Many: an index that grows.
constexpr std::array<uint64_t, 2> kPorts = {24, 4000};

CrashPacket first_packet(std::mt19937_64& random) {
  FlowKey key;
  // A packet's own addresses decide; the key's folds are the parser's business.
  WideAddresses addresses;
  if (random() % 3 == 0) {
    key.family = Family::kIpv6;
    addresses.src = ipv6_address("2001:db8::2");
    addresses.src[15] = static_cast<uint8_t>(2 + random() % 3);
    addresses.dst = ipv6_address(pick(kWideRemotes, random));
  }
  key.protocol = pick(std::array{kProtocolTcp, kProtocolTcp, kProtocolUdp, kProtocolIcmp}, random);
  key.src = Be32::from_host(static_cast<uint32_t>(0x0a000002 + random() % 3));
  key.dst = *parse_ipv4_address(pick(kRemotes, random));
  key.src_port = Be16::from_host(static_cast<uint16_t>(2000 + random() % pick(kPorts, random)));
  if (key.protocol != kProtocolIcmp) key.dst_port = Be16::from_host(pick(kRemotePorts, random));
  return {Side::kInside, frame_of(key, addresses, kTcpSyn)};
}

CrashPacket next_packet(const FlowRecord& flow, std::mt19937_64& random) {
  constexpr std::array<uint8_t, 8> kFlags = {kTcpAck,           kTcpAck,          kTcpAck,
                                             kTcpFin | kTcpAck, kTcpRst,          kTcpFin | kTcpAck,
                                             kTcpSyn,           kTcpSyn | kTcpAck};
  const Side side = random() % 2 == 0 ? Side::kInside : Side::kOutside;
  return packet_of_flow(flow, side, pick(kFlags, random));
}

CrashPacket stray_packet(const FlowRecord& flow, std::mt19937_64& random) {
  FlowRecord stray = flow;
  stray.outside_key.src_port = Be16::from_host(static_cast<uint16_t>(random()));
  return packet_of_flow(stray, Side::kOutside, kTcpAck);
}

}  // namespace flowkeep
