// NeighbourMessage: a neighbour solicitation or advertisement as its receiver has to check it (RFC
// 4861 sections 7.1.1 and 7.1.2; what is common to all of neighbour discovery parse() has checked).
// Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "dataplane/switch/neighbours.h"
#include "nfs/headers.h"

namespace flowkeep {

struct NeighbourMessage {
  static constexpr size_t kBytes = 24;  // without options
  static constexpr size_t kLinkLayerOptionBytes = 8;
  static constexpr uint8_t kSourceOption = 1, kTargetOption = 2;
  static constexpr uint8_t kRouter = 0x80, kSolicited = 0x40, kOverride = 0x20;

  bool is_solicitation = false;
  uint8_t flags = 0;  // of an advertisement
  Ipv6Address target{};
  std::optional<Mac> link_layer;  // source of a solicitation, target of an advertisement

  // `message`: the ICMPv6 message of `bytes`. None if it must be discarded.
  static std::optional<NeighbourMessage> read(const uint8_t* message, size_t bytes,
                                              const WideAddresses& addresses);
};

}  // namespace flowkeep
