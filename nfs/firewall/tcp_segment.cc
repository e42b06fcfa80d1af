#include "nfs/firewall/tcp_segment.h"

#include <algorithm>
#include <span>

#include "nfs/headers.h"

namespace flowkeep {
namespace {

constexpr uint8_t kEndOfOptions = 0, kNoOperation = 1, kWindowScale = 3;
constexpr uint8_t kMaxScale = 14;  // RFC 7323 section 2.3

void read_options(std::span<const uint8_t> options, TcpSegment& segment) {
  while (!options.empty() && options[0] != kEndOfOptions) {
    if (options[0] == kNoOperation) {
      options = options.subspan(1);
      continue;
    }
    if (options.size() < 2 || options[1] < 2 || options[1] > options.size()) return;
    if (options[0] == kWindowScale && options[1] == 3) {
      segment.offers_scale = true;
      segment.scale = std::min(options[2], kMaxScale);
    }
    options = options.subspan(options[1]);
  }
}

}  // namespace

TcpSegment read_tcp_segment(const uint8_t* frame, const PacketMeta& meta) {
  const auto& header = checked_header<TcpHeader>(frame, meta.l4_offset);
  const size_t payload_at = meta.l4_offset + header.header_bytes();
  TcpSegment segment;
  segment.sequence = header.sequence.get().host();
  segment.acknowledgement = header.acknowledgement.get().host();
  segment.window = header.window.get().host();
  segment.flags = header.flags;
  segment.payload_bytes =
      static_cast<uint32_t>(meta.length - std::min<size_t>(meta.length, payload_at));
  if (segment.has(kTcpSyn) && payload_at <= meta.length) {
    const size_t options_at = meta.l4_offset + sizeof(TcpHeader);
    read_options({frame + options_at, payload_at - options_at}, segment);
  }
  return segment;
}

}  // namespace flowkeep
