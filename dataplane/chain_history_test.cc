#include "dataplane/chain_history.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace flowkeep {
namespace {

class ChainHistoryTest : public testing::Test {
 protected:
  ChainHistoryTest() {
    std::string pattern = "/tmp/flowkeep-history-XXXXXX";
    root_ = mkdtemp(pattern.data());
  }
  ~ChainHistoryTest() override { std::filesystem::remove_all(root_); }
  static node::v1::ChainRevision revision(uint32_t number) {
    node::v1::ChainRevision revision;
    revision.set_chain("edge");
    revision.set_revision(number);
    revision.add_functions()->set_type("firewall");
    return revision;
  }
  std::string root_;
};

TEST_F(ChainHistoryTest, IsReadAsItWasWritten) {
  node::internal::ChainHistory history;
  *history.mutable_last_good() = revision(2);
  history.set_given_up_revision(3);
  history.set_given_up_reason("5 workers died");
  ASSERT_TRUE(save_history(root_, "edge", history).ok());
  const auto read = load_history(root_, "edge");
  EXPECT_EQ(read.SerializeAsString(), history.SerializeAsString());
  EXPECT_EQ(load_history(root_, "other").given_up_revision(), 0U);
  forget_history(root_, "edge");
  EXPECT_FALSE(load_history(root_, "edge").has_last_good());
}

TEST_F(ChainHistoryTest, WhatCannotBeReadCountsAsNone) {
  std::filesystem::create_directories(root_ + "/chains");
  for (const char* text : {"", "no message", "\xff\xff\xff"}) {
    std::ofstream(root_ + "/chains/edge.history") << text;
    EXPECT_FALSE(load_history(root_, "edge").has_last_good()) << text;
  }
  node::internal::ChainHistory other;
  *other.mutable_last_good() = revision(2);
  other.mutable_last_good()->set_chain("other");
  ASSERT_TRUE(save_history(root_, "edge", other).ok());
  EXPECT_FALSE(load_history(root_, "edge").has_last_good());
}

TEST_F(ChainHistoryTest, ANodeStartsWithWhatItWasToldUnlessThatWasGivenUp) {
  node::internal::ChainHistory history;
  EXPECT_EQ(revision_to_run(revision(3), history).revision(), 3U);
  *history.mutable_last_good() = revision(2);
  EXPECT_EQ(revision_to_run(revision(3), history).revision(), 3U);
  history.set_given_up_revision(3);
  EXPECT_EQ(revision_to_run(revision(3), history).revision(), 2U);
  EXPECT_EQ(revision_to_run(revision(4), history).revision(), 4U);
}

TEST_F(ChainHistoryTest, ADirectoryThatCannotBeWrittenIsNamed) {
  const auto saved = save_history("/proc/none", "edge", {});
  ASSERT_FALSE(saved.ok());
  EXPECT_NE(saved.error().text().find("/proc/none"), std::string::npos);
}

}  // namespace
}  // namespace flowkeep
