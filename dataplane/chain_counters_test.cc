#include "dataplane/chain_counters.h"

#include <gtest/gtest.h>

#include <memory>

namespace flowkeep {
namespace {

// The low bits of revision 256 are those of a bank that nobody uses.
TEST(ChainCounters, CountsWhereTheRevisionsBankIs) {
  for (const uint32_t revision : {1U, 255U, 256U, 257U, 512U}) {
    const auto counters = std::make_unique<ChainCounters>();
    counters->begin(revision, 0);
    PacketMeta meta;
    meta.revision = static_cast<uint8_t>(revision);
    meta.counts[0] = 3;
    counters->count(meta);
    const ChainCounters::Bank* bank = counters->find(revision);
    ASSERT_NE(bank, nullptr);
    EXPECT_EQ(bank->packets[2].load(), 1U) << revision;
  }
}

}  // namespace
}  // namespace flowkeep
