// PcapReplay: the packets of a capture (pcap or pcapng: Ethernet or raw IPv4), read into memory
// once and replayed in their order. Only the destination Ethernet address and, on request, prefixes
// of IPv4 addresses differ from the file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/pktgen/frame_source.h"
#include "dataplane/pktgen/mac_address.h"
#include "dataplane/pktgen/ranges.h"
#include "state/result.h"

namespace flowkeep::pktgen {

struct PcapRewrite {
  MacAddress destination_mac{};
  MacAddress source_mac{};  // of packets that the file has without an Ethernet header
  std::optional<Prefix> source, destination;
};

class PcapReplay : public FrameSource {
 public:
  // `loops` 0: without end. Errors: no such file, not a capture, a link type that is neither, no
  // packet.
  static Result<PcapReplay> open(const std::string& path, uint64_t loops,
                                 const PcapRewrite& rewrite);

  size_t next(uint8_t* frame, uint64_t now_tsc) override;
  void take_back(uint32_t frames) override;
  double mean_size_bytes() const override;

  size_t packets() const { return frames_.size(); }
  // Packets left out, since the file has only a part of them or they exceed kLongestFrameBytes.
  uint64_t left_out() const { return left_out_; }

 private:
  struct Frame {
    size_t offset;
    uint32_t bytes;
  };
  void add(std::vector<uint8_t> frame, const PcapRewrite& rewrite);

  std::vector<uint8_t> bytes_;
  std::vector<Frame> frames_;
  uint64_t left_out_ = 0;
  uint64_t position_ = 0;  // frames given out
  uint64_t end_ = 0;       // position after the last loop; UINT64_MAX: none
};

// Replaces the prefixes in an Ethernet frame's IPv4 header and mends the IPv4, UDP and TCP
// checksums.
void rewrite_addresses(std::span<uint8_t> frame, const std::optional<Prefix>& source,
                       const std::optional<Prefix>& destination);

}  // namespace flowkeep::pktgen
