// libFuzzer target: parse() on anything, from both sides, against the naive parser. What it accepts
// goes on through the rewrites of nat44, which trust its offsets: the address sanitizer sees if
// they should not have. An input of which the first byte is odd gets its checksums mended first:
// what lies behind them would otherwise be seen by chance alone.
//
//   meson setup build/fuzz -Dfuzzers=true && ninja -C build/fuzz nfs/fuzz_parse &&
//   build/fuzz/nfs/fuzz_parse
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "nfs/function.h"
#include "nfs/naive_parse.h"
#include "nfs/nat44/rewrite.h"
#include "nfs/parse.h"

namespace flowkeep {
namespace {

constexpr HashSecret kSecret{1, 2};

bool is_translated(const PacketMeta& meta) {
  return !meta.is_wide() &&
         (meta.key.protocol == kProtocolTcp || meta.key.protocol == kProtocolUdp ||
          meta.key.protocol == kProtocolIcmp);
}

void rewrite(Bytes frame, const PacketMeta& meta) {
  const Endpoint endpoint{Be32::from_host(0xcb00710a), Be16::from_host(4242), {}};
  const Bytes before = frame;
  const bool error = meta.inner_l3_offset != 0;
  if (meta.side == Side::kInside) {
    (error ? rewrite_error_from_inside : rewrite_source)(frame.data(), meta, endpoint);
  } else {
    (error ? rewrite_error_from_outside : rewrite_destination)(frame.data(), meta, endpoint);
  }
  // Nothing beyond what the undo log saves may have changed.
  for (size_t i = editable_bytes(meta); i < frame.size(); ++i) {
    if (frame[i] != before[i]) std::abort();
  }
}

void set_checksum(Bytes& frame, size_t at, uint32_t sum) {
  const uint16_t checksum = naive_checksum(sum);
  frame[at] = static_cast<uint8_t>(checksum >> 8);
  frame[at + 1] = static_cast<uint8_t>(checksum);
}

void mend_ipv4(Bytes& frame, size_t ip) {
  if (ip + 20 > frame.size()) return;
  const size_t header = (frame[ip] & 0x0f) * 4U;
  if (header < 20 || ip + header > frame.size()) return;
  frame[ip + 10] = frame[ip + 11] = 0;
  set_checksum(frame, ip + 10, naive_sum(&frame[ip], header));
}

void mend_icmp(Bytes& frame, size_t l4, size_t end, uint32_t pseudo) {
  frame[l4 + 2] = frame[l4 + 3] = 0;
  set_checksum(frame, l4 + 2, naive_sum(&frame[l4], end - l4) + pseudo);
}

// IPv4 headers, outer and quoted, and ICMP of both versions, as far as they are there.
Bytes mended(Bytes frame) {
  size_t ip = 14;
  for (int tags = 0; tags < 2 && ip + 4 <= frame.size(); ++tags) {
    const unsigned type = frame[ip - 2] * 256U + frame[ip - 1];
    if (type == kEtherTypeVlan || type == kEtherTypeServiceVlan) ip += 4;
  }
  if (ip + 40 > frame.size()) return frame;
  if (frame[ip - 2] * 256U + frame[ip - 1] == kEtherTypeIpv4) {
    mend_ipv4(frame, ip);
    const size_t l4 = ip + (frame[ip] & 0x0f) * 4U;
    const size_t end = ip + frame[ip + 2] * 256U + frame[ip + 3];
    if (frame[ip + 9] != kProtocolIcmp || l4 + 8 > end || end > frame.size()) return frame;
    mend_ipv4(frame, l4 + 8);
    mend_icmp(frame, l4, end, 0);
    return frame;
  }
  const NaivePacket found = NaiveParser(frame, Side::kInside).parse();
  if (found.wide && found.protocol == kProtocolIcmpv6 && found.l4 + 8 <= found.end) {
    const auto bytes = static_cast<uint32_t>(found.end - found.l4);
    mend_icmp(frame, found.l4, found.end,
              naive_pseudo_header_sum(&frame[ip], kProtocolIcmpv6, bytes));
  }
  return frame;
}

void check(const Bytes& frame, Side side) {
  const std::string difference = parse_difference(frame, side, kSecret);
  if (!difference.empty()) {
    std::fprintf(stderr, "parse() and the naive parser: %s\n", difference.c_str());
    std::abort();
  }
  PacketMeta meta;
  const auto length = static_cast<uint16_t>(frame.size());
  if (parse(frame.data(), length, side, kSecret, meta) != DropReason::kNone) return;
  if (is_translated(meta)) rewrite(frame, meta);
}

}  // namespace
}  // namespace flowkeep

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace flowkeep;
  if (size > 9000) return 0;
  Bytes frame(bytes, bytes + size);
  if (size != 0 && frame[0] % 2 != 0) frame = mended(std::move(frame));
  for (const Side side : {Side::kInside, Side::kOutside}) check(frame, side);
  return 0;
}
