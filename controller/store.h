// Store: what the controller must not forget, in one SQLite file: chains and their revisions,
// nodes, events.
//
// A call that returned success is on the disk (WAL, synchronous=FULL): kill -9 or a power cut
// afterwards does not lose it. One controller at a time: the file beside it, PATH.lock, is locked
// while open. Revision numbers of a chain's name are never used twice, not even after it was
// deleted, so a node that was away cannot take one revision for another. Threads: every method may
// be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "flowkeep/v1/flowkeep.pb.h"
#include "state/result.h"

struct sqlite3;

namespace flowkeep {

struct StoredChain {
  std::string name;
  v1::ChainSpec spec;
  uint32_t revision = 0;
  double created_at_s = 0;
  double updated_at_s = 0;
};

struct StoredNode {
  v1::RegisterRequest registration;
  double registered_at_s = 0;
};

// A node's own number for an event, by which the store recognises one that it already has.
struct NodeEvent {
  uint64_t sequence = 0;
  v1::Event event;
};

class Store {
 public:
  static constexpr uint32_t kEventsKept = 10'000;
  static constexpr uint32_t kRevisionsKept = 100;  // of each name

  static Result<std::unique_ptr<Store>> open(const std::string& path);
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  Result<std::vector<StoredChain>> chains();
  Result<std::optional<StoredChain>> chain(const std::string& name);
  // The number for the chain's next revision: greater than all before it and than `at_least`.
  Result<uint32_t> next_revision(const std::string& name, uint32_t at_least);
  // Was there ever a chain of this name in this store?
  Result<bool> knows_chain_name(const std::string& name);
  // Sets the number aside before a node hears of it.
  Result<void> reserve_revision(const std::string& name, uint32_t revision, double now_s);
  // Makes the number free again: no node has run it.
  Result<void> release_revision(const std::string& name, uint32_t revision);
  Result<void> put_chain(const StoredChain& chain);
  Result<void> delete_chain(const std::string& name, double now_s);

  Result<std::vector<StoredNode>> nodes();
  Result<void> put_node(const StoredNode& node);

  // Appends; returns the sequence of the last event in the store.
  Result<uint64_t> add_event(const v1::Event& event);
  // The node's events that the store has not got yet, and how far its list was read.
  Result<uint64_t> add_node_events(const std::string& node, double node_started_at_s,
                                   const std::vector<NodeEvent>& events);
  // The greatest sequence read of this start of the node.
  Result<uint64_t> node_event_cursor(const std::string& node, double node_started_at_s);
  // Oldest first. after == 0: the newest `limit`. An empty chain name: of all chains.
  Result<std::vector<v1::Event>> events(uint64_t after, uint32_t limit, const std::string& chain);
  Result<uint64_t> last_event_sequence();

 private:
  class Statement;
  class Transaction;

  Store(std::string path, int lock_fd, sqlite3* database);
  Result<void> create_tables();
  Error failure(const std::string& doing) const;
  Result<void> insert_event(const v1::Event& event, std::optional<uint64_t> node_sequence);

  std::string path_;
  int lock_fd_;
  sqlite3* database_;
  std::mutex mutex_;
};

}  // namespace flowkeep
