// Pools of every released format stay readable: state/golden/ holds one of each version with a
// committed burst that has not gone home, and its flows. `make_golden` makes the next one.
#include <filesystem>
#include <iterator>
#include <sstream>

#include "state/pool_test_support.h"
#include "state/sparse_file.h"
#include "state/tool/pool_tool.h"

namespace flowkeep {
namespace {

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::filesystem::path> golden_pools() {
  std::vector<std::filesystem::path> pools;
  for (const auto& entry : std::filesystem::directory_iterator(FLOWKEEP_GOLDEN)) {
    if (entry.path().extension() == ".sparse") pools.push_back(entry.path());
  }
  return pools;
}

std::string run(std::vector<std::string> arguments, int expected) {
  std::ostringstream out, errors;
  EXPECT_EQ(run_pool_tool(arguments, out, errors), expected) << out.str() << errors.str();
  return out.str();
}

TEST(GoldenPools, AreCleanHoldTheirFlowsAndGoOn) {
  bool current = false;
  for (const std::filesystem::path& golden : golden_pools()) {
    current |= golden.stem() == "pool-v" + std::to_string(kPoolFormatVersion);
    const std::vector<uint64_t> words = read_sparse(golden);
    ASSERT_FALSE(words.empty()) << golden;
    PoolDirectory directory;
    std::ofstream(directory.file(), std::ios::binary)
        .write(reinterpret_cast<const char*>(words.data()),
               static_cast<std::streamsize>(words.size() * sizeof(uint64_t)));
    const std::string flows = read_text(std::filesystem::path(golden).replace_extension(".json"));
    run({"check", directory.file()}, kPoolFine);
    EXPECT_EQ(run({"dump", "--json", directory.file()}, kPoolFine), flows) << golden;
    {
      auto pool = open_pool(directory, words.size() * sizeof(uint64_t));
      ASSERT_TRUE(pool) << golden;
      const RecoveryReport report = pool->recover_all();
      EXPECT_FALSE(report.refused) << golden;
      EXPECT_EQ(report.redo_records_applied, 1u) << golden;
    }
    EXPECT_EQ(run({"dump", "--json", directory.file()}, kPoolFine), flows) << golden;
    {
      auto pool = open_pool(directory, words.size() * sizeof(uint64_t));
      FlowTable table(*pool, 0, 0);
      const uint64_t before = pool->count_flows(0);
      for (uint32_t n = 0; n < 100; ++n) {
        FlowKey outside = inside_key(n).reversed();
        ASSERT_EQ(table.open(n % 16, inside_key(n), outside).status, OpenStatus::kOk) << golden;
        commit_and_apply(table);
      }
      EXPECT_EQ(pool->count_flows(0), before + 100) << golden;
    }
    run({"check", directory.file()}, kPoolFine);
  }
  EXPECT_TRUE(current) << "no golden pool of version " << kPoolFormatVersion;
}

}  // namespace
}  // namespace flowkeep
