#include "dataplane/switch/packet_pools.h"

#include <rte_errno.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_memory.h>

#include <cerrno>
#include <string>

#include "dataplane/switch/reassembly.h"

namespace flowkeep {
namespace {

constexpr uint16_t kFrameBytes = 2048;
constexpr uint32_t kFrameCache = 256;
static_assert(RTE_PKTMBUF_HEADROOM + kDatagramBufferBytes == UINT16_MAX,
              "an mbuf counts its buffer's bytes in 16 bits");

uint32_t footprint_bytes(size_t room_bytes) {
  rte_mempool_objsz size{};
  const size_t element = sizeof(rte_mbuf) + sizeof(PacketMeta) + RTE_PKTMBUF_HEADROOM + room_bytes;
  return rte_mempool_calc_obj_size(static_cast<uint32_t>(element), 0, &size);
}

struct Region {
  std::byte* begin;
  uint64_t bytes;
  uint64_t page_bytes;
};

Result<rte_mempool*> make_pool(const char* name, uint32_t count, size_t room_bytes, uint32_t cache,
                               Region region) {
  const auto fail = [name](const char* what) {
    return internal_error(name, std::string(what) + ": " + rte_strerror(rte_errno));
  };
  const auto room = static_cast<uint16_t>(RTE_PKTMBUF_HEADROOM + room_bytes);
  const auto element = static_cast<unsigned>(sizeof(rte_mbuf) + sizeof(PacketMeta) + room);
  rte_mempool* pool =
      rte_mempool_create_empty(name, count, element, cache, sizeof(rte_pktmbuf_pool_private),
                               SOCKET_ID_ANY, RTE_MEMPOOL_F_NO_IOVA_CONTIG);
  if (pool == nullptr) return fail("rte_mempool_create_empty");
  if (rte_mempool_set_ops_byname(pool, "ring_mp_mc", nullptr) != 0) return fail("mempool ops");
  rte_pktmbuf_pool_private layout{};
  layout.mbuf_data_room_size = room;
  layout.mbuf_priv_size = sizeof(PacketMeta);
  rte_pktmbuf_pool_init(pool, &layout);
  const int populated =
      rte_mempool_populate_virt(pool, reinterpret_cast<char*>(region.begin), region.bytes,
                                region.page_bytes, nullptr, nullptr);
  if (populated < static_cast<int>(count)) {
    rte_errno = populated < 0 ? -populated : ENOMEM;
    return fail("rte_mempool_populate_virt");
  }
  rte_mempool_obj_iter(pool, rte_pktmbuf_init, nullptr);
  return pool;
}

}  // namespace

uint32_t frame_footprint_bytes() {
  return footprint_bytes(kFrameBytes);
}

uint32_t datagram_footprint_bytes() {
  return footprint_bytes(kDatagramBufferBytes);
}

Result<PacketPools> PacketPools::create(const NodeConfig& config, const Arena& arena) {
  const ArenaHeader& header = arena.header();
  std::byte* region = arena.base() + header.packet_offset;
  if (rte_extmem_register(region, header.packet_bytes, nullptr, 0, header.page_bytes) != 0) {
    return internal_error("packets",
                          std::string("rte_extmem_register: ") + rte_strerror(rte_errno));
  }
  const uint64_t frame_bytes = header.datagram_offset - header.packet_offset;
  PacketPools pools;
  Result<rte_mempool*> made = make_pool("frames", config.packet_count, kFrameBytes, kFrameCache,
                                        {region, frame_bytes, header.page_bytes});
  if (!made) return made.error();
  pools.frames_ = *made;
  made = make_pool("datagrams", config.datagram_count, kDatagramBufferBytes, 0,
                   {region + frame_bytes, header.packet_bytes - frame_bytes, header.page_bytes});
  if (!made) return made.error();
  pools.datagrams_ = *made;
  return pools;
}

}  // namespace flowkeep
