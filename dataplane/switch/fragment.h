// Fragment: one fragment of an IP datagram as its headers describe it (RFC 791, RFC 8200
// section 4.5). Read with every bound checked; points into the frame.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace flowkeep {

// What the fragments of one datagram have in common, at the port where they arrive.
struct DatagramId {
  std::array<uint8_t, 32> addresses{};  // source, destination; IPv4's are in the first 8 bytes
  uint32_t identification = 0;
  uint8_t protocol = 0;  // IPv4 only: RFC 8200 does not tell datagrams apart by it
  uint8_t version = 4;
  uint8_t port = 0;
  uint8_t zero = 0;
  friend bool operator==(const DatagramId&, const DatagramId&) = default;
};
static_assert(sizeof(DatagramId) == 40);

struct Fragment {
  DatagramId id;
  const uint8_t* frame = nullptr;
  uint16_t header_bytes =
      0;  // Ethernet and all in front of the payload, IPv6's fragment header not
  const uint8_t* payload = nullptr;
  uint32_t payload_bytes = 0;
  uint32_t offset = 0;  // of the payload within the datagram, bytes
  bool more = false;
  // IPv6: the fragment header's next header, and where in the frame the header in front names it.
  uint8_t next_header = 0;
  uint16_t next_header_at = 0;
  uint32_t packet_bytes() const;  // of the fragment itself as an IP packet
};

// Of an untagged Ethernet frame. None if it is no fragment, or not whole.
std::optional<Fragment> read_ipv4_fragment(const uint8_t* frame, size_t length, uint8_t port);
std::optional<Fragment> read_ipv6_fragment(const uint8_t* frame, size_t length, uint8_t port);

}  // namespace flowkeep
