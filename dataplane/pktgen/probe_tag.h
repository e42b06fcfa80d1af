// ProbeTag: the first 18 bytes of every generated packet's payload. They alone say which packet it
// is, so that it is recognised whatever the network does to addresses and ports.
//
//   +0   magic     2 bytes
//   +2   run       2 bytes: identifier of the generator's run in the low 14 bits, phase in the high
//   2 +4   flow      4 bytes +8   sequence  4 bytes: of the flow, from 0, wraps +12  sent      6
//   bytes: time-stamp counter when the packet was made, wraps
//
// Little-endian: the machine that reads a tag is the one that wrote it. 18 bytes are what a UDP
// packet of 64 bytes has room for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

namespace flowkeep::pktgen {

inline constexpr size_t kTagBytes = 18;
inline constexpr uint16_t kTagMagic = 0x4b46;  // "FK"
inline constexpr uint16_t kRunMask = 0x3fff;
inline constexpr uint64_t kTscMask = (uint64_t{1} << 48) - 1;

enum class Phase : uint8_t { kWarmup = 0, kMeasured = 1 };

struct ProbeTag {
  uint16_t run = 0;  // 14 bits
  Phase phase = Phase::kWarmup;
  uint32_t flow = 0;
  uint32_t sequence = 0;
  uint64_t sent_tsc = 0;  // 48 bits
};

inline void write_tag(uint8_t* bytes, const ProbeTag& tag) {
  const auto run =
      static_cast<uint16_t>((tag.run & kRunMask) | static_cast<unsigned>(tag.phase) << 14);
  std::memcpy(bytes, &kTagMagic, 2);
  std::memcpy(bytes + 2, &run, 2);
  std::memcpy(bytes + 4, &tag.flow, 4);
  std::memcpy(bytes + 8, &tag.sequence, 4);
  std::memcpy(bytes + 12, &tag.sent_tsc, 6);
}

// Nothing if the kTagBytes at `bytes` do not start with the magic.
inline std::optional<ProbeTag> read_tag(const uint8_t* bytes) {
  uint16_t magic, run;
  std::memcpy(&magic, bytes, 2);
  if (magic != kTagMagic) return std::nullopt;
  std::memcpy(&run, bytes + 2, 2);
  ProbeTag tag;
  tag.run = run & kRunMask;
  tag.phase = static_cast<Phase>(run >> 14);
  std::memcpy(&tag.flow, bytes + 4, 4);
  std::memcpy(&tag.sequence, bytes + 8, 4);
  std::memcpy(&tag.sent_tsc, bytes + 12, 6);
  return tag;
}

// Time-stamp counter ticks between the two, each known to 48 bits only.
inline uint64_t ticks_since(uint64_t sent_tsc, uint64_t now_tsc) {
  return (now_tsc - sent_tsc) & kTscMask;
}

}  // namespace flowkeep::pktgen
