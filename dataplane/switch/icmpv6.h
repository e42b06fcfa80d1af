// How the switch makes ICMPv6 messages of its own.
#pragma once

#include <rte_mbuf.h>

#include "nfs/headers.h"

namespace flowkeep {

inline constexpr size_t kIcmpv6Offset = sizeof(EthernetHeader) + sizeof(Ipv6Header);

// A frame without Ethernet addresses, whose ICMPv6 message is zero. nullptr: no buffer.
rte_mbuf* make_icmpv6(rte_mempool* pool, const WideAddresses& addresses, uint8_t hop_limit,
                      size_t icmp_bytes);
// Of the message from `l4_offset` to `end` in an untagged frame, with its pseudo header (RFC 8200
// section 8.1).
void write_icmpv6_checksum(uint8_t* frame, size_t l4_offset, size_t end);

}  // namespace flowkeep
