#include "dataplane/pktgen/pcap_replay.h"

#include <pcap/pcap.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "dataplane/pktgen/checksum.h"
#include "dataplane/pktgen/received_frame.h"

namespace flowkeep::pktgen {
namespace {

// RFC 1624, equation 3, for a change of some words whose sums are `before` and `after`.
void mend_checksum(uint8_t* checksum, uint64_t before, uint64_t after) {
  uint16_t old;
  std::memcpy(&old, checksum, 2);
  const uint64_t sum =
      uint64_t{static_cast<uint16_t>(~old)} + static_cast<uint16_t>(~fold(before)) + after;
  const uint16_t mended = checksum_of(sum);
  std::memcpy(checksum, &mended, 2);
}

void replace_address(uint8_t* bytes, const std::optional<Prefix>& prefix) {
  if (!prefix) return;
  Be32 address;
  std::memcpy(&address, bytes, 4);
  address = prefix->replace_in(address);
  std::memcpy(bytes, &address, 4);
}

// Offset of the L4 checksum within an IPv4 packet that has one, else 0.
size_t l4_checksum_offset(std::span<const uint8_t> ip) {
  const size_t header_bytes = (ip[0] & 0xfu) * 4u;
  const bool first_fragment = (ip[6] & 0x1f) == 0 && ip[7] == 0;
  if (!first_fragment) return 0;
  if (ip[9] == kProtocolTcp && ip.size() >= header_bytes + kTcpBytes) return header_bytes + 16;
  if (ip[9] != kProtocolUdp || ip.size() < header_bytes + kUdpBytes) return 0;
  const bool has_checksum = ip[header_bytes + 6] != 0 || ip[header_bytes + 7] != 0;
  return has_checksum ? header_bytes + 6 : 0;
}

}  // namespace

void rewrite_addresses(std::span<uint8_t> frame, const std::optional<Prefix>& source,
                       const std::optional<Prefix>& destination) {
  if (ether_type(frame) != kEtherTypeIpv4 || frame.size() < kIpv4Offset + kIpv4Bytes) return;
  const std::span<uint8_t> ip = frame.subspan(kIpv4Offset);
  const uint64_t before = add_bytes(0, ip.data() + 12, 8);
  replace_address(ip.data() + 12, source);
  replace_address(ip.data() + 16, destination);
  const uint64_t after = add_bytes(0, ip.data() + 12, 8);
  mend_checksum(ip.data() + 10, before, after);
  if (const size_t offset = l4_checksum_offset(ip); offset != 0)
    mend_checksum(ip.data() + offset, before, after);
}

Result<PcapReplay> PcapReplay::open(const std::string& path, uint64_t loops,
                                    const PcapRewrite& rewrite) {
  char error[PCAP_ERRBUF_SIZE] = "";
  const std::unique_ptr<pcap_t, decltype(&pcap_close)> capture(
      pcap_open_offline(path.c_str(), error), &pcap_close);
  if (!capture) return invalid("--pcap", "\"" + path + "\" cannot be read: " + error);
  const int link = pcap_datalink(capture.get());
  if (link != DLT_EN10MB && link != DLT_RAW && link != DLT_IPV4) {
    const char* name = pcap_datalink_val_to_name(link);
    return invalid("--pcap", "\"" + path + "\" has link type " +
                                 (name ? name : std::to_string(link)) +
                                 "; accepted: EN10MB (Ethernet), RAW, IPV4");
  }
  PcapReplay replay;
  pcap_pkthdr* header = nullptr;
  const u_char* packet = nullptr;
  int got = 0;
  while ((got = pcap_next_ex(capture.get(), &header, &packet)) == 1) {
    std::vector<uint8_t> frame(link == DLT_EN10MB ? 0 : kEthernetBytes);
    if (link != DLT_EN10MB) {
      std::copy(rewrite.source_mac.begin(), rewrite.source_mac.end(), frame.begin() + 6);
      frame[12] = kEtherTypeIpv4 >> 8;
    }
    frame.insert(frame.end(), packet, packet + header->caplen);
    if (header->caplen < header->len) {
      ++replay.left_out_;
    } else {
      replay.add(std::move(frame), rewrite);
    }
  }
  if (got == PCAP_ERROR)
    return invalid("--pcap", "\"" + path + "\" is damaged: " + pcap_geterr(capture.get()));
  if (replay.frames_.empty())
    return invalid("--pcap", "\"" + path + "\" has no whole packet of at most 1514 bytes");
  replay.end_ = loops == 0 || loops > UINT64_MAX / replay.frames_.size()
                    ? UINT64_MAX
                    : loops * replay.frames_.size();
  return replay;
}

void PcapReplay::add(std::vector<uint8_t> frame, const PcapRewrite& rewrite) {
  if (frame.size() > kLongestFrameBytes || frame.size() < kEthernetBytes) {
    ++left_out_;
    return;
  }
  std::copy(rewrite.destination_mac.begin(), rewrite.destination_mac.end(), frame.begin());
  if (rewrite.source || rewrite.destination)
    rewrite_addresses(frame, rewrite.source, rewrite.destination);
  frames_.push_back({bytes_.size(), static_cast<uint32_t>(frame.size())});
  bytes_.insert(bytes_.end(), frame.begin(), frame.end());
}

size_t PcapReplay::next(uint8_t* frame, uint64_t) {
  if (position_ == end_) return 0;
  const Frame& stored = frames_[position_ % frames_.size()];
  std::memcpy(frame, bytes_.data() + stored.offset, stored.bytes);
  ++position_;
  return stored.bytes;
}

void PcapReplay::take_back(uint32_t frames) {
  position_ -= frames;
}

double PcapReplay::mean_size_bytes() const {
  return static_cast<double>(bytes_.size()) / static_cast<double>(frames_.size()) + kFcsBytes;
}

}  // namespace flowkeep::pktgen
