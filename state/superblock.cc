#include "state/superblock.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <system_error>

#include "state/checksum.h"

namespace flowkeep {

namespace {

constexpr uint64_t round_up(uint64_t bytes, uint64_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

// Not keyed: the key is among what it protects.
uint64_t superblock_checksum(const Superblock& superblock) {
  return checksum64(&superblock, offsetof(Superblock, checksum), kPoolMagic, HashSecret{});
}

struct Field {
  const char* name;
  uint64_t value;
};

std::array<Field, 17> fields(const Geometry& geometry) {
  return {{{"pool_bytes", geometry.pool_bytes},
           {"page_bytes", geometry.page_bytes},
           {"record_bytes", geometry.record_bytes},
           {"chains", geometry.chains},
           {"buckets", geometry.buckets},
           {"worker_slots", geometry.worker_slots},
           {"external_addresses", geometry.external_addresses},
           {"port_blocks", geometry.port_blocks},
           {"redo_slot_bytes", geometry.redo_slot_bytes},
           {"chains_at", geometry.chains_at},
           {"buckets_at", geometry.buckets_at},
           {"leases_at", geometry.leases_at},
           {"layouts_at", geometry.layouts_at},
           {"logs_at", geometry.logs_at},
           {"page_table_at", geometry.page_table_at},
           {"pages_at", geometry.pages_at},
           {"pages", geometry.pages}}};
}

Error refused(const std::string& path, const char* field, uint64_t found, uint64_t accepted,
              const char* remark = "") {
  return invalid(
      path + ": superblock." + field,
      std::to_string(found) + " is not accepted; accepted: " + std::to_string(accepted) + remark);
}

}  // namespace

Geometry Geometry::of(uint64_t pool_bytes) {
  Geometry geometry = {};
  geometry.pool_bytes = pool_bytes;
  geometry.page_bytes = kPageBytes;
  geometry.record_bytes = sizeof(FlowRecord);
  geometry.chains = kMaxChains;
  geometry.buckets = kMaxBuckets;
  geometry.worker_slots = kMaxWorkerSlots;
  geometry.external_addresses = kMaxExternalAddresses;
  geometry.port_blocks = kPortBlocks;
  geometry.redo_slot_bytes = kRedoSlotBytes;
  geometry.chains_at = kPageBytes;
  geometry.buckets_at = 2 * kPageBytes;
  geometry.leases_at = geometry.buckets_at + kMaxChains * kMaxBuckets * sizeof(BucketHeader);
  geometry.layouts_at =
      geometry.leases_at + kMaxChains * kMaxExternalAddresses * kPortBlocks * sizeof(uint32_t);
  geometry.logs_at = geometry.layouts_at + kMaxChains * kLayoutEntries * sizeof(LayoutEntry);
  geometry.page_table_at = geometry.logs_at + kMaxWorkerSlots * kLogBytes;
  if (pool_bytes < geometry.page_table_at) return geometry;
  // Every page costs its own bytes and one word of the page table.
  const uint64_t upper = (pool_bytes - geometry.page_table_at) / kPageBytes;
  geometry.pages_at = geometry.page_table_at + round_up(upper * sizeof(uint64_t), kPageBytes);
  if (pool_bytes > geometry.pages_at)
    geometry.pages = (pool_bytes - geometry.pages_at) / kPageBytes;
  return geometry;
}

Result<void> check_superblock(const std::string& path, const Superblock& superblock,
                              uint64_t pool_bytes) {
  if (superblock.magic != kPoolMagic) {
    return refused(path, "magic", superblock.magic, kPoolMagic,
                   "; the file is no flowkeep pool and is left as it is");
  }
  if (superblock.version != kPoolFormatVersion) {
    return refused(path, "version", superblock.version, kPoolFormatVersion);
  }
  const uint64_t checksum = superblock_checksum(superblock);
  if (superblock.checksum != checksum) {
    return refused(path, "checksum", superblock.checksum, checksum);
  }
  const auto found = fields(superblock.geometry);
  const auto accepted = fields(Geometry::of(pool_bytes));
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i].value == accepted[i].value) continue;
    return refused(path, found[i].name, found[i].value, accepted[i].value);
  }
  return {};
}

bool is_unfinished_format(const std::byte* first_page, uint64_t pool_bytes) {
  const auto& found = *reinterpret_cast<const Superblock*>(first_page);
  if (found.magic != 0 || found.reserved != 0) return false;
  if (found.version != 0 && found.version != kPoolFormatVersion) return false;
  const auto written = fields(found.geometry);
  const auto expected = fields(Geometry::of(pool_bytes));
  for (size_t i = 0; i < written.size(); ++i) {
    if (written[i].value != 0 && written[i].value != expected[i].value) return false;
  }
  return std::all_of(first_page + sizeof(Superblock), first_page + kPageBytes,
                     [](std::byte byte) { return byte == std::byte{0}; });
}

Result<void> format_pool(const std::string& path, std::byte* base, uint64_t pool_bytes,
                         Persistence& persistence) {
  Superblock superblock = {};
  superblock.version = kPoolFormatVersion;
  superblock.geometry = Geometry::of(pool_bytes);
  superblock.created_s = static_cast<uint64_t>(std::time(nullptr));
  if (getrandom(&superblock.secret, sizeof(superblock.secret), 0) != sizeof(superblock.secret)) {
    return internal_error(path + ": superblock.secret",
                          "getrandom failed: " + std::generic_category().message(errno));
  }
  superblock.magic = kPoolMagic;
  superblock.checksum = superblock_checksum(superblock);

  constexpr size_t kMagicBytes = sizeof(superblock.magic);
  persistence.zero(base, superblock.geometry.pages_at);
  persistence.fence();
  persistence.store(base + kMagicBytes, reinterpret_cast<std::byte*>(&superblock) + kMagicBytes,
                    sizeof(superblock) - kMagicBytes);
  persistence.flush(base, sizeof(superblock));
  persistence.fence();
  persistence.store64(base, superblock.magic);
  persistence.flush(base, kMagicBytes);
  persistence.fence();
  return {};
}

}  // namespace flowkeep
