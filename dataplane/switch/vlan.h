// VlanTags: the 802.1Q tags that all frames of a port carry, at most two (QinQ, 802.1ad). They are
// taken off before a frame is looked at and put on as it is sent, so that nothing in between knows
// of them. Frames with other tags, or none, are not the port's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace flowkeep {

struct VlanTags {
  static constexpr size_t kTagBytes = 4;
  static constexpr size_t kAddressBytes = 12;  // both MAC addresses, in front of the tags
  static constexpr uint16_t kType = 0x8100;
  static constexpr uint16_t kServiceType = 0x88a8;  // the outer tag of two

  std::array<uint16_t, 2> ids{};  // the outermost first
  size_t count = 0;

  static bool is_tag(uint16_t ether_type) {
    return ether_type == kType || ether_type == kServiceType;
  }
  size_t bytes() const { return count * kTagBytes; }

  // Bytes of tags to take off behind the addresses; -1: the frame's tags are others. Which of the
  // two types a tag has does not matter: some drivers lose it. A priority tag (number 0) is no
  // VLAN's.
  int matched_bytes(const uint8_t* frame, size_t length) const {
    size_t at = kAddressBytes, found = 0;
    for (; at + 2 <= length && is_tag(read16(frame + at)); at += kTagBytes) {
      if (at + kTagBytes + 2 > length) return -1;
      const uint16_t id = read16(frame + at + 2) & 0x0fff;
      if (count == 0 && id == 0 && at == kAddressBytes) continue;
      if (found == count || id != ids[found++]) return -1;
    }
    return found == count ? static_cast<int>(at - kAddressBytes) : -1;
  }
  void write(uint8_t* behind_addresses) const {
    for (size_t i = 0; i < count; ++i) {
      const uint16_t type = i + 1 < count ? kServiceType : kType;
      write16(behind_addresses + i * kTagBytes, type);
      write16(behind_addresses + i * kTagBytes + 2, ids[i]);
    }
  }
  friend bool operator==(const VlanTags&, const VlanTags&) = default;

 private:
  static uint16_t read16(const uint8_t* at) { return static_cast<uint16_t>(at[0] << 8 | at[1]); }
  static void write16(uint8_t* at, uint16_t value) {
    at[0] = static_cast<uint8_t>(value >> 8);
    at[1] = static_cast<uint8_t>(value);
  }
};

}  // namespace flowkeep
