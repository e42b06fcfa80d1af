// For tests and the fuzzer: a small pool in memory with everything in it, changes to the words that
// mean something, and everything that reads a pool run over the result. Nothing is expected of what
// they find but that they end, stay within the image, and that a repair leaves nothing wrong.
#pragma once

#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sstream>
#include <vector>

#include "state/flow_table.h"
#include "state/persistence.h"
#include "state/pool_check.h"
#include "state/pool_image.h"
#include "state/pool_repair.h"
#include "state/record_checksum.h"
#include "state/redo_record.h"
#include "state/superblock.h"
#include "state/tool/pool_tool.h"

namespace flowkeep {

// One change; from bytes, so that a fuzzer can invent it.
struct PoolChange {
  uint8_t region;  // Region
  uint8_t action;  // Action
  uint16_t place;  // chooses among the region's parts
  uint32_t word;   // and a word of the part
  uint64_t value;
};
static_assert(sizeof(PoolChange) == 16);

class DamagedPool {
 public:
  static constexpr uint64_t kBytes = 5 * 1024 * 1024;
  static constexpr uint32_t kBuckets = 4;

  DamagedPool() : image_(std::make_unique<Page[]>(kBytes / kPageBytes)) {
    Persistence persistence(false);
    if (!format_pool("memory", base(), kBytes, persistence)) std::abort();
    const auto pool = Pool::over(base(), kBytes);
    if (!pool->attach_chain("edge", kBuckets)) std::abort();
    FlowTable table(*pool, 0, 1);
    for (uint32_t n = 0; n < 700; ++n) {
      if (n % 64 == 0) table.lease_acquire(0, 16 + n / 64, bucket_of(n));
      open(table, n);
      table.commit({});
      table.apply();
    }
    for (uint32_t n = 5; n < 700; n += 50) {
      table.close(find(table, n));
      table.commit({});
      table.apply();
    }
    open(table, 700);
    table.commit({});
    pristine_.assign(image_.get(), image_.get() + kBytes / kPageBytes);
  }

  std::byte* base() const { return reinterpret_cast<std::byte*>(image_.get()); }
  Regions regions() const { return {base(), Geometry::of(kBytes)}; }
  void restore() { std::memcpy(base(), pristine_.data(), kBytes); }

  void apply(const PoolChange& change) {
    const std::span<uint64_t> words = part(change);
    if (words.empty()) return;
    uint64_t& word = words[change.word % words.size()];
    switch (change.action % 8) {
      case 0:
        word ^= uint64_t{1} << change.value % 64;
        break;
      case 1:
        word = change.value;
        break;
      case 2:
        word = (word & 0xffffffff00000000) | (change.value & 0xffffffff);
        break;
      case 3:
        word = (word & 0xffffffff) | change.value << 32;
        break;
      case 4:  // another word of the same part: plausible values in wrong places
        word = words[change.value % words.size()];
        break;
      case 5:  // a page or record that there is
        word = regions().first_page() + change.value % regions().geometry().pages;
        break;
      case 6:
        std::memset(words.data(), static_cast<int>(change.value), words.size_bytes());
        break;
      case 7:
        seal(change, words);
        break;
    }
  }

  // Node start, as far as it depends on the content, and a worker on what it finds.
  void start() {
    const auto pool = Pool::over(base(), kBytes);
    if (!check_superblock("memory", regions().superblock(), kBytes)) return;
    if (pool->recover_all().refused) return;
    pool->for_each_flow(0, [](const FlowRecord&) { return true; });
    pool->count_flows(0);
    pool->free_pages();
    FlowTable table(*pool, 0, 1);
    for (uint32_t bucket = 0; bucket < kBuckets; ++bucket) {
      table.sweep(bucket, 300, [&](RecordId id, const FlowRecord& record) {
        if (record.opened_s % 3 == 0 && table.has_room(1)) table.close(id);
      });
      table.commit({});
      table.apply();
    }
    for (uint32_t n = 0; n < 900; ++n) work_on(table, n);
  }

  // All commands of flowkeep-pool that do not write.
  void look() {
    Findings findings;
    check_superblocks(regions(), findings);
    check_logs(regions(), findings);
    check_chain_directory(regions(), findings);
    check_pool(regions(), findings);
  }

  // "" or what is wrong after a repair.
  std::string mend() {
    auto image = PoolImage::over(base(), kBytes);
    const RepairReport report = repair(image);
    return report.remaining.clean() ? "" : text_of(report.remaining.listed()[0]);
  }

 private:
  struct alignas(kPageBytes) Page {
    std::byte bytes[kPageBytes];
  };

  static uint32_t bucket_of(uint32_t n) { return n / 64 % kBuckets; }
  static FlowKey inside_key(uint32_t n) {
    return {Be32::from_host(0x0a000001),
            Be32::from_host(0xc0000201),
            Be16::from_host(static_cast<uint16_t>(20000 + n)),
            Be16::from_host(443),
            6,
            Side::kInside,
            0};
  }
  static FlowKey outside_key(uint32_t n) {
    FlowKey key = inside_key(n).reversed();
    key.dst = Be32::from_host(0xcb007101);
    key.dst_port = Be16::from_host(static_cast<uint16_t>(1024 + n));
    return key;
  }
  static RecordId find(const FlowTable& table, uint32_t n) {
    return table.find(bucket_of(n), inside_key(n), hash_key(inside_key(n), table.hash_secret()));
  }
  static void open(FlowTable& table, uint32_t n) {
    const auto opened = table.open(bucket_of(n), inside_key(n), outside_key(n));
    if (opened.status != OpenStatus::kOk) return;
    FlowRecord& record = table.stage(opened.id);
    record.phase = FlowPhase::kEstablished;
    record.opened_s = n;
    const std::vector<std::byte> content(10 + n * 2, std::byte{7});
    if (n % 20 == 0) (void)table.set_extent(opened.id, content);
  }
  static void work_on(FlowTable& table, uint32_t n) {
    const uint64_t hash = hash_key(inside_key(n), table.hash_secret());
    table.prefetch_index(bucket_of(n), hash);
    const RecordId id = find(table, n);
    if (id == 0) {
      open(table, n);
    } else {
      (void)table.extent(id);
      table.touch(id, n);
      if (n % 7 == 0) table.close(id);
    }
    if (n % 8 != 7 && table.has_room(8, 2000)) return;
    table.commit({});
    table.apply();
  }

  std::span<uint64_t> words_at(uint64_t at, size_t bytes) const {
    return {reinterpret_cast<uint64_t*>(base() + at), bytes / sizeof(uint64_t)};
  }
  uint64_t claimed_page(uint32_t place) const {
    const uint64_t* table = regions().page_table();
    for (uint64_t tried = 0; tried < regions().geometry().pages; ++tried) {
      const uint64_t index = (place + tried) % regions().geometry().pages;
      if (table[index] != 0) return regions().first_page() + index;
    }
    return regions().first_page();
  }
  std::span<uint64_t> part(const PoolChange& change) const {
    const Geometry geometry = Geometry::of(kBytes);
    switch (change.region % 9) {
      case 0:
        return words_at(0, sizeof(Superblock));
      case 1:
        return words_at(kSuperblockCopyAt, sizeof(Superblock));
      case 2:
        return words_at(geometry.chains_at + change.place % 3 * sizeof(ChainEntry),
                        sizeof(ChainEntry));
      case 3:
        return words_at(geometry.buckets_at + change.place % kBuckets * sizeof(BucketHeader),
                        sizeof(BucketHeader));
      case 4:
        return words_at(geometry.leases_at, 64 * sizeof(uint64_t));
      case 5:
        return words_at(geometry.logs_at + (change.place % 2) * kLogBytes, 512);
      case 6:
        return words_at(
            geometry.logs_at + kLogBytes + sizeof(LogHeader) + change.place % 2 * kRedoSlotBytes,
            512);
      case 7:
        return words_at(geometry.page_table_at, 80 * sizeof(uint64_t));
      default:
        return words_at(claimed_page(change.place) * kPageBytes, kPageBytes);
    }
  }

  // Makes the part's checksum right, so that what it says is believed.
  void seal(const PoolChange& change, std::span<uint64_t> words) {
    const HashSecret secret = regions().superblock().secret;
    switch (change.region % 9) {
      case 0:
      case 1: {
        auto& superblock = *reinterpret_cast<Superblock*>(words.data());
        superblock.checksum = superblock_checksum(superblock);
        break;
      }
      case 2: {
        auto& entry = *reinterpret_cast<ChainEntry*>(words.data());
        entry.checksum = chain_entry_checksum(entry, secret);
        break;
      }
      case 5: {
        uint64_t& mark = reinterpret_cast<LogHeader*>(words.data())->retired;
        mark = retired_mark(mark & ((uint64_t{1} << kSequenceBits) - 1));
        break;
      }
      case 6: {
        auto& header = *reinterpret_cast<RedoHeader*>(words.data());
        if (header.payload_bytes <= kRedoPayloadBytes && header.payload_bytes % 8 == 0) {
          header.checksum = 0;
          seal_redo_record(reinterpret_cast<std::byte*>(words.data()), secret);
        }
        break;
      }
      case 8: {
        const auto page =
            static_cast<uint32_t>((reinterpret_cast<std::byte*>(words.data()) - base()) /
                                  static_cast<ptrdiff_t>(kPageBytes));
        for (RecordId id = record_id(page, 0); id < record_id(page, kRecordsPerPage); ++id) {
          regions().record(id).checksum = record_checksum(id, regions().record(id));
        }
        break;
      }
      default:
        break;
    }
  }

  std::unique_ptr<Page[]> image_;
  std::vector<Page> pristine_;
};

}  // namespace flowkeep
