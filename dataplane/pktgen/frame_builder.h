// FrameBuilder: writes a run's frames (Ethernet, IPv4, UDP or TCP SYN, tag, zeros) with valid
// checksums. All that frames have in common is prepared once. Immutable.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "dataplane/pktgen/flow_set.h"
#include "dataplane/pktgen/mac_address.h"
#include "dataplane/pktgen/packet_format.h"

namespace flowkeep::pktgen {

class FrameBuilder {
 public:
  // `protocol`: kProtocolUdp or kProtocolTcp. `frame_bytes`: without FCS, between
  // shortest_frame_bytes(protocol) and kLongestFrameBytes.
  FrameBuilder(uint8_t protocol, size_t frame_bytes, const MacAddress& source,
               const MacAddress& destination);

  size_t frame_bytes() const { return frame_bytes_; }
  // Writes frame_bytes() bytes.
  void build(uint8_t* frame, const FlowEndpoints& flow, const ProbeTag& tag) const;

 private:
  size_t frame_bytes_;
  size_t tag_offset_;
  size_t checksum_offset_;  // of the UDP or TCP checksum
  uint64_t ipv4_sum_ = 0;   // of the template's IPv4 header
  uint64_t l4_sum_ = 0;     // of the template's pseudo header, L4 header and payload
  bool udp_;
  std::array<uint8_t, kLongestFrameBytes> template_{};
};

}  // namespace flowkeep::pktgen
