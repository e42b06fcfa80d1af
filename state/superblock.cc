#include "state/superblock.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <system_error>

#include "state/checksum.h"

namespace flowkeep {

namespace {

constexpr uint64_t round_up(uint64_t bytes, uint64_t unit) {
  return (bytes + unit - 1) / unit * unit;
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
              const std::string& remark) {
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

// Not keyed: the key is among what it protects. The start must be neither the first word, the
// magic, nor its complement: the first product would be the same for any second word.
uint64_t superblock_checksum(const Superblock& superblock) {
  return checksum64(&superblock, offsetof(Superblock, checksum), kRedoMagic, HashSecret{});
}

bool is_other_version(const Superblock& superblock) {
  if (superblock.magic != kPoolMagic || superblock.version == kPoolFormatVersion) return false;
  // Older superblocks had another shape.
  const bool is_older = superblock.version != 0 && superblock.version < kPoolFormatVersion;
  return is_older || superblock.checksum == superblock_checksum(superblock);
}

std::string other_version_hint(uint32_t version) {
  if (version > kPoolFormatVersion) {
    return "the pool is a later flowkeep's: start that one, or move the file away and the node "
           "makes a new one, without flows";
  }
  return "the pool is an earlier flowkeep's, whose flows this one does not read: move the file "
         "away and the node makes a new one, without flows";
}

std::string repair_hint(const std::string& path) {
  return "`flowkeep-pool repair --dry-run " + path + "` says what can be kept";
}

Result<void> check_superblock(const std::string& path, const Superblock& superblock,
                              uint64_t pool_bytes) {
  if (superblock.magic != kPoolMagic) {
    return refused(path, "magic", superblock.magic, kPoolMagic,
                   "; the file is left as it is; if it was a pool, " + repair_hint(path));
  }
  if (superblock.version != kPoolFormatVersion) {
    return refused(path, "version", superblock.version, kPoolFormatVersion,
                   "; " + (is_other_version(superblock) ? other_version_hint(superblock.version)
                                                        : repair_hint(path)));
  }
  const uint64_t checksum = superblock_checksum(superblock);
  if (superblock.checksum != checksum) {
    return refused(path, "checksum", superblock.checksum, checksum, "; " + repair_hint(path));
  }
  const auto found = fields(superblock.geometry);
  const auto accepted = fields(Geometry::of(pool_bytes));
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i].value == accepted[i].value) continue;
    return refused(path, found[i].name, found[i].value, accepted[i].value,
                   "; " + repair_hint(path));
  }
  return {};
}

bool is_unfinished_format(const std::byte* base, uint64_t pool_bytes) {
  if (reinterpret_cast<const Superblock*>(base)->magic != 0) return false;
  const Geometry geometry = Geometry::of(pool_bytes);
  for (const size_t at : {size_t{0}, kSuperblockCopyAt}) {
    const auto& found = *reinterpret_cast<const Superblock*>(base + at);
    if (found.reserved != 0 || (found.magic != 0 && found.magic != kPoolMagic)) return false;
    if (found.version != 0 && found.version != kPoolFormatVersion) return false;
    const auto written = fields(found.geometry);
    const auto expected = fields(geometry);
    for (size_t i = 0; i < written.size(); ++i) {
      if (written[i].value != 0 && written[i].value != expected[i].value) return false;
    }
  }
  const auto is_zero = [base](uint64_t from, uint64_t to) {
    return std::all_of(base + from, base + to, [](std::byte byte) { return byte == std::byte{0}; });
  };
  return is_zero(sizeof(Superblock), kSuperblockCopyAt) &&
         is_zero(kSuperblockCopyAt + sizeof(Superblock), geometry.pages_at);
}

std::optional<Superblock> whole_superblock(const std::byte* base, uint64_t bytes) {
  for (const size_t at : {size_t{0}, kSuperblockCopyAt}) {
    if (bytes < at + sizeof(Superblock)) continue;
    Superblock found;
    std::memcpy(&found, base + at, sizeof(found));
    const uint64_t pool_bytes = found.geometry.pool_bytes;
    if (pool_bytes < Pool::minimum_bytes() || pool_bytes > Pool::maximum_bytes()) continue;
    if (pool_bytes % kPageBytes == 0 && check_superblock("", found, pool_bytes)) return found;
  }
  return std::nullopt;
}

bool resembles_superblock(const Superblock& superblock, uint64_t pool_bytes) {
  size_t right = 0;
  if (superblock.magic == kPoolMagic) ++right;
  if (superblock.version == kPoolFormatVersion) ++right;
  const auto found = fields(superblock.geometry);
  const auto expected = fields(Geometry::of(pool_bytes));
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i].value == expected[i].value) ++right;
  }
  return right >= (2 + found.size()) / 2;
}

Result<Superblock> new_superblock(const std::string& path, uint64_t pool_bytes,
                                  std::optional<HashSecret> secret) {
  Superblock superblock = {};
  superblock.magic = kPoolMagic;
  superblock.version = kPoolFormatVersion;
  superblock.geometry = Geometry::of(pool_bytes);
  superblock.created_s = static_cast<uint64_t>(std::time(nullptr));
  if (secret) {
    superblock.secret = *secret;
  } else if (getrandom(&superblock.secret, sizeof(superblock.secret), 0) !=
             sizeof(superblock.secret)) {
    return internal_error(path + ": superblock.secret",
                          "getrandom failed: " + std::generic_category().message(errno));
  }
  superblock.checksum = superblock_checksum(superblock);
  return superblock;
}

Result<void> format_pool(const std::string& path, std::byte* base, uint64_t pool_bytes,
                         Persistence& persistence) {
  const Result<Superblock> superblock = new_superblock(path, pool_bytes);
  if (!superblock) return superblock.error();
  constexpr size_t kMagicBytes = sizeof(superblock->magic);
  persistence.zero(base, superblock->geometry.pages_at);
  persistence.fence();
  persistence.store(base + kSuperblockCopyAt, &*superblock, sizeof(*superblock));
  persistence.flush(base + kSuperblockCopyAt, sizeof(*superblock));
  persistence.store(base + kMagicBytes,
                    reinterpret_cast<const std::byte*>(&*superblock) + kMagicBytes,
                    sizeof(*superblock) - kMagicBytes);
  persistence.flush(base, sizeof(*superblock));
  persistence.fence();
  persistence.store64(base, superblock->magic);
  persistence.flush(base, kMagicBytes);
  persistence.fence();
  return {};
}

}  // namespace flowkeep
