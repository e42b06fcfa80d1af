// Damaged pools: each is refused at node start with path, field, value, what is accepted and the
// command that helps, or goes on; the checker names the damage; the repair keeps every flow that is
// whole, names the others, and leaves a pool in which nothing is wrong.
#include <fcntl.h>
#include <sys/mount.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>

#include "state/flow_text.h"
#include "state/persistence.h"
#include "state/pool_image.h"
#include "state/pool_repair.h"
#include "state/pool_test_support.h"
#include "state/redo_record.h"
#include "state/superblock.h"
#include "state/tool/pool_tool.h"

namespace flowkeep {
namespace {

constexpr uint64_t kBytes = 6 * 1024 * 1024;
constexpr uint32_t kBuckets = 16;
constexpr uint32_t kFlows = 400;
constexpr uint32_t kPreciousBucket = 5;  // where most flows are: it has a directory

uint32_t bucket_of(uint32_t n) {
  return n % 4 == 0 ? n / 4 % kBuckets : kPreciousBucket;
}

class DamageTest : public testing::Test {
 protected:
  void SetUp() override {
    auto pool = open_pool(directory, kBytes);
    ASSERT_TRUE(pool && pool->attach_chain("edge", kBuckets).ok());
    FlowTable table(*pool, 0, 2);
    for (uint32_t n = 0; n < kFlows; ++n) {
      const auto opened = open_flow(table, bucket_of(n), n, n);
      ASSERT_EQ(opened.status, OpenStatus::kOk);
      if (n % 10 == 0) set_extent(table, opened.id, n);
      commit_and_apply(table);
      model[bucket_of(n)][n] = n;
    }
    for (uint32_t n = 3; n < kFlows; n += 37) {
      table.close(find_inside(table, bucket_of(n), n));
      commit_and_apply(table);
      model[bucket_of(n)].erase(n);
    }
    ASSERT_EQ(open_flow(table, 0, kFlows, kFlows).status, OpenStatus::kOk);
    table.commit({});  // and the worker died
    model[0][kFlows] = kFlows;
  }
  static void set_extent(FlowTable& table, RecordId id, uint32_t n) {
    const std::vector<std::byte> content(100 + n * 3, static_cast<std::byte>(n));
    ASSERT_EQ(table.set_extent(id, content), OpenStatus::kOk);
  }

  // The file and the model as they are now, to come back to.
  void save() {
    saved_model = model;
    std::filesystem::copy_file(directory.file(), saved_file());
  }
  void restore() {
    model = saved_model;
    std::filesystem::rename(saved_file(), directory.file());
  }
  std::string saved_file() const { return directory.path() + "/saved"; }

  // Changes the file as nobody should.
  void damage(const std::function<void(const Regions&)>& change) {
    auto image = PoolImage::read(directory.file(), PoolImage::Access::kRepair);
    ASSERT_TRUE(image.ok()) << image.error().text();
    change(image->regions());
    ASSERT_TRUE(image->write_back(true).ok());
  }

  // What a node start says: "" if it goes on.
  std::string start(uint64_t bytes = kBytes) {
    auto pool = Pool::open({directory.file(), bytes});
    if (!pool.ok()) return pool.error().text();
    const RecoveryReport report = (*pool)->recover_all();
    return report.refused ? report.refused->text() : "";
  }

  std::string tool(std::vector<std::string> arguments, int& status) {
    arguments.push_back(directory.file());
    std::ostringstream out, err;
    status = run_pool_tool(arguments, out, err);
    return out.str() + err.str();
  }

  // The pool is repaired, clean, and holds the model's flows but for `given_up` of them, and
  // `uncommitted` that were lost with a redo record; the report names each.
  void repair_gives_up(uint64_t given_up, const std::string& label, uint64_t uncommitted = 0) {
    int status = 0;
    EXPECT_NE(tool({"check"}, status), "");
    EXPECT_EQ(status, kPoolFindings) << label;
    {
      auto image = PoolImage::read(directory.file(), PoolImage::Access::kRepair);
      ASSERT_TRUE(image.ok()) << label << ": " << image.error().text();
      const RepairReport report = repair(*image);
      EXPECT_TRUE(report.remaining.clean()) << label << ": " << text_of(report.remaining);
      EXPECT_EQ(report.flows_given_up, given_up) << label;
      EXPECT_EQ(report.flows_kept + given_up + uncommitted, flows_of(model)) << label;
      ASSERT_TRUE(image->write_back(false).ok());
      forget_lost_flows(*image, report, given_up + uncommitted, label);
    }
    const std::string checked = tool({"check"}, status);
    EXPECT_EQ(status, kPoolFine) << label << ": " << checked;
    EXPECT_EQ(start(), "") << label;
    EXPECT_EQ(loss_of_extents(), "") << label;
    auto pool = open_pool(directory, kBytes);
    EXPECT_EQ(difference(*pool, model), "") << label;
  }

  static std::string text_of(const Findings& findings) {
    return findings.listed().empty() ? "" : flowkeep::text_of(findings.listed()[0]);
  }

  // Every flow of the model that is not in the pool was named.
  void forget_lost_flows(PoolImage& image, const RepairReport& report, uint64_t given_up,
                         const std::string& label) {
    const auto pool = Pool::over(image.base(), image.bytes());
    FlowTable table(*pool, 0, 7);
    uint64_t missing = 0;
    for (auto& [bucket, flows] : model) {
      std::erase_if(flows, [&, in = bucket](const auto& flow) {
        if (find_inside(table, in, flow.first) != 0) return false;
        ++missing;
        const std::string key = name_of_flow(flow.first);
        const bool named = std::ranges::any_of(report.steps, [&](const RepairStep& step) {
          return step.kind == RepairKind::kLost &&
                 (step.what.find(key) != std::string::npos ||
                  step.what.find("not legible") != std::string::npos ||
                  step.what.find("damaged record") != std::string::npos);
        });
        EXPECT_TRUE(named) << label << ": nobody said that this is lost: " << key;
        return true;
      });
    }
    EXPECT_EQ(missing, given_up) << label;
  }

  std::string loss_of_extents() {
    auto pool = open_pool(directory, kBytes);
    FlowTable table(*pool, 0, 7);
    for (const auto& [bucket, flows] : model) {
      for (const auto& [n, state] : flows) {
        if (n % 10 != 0 || n == kFlows) continue;
        const auto extent = table.extent(find_inside(table, bucket, n));
        if (extent.size() != 100 + n * 3 || extent[0] != static_cast<std::byte>(n)) {
          return "extent of flow " + std::to_string(n);
        }
      }
    }
    return "";
  }

  RecordId id_of(const Regions& regions, uint32_t n) {
    const auto pool = Pool::over(regions.base(), kBytes);
    FlowTable table(*pool, 0, 7);
    return find_inside(table, bucket_of(n), n);
  }

  PoolDirectory directory;
  FlowModel model;
  FlowModel saved_model;
};

testing::AssertionResult says(const std::string& text, std::initializer_list<std::string> parts) {
  for (const std::string& part : parts) {
    if (text.find(part) == std::string::npos) {
      return testing::AssertionFailure() << "\"" << text << "\" lacks \"" << part << "\"";
    }
  }
  return testing::AssertionSuccess();
}

TEST_F(DamageTest, WhatACrashLeavesIsNoDamage) {
  int status = 0;
  const std::string text = tool({"check"}, status);
  EXPECT_EQ(status, kPoolFine) << text;
  EXPECT_TRUE(says(text, {"note", "redo log 2", "applied by recovery"}));
  EXPECT_TRUE(says(tool({"repair", "--dry-run"}, status), {"nothing was written"}));
  EXPECT_EQ(start(), "");
  EXPECT_EQ(loss_of_extents(), "");
  EXPECT_TRUE(says(tool({"repair"}, status), {"nothing to repair"}));
  EXPECT_EQ(status, kPoolFine);
}

TEST_F(DamageTest, EachFieldOfTheSuperblockIsRefusedAndRestoredFromItsCopy) {
  for (size_t at = 0; at < sizeof(Superblock); at += 4) {
    if (at >= offsetof(Superblock, reserved) && at < offsetof(Superblock, geometry)) continue;
    damage([at](const Regions& regions) { regions.base()[at] ^= std::byte{0x40}; });
    EXPECT_TRUE(
        says(start(), {directory.file(), "superblock.", "accepted: ", "flowkeep-pool repair"}))
        << at;
    int status = 0;
    EXPECT_TRUE(says(tool({"repair"}, status), {"taken from its copy"})) << at;
    EXPECT_EQ(status, kPoolFine);
  }
  EXPECT_EQ(start(), "");
}

TEST_F(DamageTest, ASuperblockPageOfZerosIsNotFormattedAgain) {
  damage([](const Regions& regions) { std::memset(regions.base(), 0, kPageBytes); });
  EXPECT_TRUE(says(start(), {directory.file(), "superblock.magic", "flowkeep-pool repair"}));
  repair_gives_up(0, "page of zeros");
}

TEST_F(DamageTest, WithoutCopyTheSuperblockIsMadeAnewWhileTheSecretIsRight) {
  damage([](const Regions& regions) {
    regions.superblock().geometry.pages += 3;
    std::memset(regions.base() + kSuperblockCopyAt, 0, sizeof(Superblock));
  });
  EXPECT_TRUE(says(start(), {"superblock.checksum"}));
  repair_gives_up(0, "both superblocks");
}

TEST_F(DamageTest, WithoutTheSecretTheFlowsAreGivenUpByName) {
  damage([](const Regions& regions) {
    regions.superblock().secret.k0 ^= 1;
    std::memset(regions.base() + kSuperblockCopyAt, 0, sizeof(Superblock));
  });
  int status = 0;
  const std::string text = tool({"repair"}, status);
  EXPECT_EQ(status, kPoolFindings);
  EXPECT_TRUE(says(text, {"secret", "given up", name_of_flow(1)}));
  EXPECT_EQ(start(), "");
}

TEST_F(DamageTest, AFileThatIsNoPoolIsLeftAlone) {
  std::ofstream(directory.file(), std::ios::binary) << std::string(kBytes, 'x');
  int status = 0;
  for (const char* command : {"info", "check", "dump", "repair"}) {
    EXPECT_TRUE(says(tool({command}, status), {directory.file(), "not a flowkeep pool"}));
    EXPECT_EQ(status, kPoolUnreadable);
  }
}

TEST_F(DamageTest, FilesThatCannotBeOpened) {
  int status = 0;
  ASSERT_EQ(truncate(directory.file().c_str(), 0), 0);
  EXPECT_TRUE(says(tool({"check"}, status), {"is empty"}));
  unlink(directory.file().c_str());
  EXPECT_TRUE(says(tool({"check"}, status), {directory.file(), "No such file"}));
  ASSERT_EQ(symlink("pool", directory.file().c_str()), 0);
  EXPECT_TRUE(says(tool({"check"}, status), {directory.file(), "symbolic links"}));
  EXPECT_TRUE(says(start(), {directory.file(), "symbolic links"}));
  unlink(directory.file().c_str());
  ASSERT_EQ(mkdir(directory.file().c_str(), 0700), 0);
  EXPECT_TRUE(says(tool({"repair"}, status), {directory.file(), "not a regular file"}));
  EXPECT_TRUE(says(start(), {directory.file(), "not a regular file"}));
  rmdir(directory.file().c_str());
}

TEST_F(DamageTest, AReadOnlyFileSystemIsRefusedAndCanBeLookedAt) {
  const std::string where = directory.path() + "/mounted";
  ASSERT_EQ(mkdir(where.c_str(), 0700), 0);
  if (mount("none", where.c_str(), "tmpfs", 0, "size=16m") != 0) {
    rmdir(where.c_str());
    GTEST_SKIP() << "needs the right to mount";
  }
  const std::string file = where + "/pool";
  std::ifstream from(directory.file(), std::ios::binary);
  std::ofstream(file, std::ios::binary) << from.rdbuf();
  ASSERT_EQ(mount("none", where.c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, nullptr), 0);
  std::ostringstream out, err;
  EXPECT_TRUE(says(Pool::open({file, kBytes}).error().text(), {file, "Read-only file system"}));
  EXPECT_EQ(run_pool_tool({"check", file}, out, err), kPoolFine) << out.str() << err.str();
  EXPECT_EQ(run_pool_tool({"repair", file}, out, err), kPoolUnreadable);
  EXPECT_TRUE(says(err.str(), {file, "Read-only file system"}));
  umount(where.c_str());
  rmdir(where.c_str());
}

TEST_F(DamageTest, ATruncatedFileIsRefusedAndRepaired) {
  const Regions regions(nullptr, Geometry::of(kBytes));
  // Behind the pages that are in use, and then before some of them.
  for (const uint64_t bytes : {kBytes - 4096, kBytes - 100}) {
    ASSERT_EQ(truncate(directory.file().c_str(), static_cast<off_t>(bytes)), 0);
    EXPECT_TRUE(says(start(), {directory.file(), "bytes", std::to_string(bytes),
                               std::to_string(kBytes), "flowkeep-pool repair"}));
    repair_gives_up(0, "cut to " + std::to_string(bytes));
  }
  ASSERT_EQ(truncate(directory.file().c_str(),
                     static_cast<off_t>(regions.geometry().pages_at + 8 * kPageBytes)),
            0);
  int status = 0;
  EXPECT_TRUE(says(tool({"repair"}, status), {"lost", "file", "zero takes its place"}));
  EXPECT_EQ(status, kPoolFindings);
  EXPECT_EQ(start(), "");
  ASSERT_EQ(truncate(directory.file().c_str(), 3000), 0);
  EXPECT_NE(start(), "");
  tool({"repair"}, status);
}

TEST_F(DamageTest, ALongerFileIsRefusedAndRepaired) {
  ASSERT_EQ(truncate(directory.file().c_str(), static_cast<off_t>(kBytes + 4096)), 0);
  EXPECT_TRUE(says(start(), {directory.file(), "bytes", std::to_string(kBytes + 4096)}));
  repair_gives_up(0, "too long");
}

TEST_F(DamageTest, APoolInUseIsLookedAtAndNotRepaired) {
  auto pool = open_pool(directory, kBytes);
  int status = 0;
  EXPECT_TRUE(says(tool({"info"}, status), {"in use by a node"}));
  EXPECT_EQ(status, kPoolFine);
  EXPECT_TRUE(says(tool({"dump", "--filter", "bucket=5"}, status), {"edge", "bucket 5"}));
  EXPECT_TRUE(says(tool({"repair"}, status), {directory.file(), "in use"}));
  EXPECT_EQ(status, kPoolUnreadable);
  EXPECT_TRUE(says(tool({"repair", "--dry-run"}, status), {directory.file(), "in use"}));
}

// ---- Chains.

TEST_F(DamageTest, AChainsEntryIsRefusedAndMendedWhereOneBitIsWrong) {
  for (const size_t at : {size_t{0}, size_t{3}, size_t{20}, offsetof(ChainEntry, state),
                          offsetof(ChainEntry, buckets), offsetof(ChainEntry, attached_s),
                          offsetof(ChainEntry, checksum)}) {
    damage([at](const Regions& regions) {
      reinterpret_cast<std::byte*>(&regions.chain(0))[at] ^= std::byte{1};
    });
    EXPECT_TRUE(says(start(), {directory.file(), "chain", "accepted: ", "flowkeep-pool repair"}))
        << at;
    repair_gives_up(0, "chain entry byte " + std::to_string(at));
  }
}

TEST_F(DamageTest, AChainWhoseNameIsGoneIsGivenUpByItsFlows) {
  damage([](const Regions& regions) { std::memset(regions.chain(0).name, 0xee, 64); });
  EXPECT_TRUE(says(start(), {"chain 0", "directory entry"}));
  int status = 0;
  const std::string text = tool({"repair"}, status);
  EXPECT_TRUE(says(text, {"the chain is given up", name_of_flow(1), name_of_flow(8)}));
  EXPECT_EQ(start(), "");
}

// ---- Redo logs.

RedoHeader& newest_header(const Regions& regions, uint64_t back = 0) {
  const uint64_t sequence = read_log(regions, 2).newest() - back;
  return *reinterpret_cast<RedoHeader*>(regions.redo_slot(2, sequence));
}

struct Damage {
  const char* name;
  std::function<void(const Regions&)> change;
  uint64_t given_up;
};

// The newest burst opened a flow, and had not gone home.
TEST_F(DamageTest, ARedoLogIsRefusedAndItsFlowsAreNamed) {
  const Damage damages[] = {
      {"sequence", [](const Regions& r) { newest_header(r).sequence += 1000; }, 1},
      {"the other slot's sequence",
       [](const Regions& r) { newest_header(r, 1).sequence ^= 1 << 20; }, 0},
      {"both magics",
       [](const Regions& r) {
         RedoHeader& other = newest_header(r, 1);
         newest_header(r).magic = 1;
         other.magic = 1;
       },
       1},
      {"retired mark", [](const Regions& r) { r.log(2).retired ^= 2; }, 0},
      {"pending claim", [](const Regions& r) { r.log(2).pending[0].sequence = 1 << 30; }, 0},
  };
  for (const Damage& one : damages) {
    save();
    damage(one.change);
    EXPECT_TRUE(
        says(start(), {directory.file(), "redo log 2", "accepted: ", "flowkeep-pool repair"}))
        << one.name;
    repair_gives_up(0, one.name, one.given_up);
    restore();
  }
}

TEST_F(DamageTest, ABurstThatLooksUncommittedIsTakenForOne) {
  damage([](const Regions& regions) { ++newest_header(regions).payload_bytes; });
  int status = 0;
  EXPECT_TRUE(says(tool({"check"}, status), {"note", "never committed"}));
  EXPECT_EQ(start(), "");
}

// ---- Buckets.

TEST_F(DamageTest, EachFieldOfABucketsHeaderIsRebuilt) {
  ASSERT_EQ(start(), "");  // no redo record may hide the damage
  for (const uint32_t value : {0u, 1u, 3000u, UINT32_MAX}) {
    for (size_t at = 0; at < offsetof(BucketHeader, reserved); at += 4) {
      save();
      bool changed = false;
      damage([&](const Regions& regions) {
        auto& word = *reinterpret_cast<uint32_t*>(
            reinterpret_cast<std::byte*>(&regions.bucket(0, kPreciousBucket)) + at);
        changed = word != value;
        word = value;
      });
      if (changed) {
        repair_gives_up(0, "header +" + std::to_string(at) + " = " + std::to_string(value));
      }
      restore();
    }
  }
}

TEST_F(DamageTest, WhatABucketIsMadeOf) {
  ASSERT_EQ(start(), "");
  const auto header = [](const Regions& r) -> BucketHeader& {
    return r.bucket(0, kPreciousBucket);
  };
  const auto first_word = [&](const Regions& r) {
    const auto* words = reinterpret_cast<const uint32_t*>(r.page(header(r).root_page));
    return DirectoryEntry::unpack(words[directory_start(header(r).depth)]);
  };
  const auto segment = [&](const Regions& r) { return first_word(r).page; };
  const auto first_entry = [&](const Regions& r) {
    auto* entry = reinterpret_cast<uint64_t*>(r.page(segment(r)));
    // Those of other prefixes are dead.
    while (*entry == 0 || *entry >> (64 - first_word(r).depth) != 0) ++entry;
    return entry;
  };
  const Damage damages[] = {
      {"hard state", [&](const Regions& r) { r.record(id_of(r, 1)).hard[7] ^= 1; }, 1},
      {"inside key", [&](const Regions& r) { r.record(id_of(r, 1)).inside_key.src.raw ^= 1; }, 1},
      {"phase", [&](const Regions& r) { r.record(id_of(r, 1)).phase = FlowPhase::kFree; }, 1},
      {"no phase", [&](const Regions& r) { r.record(id_of(r, 1)).phase = FlowPhase{99}; }, 1},
      {"record's bucket", [&](const Regions& r) { r.record(id_of(r, 1)).bucket = 65535; }, 1},
      {"record's extent", [&](const Regions& r) { r.record(id_of(r, 10)).extent = 1; }, 1},
      {"a free record", [&](const Regions& r) { r.record(header(r).free_record).hard[0] ^= 1; }, 0},
      {"a free list that bites its tail",
       [&](const Regions& r) { r.record(header(r).free_record).next_free = header(r).free_record; },
       0},
      {"extent's content",
       [&](const Regions& r) { *(r.block(r.record(id_of(r, 10)).extent) + 50) ^= std::byte{1}; },
       1},
      {"extent's list",
       [&](const Regions& r) {
         const uint32_t block = r.record(id_of(r, 390)).extent;
         r.extent_head(block_page(block)).next[block_place(block)] = block;
       },
       1},
      {"directory",
       [&](const Regions& r) { std::memset(r.page(header(r).root_page), 0, kPageBytes); }, 0},
      {"segment", [&](const Regions& r) { std::memset(r.page(segment(r)), 0, kPageBytes); }, 0},
      {"segment of ones",
       [&](const Regions& r) { std::memset(r.page(segment(r)), 255, kPageBytes); }, 0},
      {"entry's record", [&](const Regions& r) { *first_entry(r) ^= 1 << 5; }, 0},
      {"entry's tag", [&](const Regions& r) { *first_entry(r) ^= uint64_t{1} << 40; }, 0},
      {"entry", [&](const Regions& r) { *first_entry(r) = 0; }, 0},
      {"page table: segment", [&](const Regions& r) { r.page_word(segment(r)) = 0; }, 0},
      {"page table: directory", [&](const Regions& r) { r.page_word(header(r).root_page) ^= 1; },
       0},
      {"page table: records", [&](const Regions& r) { r.page_word(header(r).record_page) = 0; }, 0},
      {"page table: records' link",
       [&](const Regions& r) { r.page_word(header(r).record_page) ^= uint64_t{7} << 32; }, 0},
      {"page table: extents", [&](const Regions& r) { r.page_word(header(r).extent_page) = 12345; },
       0},
      {"page table: nobody's page",
       [&](const Regions& r) { r.page_table()[r.geometry().pages - 1] = 0xffffffff; }, 0},
  };
  for (const Damage& one : damages) {
    save();
    damage(one.change);
    repair_gives_up(one.given_up, one.name);
    restore();
  }
}

TEST_F(DamageTest, AWholePageOfRecordsIsGivenUpFlowByFlow) {
  ASSERT_EQ(start(), "");
  uint64_t flows = 0;
  damage([&](const Regions& regions) {
    // The oldest: full.
    uint32_t page = regions.bucket(0, kPreciousBucket).record_page;
    while (regions.page_word(page) >> 32 != 0)
      page = static_cast<uint32_t>(regions.page_word(page) >> 32);
    for (RecordId id = record_id(page, 0); id < record_id(page, kRecordsPerPage); ++id) {
      flows += regions.record(id).phase != FlowPhase::kFree ? 1 : 0;
    }
    std::memset(regions.page(page), 0, kPageBytes);
  });
  ASSERT_GT(flows, 0u);
  repair_gives_up(flows, "page of records");
}

}  // namespace
}  // namespace flowkeep
