#include "controller/store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <random>

namespace flowkeep {
namespace {

class StoreTest : public ::testing::Test {
 protected:
  StoreTest() {
    char folder[] = "/tmp/flowkeep-store-XXXXXX";
    folder_ = ::mkdtemp(folder);
    path_ = folder_ + "/store.db";
  }
  ~StoreTest() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<Store> open() {
    auto store = Store::open(path_);
    if (!store) ADD_FAILURE() << store.error().text();
    return std::move(store).value();
  }
  static StoredChain chain(const std::string& name, uint32_t revision) {
    StoredChain chain{name, {}, revision, 10, 10.0 + revision};
    chain.spec.set_inside("inside");
    chain.spec.set_workers(revision % 8 + 1);
    return chain;
  }

  std::string folder_, path_;
};

TEST_F(StoreTest, KeepsChainsAndNodesOverARestart) {
  {
    const auto store = open();
    ASSERT_TRUE(store->put_chain(chain("edge", 1)).ok());
    ASSERT_TRUE(store->put_chain(chain("edge", 2)).ok());
    StoredNode node;
    node.registration.set_name("node-1");
    node.registration.set_agent_address("127.0.0.1:1");
    node.registered_at_s = 5;
    ASSERT_TRUE(store->put_node(node).ok());
  }
  const auto store = open();
  const auto chains = store->chains();
  ASSERT_TRUE(chains.ok());
  ASSERT_EQ(chains->size(), 1u);
  EXPECT_EQ(chains->front().revision, 2u);
  EXPECT_EQ(chains->front().spec.inside(), "inside");
  EXPECT_EQ(chains->front().updated_at_s, 12.0);
  const auto nodes = store->nodes();
  ASSERT_TRUE(nodes.ok());
  ASSERT_EQ(nodes->size(), 1u);
  EXPECT_EQ(nodes->front().registration.agent_address(), "127.0.0.1:1");
  EXPECT_EQ(nodes->front().registered_at_s, 5.0);
}

TEST_F(StoreTest, NeverUsesARevisionNumberTwice) {
  const auto store = open();
  EXPECT_EQ(*store->next_revision("edge", 0), 1u);
  EXPECT_EQ(*store->next_revision("edge", 6), 7u);
  ASSERT_TRUE(store->put_chain(chain("edge", 3)).ok());
  ASSERT_TRUE(store->delete_chain("edge", 20).ok());
  EXPECT_FALSE(store->chain("edge")->has_value());
  EXPECT_EQ(*store->next_revision("edge", 0), 4u);
  EXPECT_TRUE(*store->knows_chain_name("edge"));
  EXPECT_FALSE(*store->knows_chain_name("other"));
}

TEST_F(StoreTest, ReservedRevisionCountsUntilItIsReleased) {
  const auto store = open();
  ASSERT_TRUE(store->reserve_revision("edge", 1, 1).ok());
  EXPECT_EQ(*store->next_revision("edge", 0), 2u);
  ASSERT_TRUE(store->release_revision("edge", 1).ok());
  EXPECT_EQ(*store->next_revision("edge", 0), 1u);
  ASSERT_TRUE(store->put_chain(chain("edge", 1)).ok());
  ASSERT_TRUE(store->release_revision("edge", 1).ok());  // is in use: stays
  EXPECT_EQ(*store->next_revision("edge", 0), 2u);
}

TEST_F(StoreTest, RefusesASecondController) {
  const auto store = open();
  const auto second = Store::open(path_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().text(),
            "--store: \"" + path_ + "\" is in use by another flowkeep-controller");
}

TEST_F(StoreTest, NamesAFolderThatIsMissing) {
  const auto store = Store::open(folder_ + "/none/store.db");
  ASSERT_FALSE(store.ok());
  EXPECT_EQ(store.error().kind, Error::Kind::kInvalid);
  EXPECT_NE(store.error().text().find("No such file or directory"), std::string::npos);
}

TEST_F(StoreTest, NamesAFileThatIsNoStore) {
  FILE* file = std::fopen(path_.c_str(), "w");
  for (int i = 0; i < 1'000; ++i) std::fputs("no database", file);
  std::fclose(file);
  const auto store = Store::open(path_);
  ASSERT_FALSE(store.ok());
  EXPECT_NE(store.error().text().find("file is not a database"), std::string::npos);
}

TEST_F(StoreTest, TakesANodesEventsOnceAndCountsAnewFromEachStart) {
  const auto store = open();
  StoredNode node;
  node.registration.set_name("node-1");
  ASSERT_TRUE(store->put_node(node).ok());
  std::vector<NodeEvent> events(2);
  events[0].sequence = 1;
  events[1].sequence = 2;
  for (NodeEvent& event : events) {
    event.event.set_node("node-1");
    event.event.set_at_s(static_cast<double>(event.sequence));
    event.event.set_kind("failover");
  }
  ASSERT_TRUE(store->add_node_events("node-1", 100, events).ok());
  ASSERT_TRUE(store->add_node_events("node-1", 100, events).ok());
  EXPECT_EQ(store->events(0, 10, "")->size(), 2u);
  EXPECT_EQ(*store->node_event_cursor("node-1", 100), 2u);
  EXPECT_EQ(*store->node_event_cursor("node-1", 200), 0u);
}

TEST_F(StoreTest, ListsEventsFromTheNewestOrAfterASequence) {
  const auto store = open();
  for (int i = 1; i <= 5; ++i) {
    v1::Event event;
    event.set_kind("kind-" + std::to_string(i));
    event.set_chain(i % 2 == 0 ? "even" : "odd");
    ASSERT_EQ(*store->add_event(event), static_cast<uint64_t>(i));
  }
  const auto newest = *store->events(0, 2, "");
  ASSERT_EQ(newest.size(), 2u);
  EXPECT_EQ(newest[0].kind(), "kind-4");
  const auto following = *store->events(2, 2, "");
  ASSERT_EQ(following.size(), 2u);
  EXPECT_EQ(following[0].kind(), "kind-3");
  EXPECT_EQ(store->events(0, 10, "even")->size(), 2u);
}

// A process writes revisions and says so after each; it is killed at some point. What it said is
// there.
TEST_F(StoreTest, WhatWasAcknowledgedSurvivesSigkill) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  uint32_t acknowledged = 0;
  for (int round = 0; round < 5; ++round) {
    int pipe_ends[2];
    ASSERT_EQ(::pipe(pipe_ends), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      const auto store = Store::open(path_);
      uint32_t revision = acknowledged;
      while (store.ok() && (*store)->put_chain(chain("edge", ++revision)).ok() &&
             ::write(pipe_ends[1], &revision, sizeof(revision)) == sizeof(revision)) {
      }
      ::_exit(1);
    }
    ::close(pipe_ends[1]);
    const auto reads = static_cast<uint32_t>(1 + random() % 20);
    for (uint32_t i = 0; i < reads; ++i) {
      ASSERT_EQ(::read(pipe_ends[0], &acknowledged, sizeof(acknowledged)),
                ssize_t{sizeof(acknowledged)});
    }
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    while (::read(pipe_ends[0], &acknowledged, sizeof(acknowledged)) > 0) {
    }
    ::close(pipe_ends[0]);
    const auto found = *open()->chain("edge");
    ASSERT_TRUE(found.has_value());
    EXPECT_GE(found->revision, acknowledged);
    EXPECT_LE(found->revision, acknowledged + 1);
    acknowledged = found->revision;
  }
}

}  // namespace
}  // namespace flowkeep
