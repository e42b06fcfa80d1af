// PacketPools: the switch's mempools in the arena. Frames lie in buffers of 2 KiB; a datagram that
// arrived in fragments is put together in one contiguous buffer of 64 KiB, so that parse,
// functions, undo log and dead letters see one kind of packet. (Chained buffers would need no copy,
// but each of these would have to know of them.)
//
// Thread rule: the switch's I/O thread only.
#pragma once

#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "dataplane/arena.h"
#include "dataplane/node_config.h"

namespace flowkeep {

// Bytes of one packet in the arena: mempool's header, mbuf, PacketMeta, headroom and room for the
// frame.
uint32_t frame_footprint_bytes();
uint32_t datagram_footprint_bytes();

class PacketPools {
 public:
  PacketPools() = default;
  // EAL must be there; learns of the arena as external memory.
  static Result<PacketPools> create(const NodeConfig& config, const Arena& arena);

  rte_mempool* frames() const { return frames_; }
  rte_mempool* datagrams() const { return datagrams_; }
  bool is_datagram(const rte_mbuf* packet) const { return packet->pool == datagrams_; }
  uint32_t free() const {
    return rte_mempool_avail_count(frames_) + rte_mempool_avail_count(datagrams_);
  }

 private:
  rte_mempool* frames_ = nullptr;
  rte_mempool* datagrams_ = nullptr;
};

// What is to be known about a reassembled datagram, in a field of its mbuf that nobody else uses.
struct DatagramOrigin {
  uint32_t largest_fragment_bytes = 0;
  uint32_t identification = 0;
};
inline void set_origin(rte_mbuf* datagram, DatagramOrigin origin) {
  datagram->hash.fdir.lo = origin.largest_fragment_bytes;
  datagram->hash.fdir.hi = origin.identification;
}
inline DatagramOrigin origin_of(const rte_mbuf* datagram) {
  return {datagram->hash.fdir.lo, datagram->hash.fdir.hi};
}

}  // namespace flowkeep
