// Fragmentation: cuts an IP packet into fragments that fit an MTU (RFC 791; RFC 8200 section 4.5,
// for packets that had come as fragments: a router cuts no other IPv6 packet).
//
// Pure. The packet must have been parsed, and outlive the object.
#pragma once

#include <cstddef>
#include <cstdint>

namespace flowkeep {

class Fragmentation {
 public:
  // `packet` begins with its IP header. `identification`: 16 bits of it for IPv4.
  Fragmentation(const uint8_t* packet, size_t packet_bytes, uint32_t mtu, uint32_t identification);

  // 0: it cannot be cut (the headers alone fill the MTU).
  size_t count() const { return count_; }
  size_t bytes(size_t i) const;  // of the i-th fragment as an IP packet
  void write(size_t i, uint8_t* to) const;

 private:
  bool is_ipv6() const { return packet_[0] >> 4 == 6; }
  size_t header_bytes(size_t i) const { return i == 0 ? first_header_bytes_ : later_header_bytes_; }
  size_t payload_bytes(size_t i) const;
  void write_ipv4(size_t i, uint8_t* to) const;
  void write_ipv6(size_t i, uint8_t* to) const;
  size_t copied_options(uint8_t* to) const;

  const uint8_t* packet_;
  uint32_t identification_;
  size_t header_end_;              // where the part that is cut begins
  size_t next_header_at_ = 0;      // IPv6: of the last header that every fragment has
  size_t first_header_bytes_ = 0;  // as it is sent
  size_t later_header_bytes_ = 0;
  size_t unit_ = 0;  // payload of each fragment but the last
  size_t payload_total_ = 0;
  size_t count_ = 0;
};

}  // namespace flowkeep
