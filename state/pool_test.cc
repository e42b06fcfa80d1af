// Pool: formatting, opening again, everything that open() and attach_chain() must refuse, chains.
#include "state/pool.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <atomic>
#include <fstream>

#include "state/persistence.h"
#include "state/pool_test_support.h"
#include "state/superblock.h"

namespace flowkeep {
namespace {

using testing::AssertionResult;

constexpr uint64_t kBytes = 5 * 1024 * 1024;

AssertionResult contains(const std::string& text, std::initializer_list<std::string> parts) {
  for (const std::string& part : parts) {
    if (text.find(part) == std::string::npos) {
      return testing::AssertionFailure() << "\"" << text << "\" lacks \"" << part << "\"";
    }
  }
  return testing::AssertionSuccess();
}

class PoolTest : public testing::Test {
 protected:
  std::string refusal(uint64_t bytes = kBytes) {
    auto pool = Pool::open({directory.file(), bytes});
    return pool.ok() ? "opened" : pool.error().text();
  }
  // refusal(), asked by a process that may not open anything: root may.
  std::string refusal_as_nobody() {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    const pid_t pid = fork();
    if (pid == 0) {
      constexpr id_t kNobody = 65534;
      const bool dropped = geteuid() != 0 || (setgid(kNobody) == 0 && setuid(kNobody) == 0);
      const std::string text = dropped ? refusal() : "cannot become nobody";
      _exit(write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : 1);
    }
    close(ends[1]);
    char text[1024];
    const ssize_t bytes = read(ends[0], text, sizeof(text));
    close(ends[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    EXPECT_EQ(status, 0);
    return {text, static_cast<size_t>(std::max<ssize_t>(bytes, 0))};
  }
  // Formats a pool, changes its superblock, and says why it is refused then.
  std::string refusal_of(const std::function<void(Superblock&)>& change, bool keep_checksum) {
    open_pool(directory, kBytes);
    Superblock superblock;
    std::fstream file(directory.file(), std::ios::in | std::ios::out | std::ios::binary);
    file.read(reinterpret_cast<char*>(&superblock), sizeof(superblock));
    change(superblock);
    if (!keep_checksum) {
      superblock.checksum = superblock_checksum(superblock);
    }
    file.seekp(0);
    file.write(reinterpret_cast<const char*>(&superblock), sizeof(superblock));
    file.close();
    const std::string text = refusal();
    unlink(directory.file().c_str());
    return text;
  }
  void write_file(size_t bytes, char fill) {
    std::ofstream(directory.file(), std::ios::binary) << std::string(bytes, fill);
  }

  PoolDirectory directory;
};

TEST_F(PoolTest, FormatsOnceAndFindsTheSamePoolAgain) {
  auto pool = open_pool(directory, kBytes);
  EXPECT_TRUE(pool->was_formatted());
  EXPECT_EQ(pool->medium(), Medium::kTmpfs);
  EXPECT_FALSE(pool->emulated());
  EXPECT_EQ(pool->bytes(), kBytes);
  EXPECT_EQ(pool->free_pages(), pool->total_pages());
  const HashSecret secret = pool->hash_secret();
  EXPECT_NE(secret.k0, 0u);
  pool.reset();
  pool = open_pool(directory, kBytes, true);
  EXPECT_FALSE(pool->was_formatted());
  EXPECT_TRUE(pool->emulated());
  EXPECT_EQ(pool->hash_secret().k0, secret.k0);
  EXPECT_EQ(pool->hash_secret().k1, secret.k1);
}

TEST_F(PoolTest, AnEmptyFileIsFormatted) {
  write_file(0, 0);
  EXPECT_TRUE(open_pool(directory, kBytes)->was_formatted());
}

TEST(PoolOnDisk, SaysSo) {
  PoolDirectory directory("/var/tmp");
  auto pool = open_pool(directory, kBytes);
  if (pool->medium() == Medium::kTmpfs) GTEST_SKIP() << "/var/tmp is a tmpfs here";
  EXPECT_EQ(medium_name(pool->medium()), "disk");
  EXPECT_EQ(medium_survives(Medium::kDax), "power failure");
}

TEST_F(PoolTest, RefusesSizesThatArePossibleForNoPool) {
  EXPECT_TRUE(contains(refusal(1000), {directory.file(), "bytes", "1000", "multiples of 4096"}));
  EXPECT_TRUE(
      contains(refusal(Pool::minimum_bytes() - 4096), {std::to_string(Pool::minimum_bytes())}));
  EXPECT_TRUE(
      contains(refusal(Pool::maximum_bytes() + 4096), {std::to_string(Pool::maximum_bytes())}));
  EXPECT_TRUE(contains(refusal(kBytes + 1), {std::to_string(kBytes + 1)}));
  EXPECT_NE(access(directory.file().c_str(), F_OK), 0) << "a refused pool leaves no file";
}

TEST_F(PoolTest, RefusesAnotherSize) {
  open_pool(directory, kBytes);
  EXPECT_TRUE(contains(refusal(kBytes + 4096), {directory.file(), "bytes", std::to_string(kBytes),
                                                std::to_string(kBytes + 4096)}));
}

TEST_F(PoolTest, RefusesWhatIsNoPoolAndLeavesItAlone) {
  write_file(kBytes, 'x');
  EXPECT_TRUE(contains(refusal(), {directory.file(), "superblock.magic", "left as it is"}));
  std::ifstream file(directory.file(), std::ios::binary);
  std::string content(kBytes, 0);
  file.read(content.data(), kBytes);
  EXPECT_EQ(content, std::string(kBytes, 'x'));
}

TEST_F(PoolTest, RefusesOtherVersionsChecksumsAndGeometries) {
  EXPECT_TRUE(contains(refusal_of([](Superblock& s) { s.version = 9; }, false),
                       {directory.file(), "superblock.version", "9",
                        "accepted: " + std::to_string(kPoolFormatVersion), "later"}));
  EXPECT_TRUE(contains(refusal_of([](Superblock& s) { s.version = 2; }, false),
                       {"superblock.version", "2 is not accepted", "earlier", "move the file away",
                        "without flows"}));
  EXPECT_TRUE(contains(refusal_of([](Superblock& s) { s.secret.k0 ^= 1; }, true),
                       {directory.file(), "superblock.checksum"}));
  EXPECT_TRUE(contains(refusal_of([](Superblock& s) { s.geometry.buckets = 2048; }, false),
                       {directory.file(), "superblock.buckets", "2048", "1024"}));
  EXPECT_TRUE(contains(refusal_of([](Superblock& s) { s.geometry.pages += 1; }, false),
                       {directory.file(), "superblock.pages"}));
  EXPECT_TRUE(contains(refusal_of([](Superblock& s) { s.magic += 1; }, false), {"magic"}));
}

TEST_F(PoolTest, RefusesAPoolThatAnotherNodeHolds) {
  auto held = open_pool(directory, kBytes);
  EXPECT_TRUE(contains(refusal(), {directory.file(), "locked by another"}));
  held.reset();
  EXPECT_EQ(refusal(), "opened");
}

TEST_F(PoolTest, AForkedChildKeepsTheLock) {
  auto pool = open_pool(directory, kBytes);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    char byte;
    close(ends[1]);
    _exit(static_cast<int>(read(ends[0], &byte, 1)));
  }
  pool.reset();
  EXPECT_TRUE(contains(refusal(), {"locked"}));
  close(ends[0]);
  close(ends[1]);
  waitpid(child, nullptr, 0);
  EXPECT_EQ(refusal(), "opened");
}

TEST_F(PoolTest, RefusesWhatIsNoRegularFile) {
  EXPECT_TRUE(contains(Pool::open({directory.path(), kBytes}).error().text(),
                       {directory.path(), "not a regular file"}));
  ASSERT_EQ(mkfifo(directory.file().c_str(), 0600), 0);
  EXPECT_TRUE(contains(refusal(), {directory.file(), "not a regular file"}));
  EXPECT_TRUE(contains(Pool::open({"", kBytes}).error().text(), {"path"}));
}

TEST_F(PoolTest, RefusesAFileThatItMayNotOpen) {
  EXPECT_TRUE(contains(Pool::open({directory.path() + "/none/pool", kBytes}).error().text(),
                       {"none/pool", "No such file"}));
  open_pool(directory, kBytes);
  chmod(directory.path().c_str(), 0755);
  chmod(directory.file().c_str(), 0400);
  EXPECT_TRUE(contains(refusal_as_nobody(), {directory.file(), "Permission denied"}));
}

TEST_F(PoolTest, AFormatThatWasInterruptedIsDoneAgain) {
  class Interrupt : public PersistenceObserver {
   public:
    explicit Interrupt(uint64_t stores) : left_(stores) {}
    void storing(void*, const void*, size_t) override {
      if (left_-- == 0) throw 0;
    }
    void flushing(const void*, size_t) override {}
    void fencing() override {}

   private:
    uint64_t left_;
  };
  const uint64_t cleared_words = Geometry::of(kBytes).pages_at / 8;
  for (uint64_t stores_of_superblock = 0; stores_of_superblock < 2 * sizeof(Superblock) / 8;
       ++stores_of_superblock) {
    std::vector<std::byte> memory(kBytes);
    Persistence persistence(false);
    Interrupt interrupt(cleared_words + stores_of_superblock);
    persistence.observe(&interrupt);
    EXPECT_THROW((void)format_pool("memory", memory.data(), kBytes, persistence).ok(), int);
    EXPECT_TRUE(is_unfinished_format(memory.data(), kBytes)) << stores_of_superblock;
    std::ofstream(directory.file(), std::ios::binary)
        .write(reinterpret_cast<const char*>(memory.data()), kBytes);
    EXPECT_TRUE(open_pool(directory, kBytes)->was_formatted());
    unlink(directory.file().c_str());
  }
}

TEST_F(PoolTest, ChainsAreFoundAgainByName) {
  auto pool = open_pool(directory, kBytes);
  const auto first = pool->attach_chain("first", 8);
  const auto second = pool->attach_chain(std::string(63, 'n'), 1024);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_FALSE(first->existed);
  EXPECT_NE(first->index, second->index);
  pool.reset();
  pool = open_pool(directory, kBytes);
  const auto again = pool->attach_chain("first", 8);
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->existed);
  EXPECT_EQ(again->index, first->index);
}

TEST_F(PoolTest, RefusesChainsThatDoNotFit) {
  auto pool = open_pool(directory, kBytes);
  ASSERT_TRUE(pool->attach_chain("known", 8).ok());
  EXPECT_TRUE(contains(pool->attach_chain("known", 16).error().text(),
                       {directory.file(), "known", "buckets", "16", "accepted: 8"}));
  EXPECT_TRUE(contains(pool->attach_chain("odd", 12).error().text(), {"12", "powers of two"}));
  EXPECT_TRUE(contains(pool->attach_chain("none", 0).error().text(), {"powers of two"}));
  EXPECT_TRUE(contains(pool->attach_chain("many", 2048).error().text(), {"2048", "1024"}));
  EXPECT_TRUE(contains(pool->attach_chain("", 8).error().text(), {"1 to 63 bytes"}));
  EXPECT_TRUE(contains(pool->attach_chain(std::string(64, 'n'), 8).error().text(), {"64 bytes"}));
  EXPECT_TRUE(contains(pool->drop_chain("unknown").error().text(), {"unknown", "not in the pool"}));
  EXPECT_FALSE(pool->drop_chain("").ok());
  for (size_t i = 1; i < kMaxChains; ++i) {
    ASSERT_TRUE(pool->attach_chain("chain" + std::to_string(i), 8).ok());
  }
  EXPECT_TRUE(contains(pool->attach_chain("one too many", 8).error().text(), {"16 chains"}));
}

TEST_F(PoolTest, DroppingAChainLeavesTheOthersAlone) {
  auto pool = open_pool(directory, kBytes);
  ASSERT_EQ(pool->attach_chain("stays", 4)->index, 0u);
  ASSERT_EQ(pool->attach_chain("goes", 4)->index, 1u);
  FlowTable stays(*pool, 0, 0);
  FlowTable goes(*pool, 1, 1);
  open_flow(stays, 0, 1, 1);
  commit_and_apply(stays);
  const uint64_t free_without = pool->free_pages();
  for (uint32_t n = 0; n < 50; ++n) open_flow(goes, n % 4, n, n), commit_and_apply(goes);
  EXPECT_EQ(pool->count_flows(1), 50u);
  ASSERT_TRUE(pool->drop_chain("goes").ok());
  EXPECT_EQ(pool->free_pages(), free_without);
  EXPECT_EQ(pool->count_flows(1), 0u);
  EXPECT_EQ(difference(*pool, {{0, {{1, 1}}}}), "");

  // Its pages belong to somebody else now; recovery must not redo its last bursts on them.
  ASSERT_TRUE(pool->attach_chain("next", 4).ok());
  FlowModel model = {{0, {{1, 1}}}};
  for (uint32_t n = 100; n < 200; ++n) {
    open_flow(stays, n % 4, n, n);
    model[n % 4][n] = n;
    commit_and_apply(stays);
  }
  pool->recover_all();
  EXPECT_EQ(difference(*pool, model), "");
}

TEST_F(PoolTest, RecoveryReportsWhatItDid) {
  auto pool = open_pool(directory, kBytes);
  ASSERT_TRUE(pool->attach_chain("chain", 4).ok());
  {
    FlowTable committed(*pool, 0, 0);
    open_flow(committed, 0, 1, 1);
    committed.commit({});
    FlowTable uncommitted(*pool, 0, 1);
    open_flow(uncommitted, 1, 2, 2);
  }
  pool.reset();
  pool = open_pool(directory, kBytes);
  const RecoveryReport report = pool->recover_all();
  EXPECT_EQ(report.redo_records_applied, 1u);
  EXPECT_EQ(report.redo_records_torn, 0u);
  EXPECT_EQ(report.pages_reclaimed, 2u);
  EXPECT_EQ(difference(*pool, {{0, {{1, 1}}}}), "");
  EXPECT_EQ(page_leak(*pool), "");
  const RecoveryReport again = pool->recover_all();
  EXPECT_EQ(again.redo_records_applied + again.pages_reclaimed, 0u);
}

// Another process may read flows with the pool mapped read-only while a worker changes them.
TEST_F(PoolTest, ReadersSeeWholeRecordsBesideAWriter) {
  auto pool = open_pool(directory, kBytes);
  ASSERT_TRUE(pool->attach_chain("chain", 4).ok());
  FlowTable table(*pool, 0, 0);
  for (uint32_t n = 0; n < 20; ++n) open_flow(table, n % 4, n, 0), commit_and_apply(table);
  const pid_t writer = fork();
  if (writer == 0) {
    FlowTable writing(*pool, 0, 1);
    for (uint64_t round = 1; round < 3'000; ++round) {
      for (uint32_t n = 0; n < 20; ++n) {
        FlowRecord& record = writing.stage(find_inside(writing, n % 4, n));
        record.revision = static_cast<uint32_t>(round);
        for (size_t i = 0; i < kHardStateBytes; i += 8) std::memcpy(record.hard + i, &round, 8);
      }
      commit_and_apply(writing);
    }
    _exit(0);
  }
  ASSERT_EQ(mprotect(pool->base(), pool->bytes(), PROT_READ), 0);
  uint64_t torn = 0;
  uint64_t seen = 0;
  while (waitpid(writer, nullptr, WNOHANG) == 0) {
    pool->for_each_flow(0, [&](const FlowRecord& record) {
      ++seen;
      for (size_t i = 0; i < kHardStateBytes; i += 8) {
        uint64_t word = 0;
        std::memcpy(&word, record.hard + i, 8);
        if (word != record.revision) ++torn;
      }
      return true;
    });
    EXPECT_EQ(pool->count_flows(0), 20u);
  }
  EXPECT_EQ(torn, 0u);
  EXPECT_GT(seen, 0u);
  uint64_t first_only = 0;
  pool->for_each_flow(0, [&](const FlowRecord&) { return ++first_only, false; });
  EXPECT_EQ(first_only, 1u);
}

}  // namespace
}  // namespace flowkeep
