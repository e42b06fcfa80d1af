#include "dataplane/switch/neighbour_message.h"

#include <algorithm>

namespace flowkeep {

std::optional<NeighbourMessage> NeighbourMessage::read(const uint8_t* message, size_t bytes,
                                                       const WideAddresses& addresses) {
  const bool known = bytes >= kBytes && (message[0] == kNeighbourSolicitation ||
                                         message[0] == kNeighbourAdvertisement);
  if (!known) return std::nullopt;
  NeighbourMessage read;
  read.is_solicitation = message[0] == kNeighbourSolicitation;
  read.flags = message[4];
  std::copy_n(message + 8, read.target.size(), read.target.begin());
  if (is_multicast(read.target)) return std::nullopt;
  const uint8_t wanted = read.is_solicitation ? kSourceOption : kTargetOption;
  for (size_t at = kBytes; at < bytes;) {
    const size_t option_bytes = at + 2 <= bytes ? message[at + 1] * size_t{8} : 0;
    if (option_bytes == 0 || at + option_bytes > bytes) return std::nullopt;
    if (message[at] == wanted && option_bytes == kLinkLayerOptionBytes) {
      read.link_layer.emplace();
      std::copy_n(message + at + 2, read.link_layer->bytes.size(), read.link_layer->bytes.begin());
    }
    at += option_bytes;
  }
  if (read.is_solicitation) {
    // Of who looks whether its address is free: it has none yet, and asks the address's group.
    const bool looks = is_unspecified(addresses.src);
    const bool as_it_must = !read.link_layer && addresses.dst == solicited_node_group(read.target);
    if (looks && !as_it_must) return std::nullopt;
    return read;
  }
  if (is_multicast(addresses.dst) && (read.flags & kSolicited) != 0) return std::nullopt;
  return read;
}

}  // namespace flowkeep
