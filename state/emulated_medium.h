// EmulatedMedium: what the medium of an emulated pool would hold for certain if the power went,
// kept beside the pool while a node runs, so that a drill can make the loss real. Where pool and
// copy differ, the processors had seen something that no fence covers.
//
// The file `<pool>.medium`: a header, for each process the lines that it has flushed and not yet
// fenced, and a copy of the pool. A fence copies the lines that its process had flushed. A drill
// writes a seed into the header and kills the node; the next start finds the seed, puts a part of
// what differs back to what was certain, drawn with the seed, and only then recovers the pool.
//
// Slower: every store to the pool goes by the word, each flushed line is copied, and the pool takes
// its memory twice. Made by PoolOptions of drills, never by default.
//
// Thread rule: one object for each process of a node, forked from the supervisor's; used_by() says
// which it is. Nothing here allocates or calls the system after begin().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "state/persistence.h"
#include "state/pool.h"

namespace flowkeep {

// What a start did to the pool on a drill's order.
struct EmulatedCut {
  uint64_t seed = 0;
  uint64_t words_at_risk = 0;  // that differed
  uint64_t words_lost = 0;     // put back to what was certain
};

class EmulatedMedium : public PersistenceObserver {
 public:
  static constexpr uint32_t kMostProcesses = 64;

  static std::string path_of(const std::string& pool_path) { return pool_path + ".medium"; }
  // An error: the file cannot be had, or the pool's medium is not emulated. Carries out a cut that
  // was ordered. Before Pool::recover_all().
  static Result<std::unique_ptr<EmulatedMedium>> open(const std::string& pool_path, Pool& pool);
  ~EmulatedMedium() override;

  const std::optional<EmulatedCut>& cut() const { return cut_; }
  // From here on the pool as it is counts as certain, and is followed.
  void begin();

  // For the next start of the node. Any process; `seed` is not 0.
  static Result<void> order_cut(const std::string& pool_path, uint64_t seed);

  void storing(void*, const void*, size_t) override {}
  void flushing(const void* address, size_t bytes) override;
  void fencing() override { settle(process_); }
  void used_by(uint32_t process) override { process_ = process; }
  void process_ended(uint32_t process) override { settle(process); }

 private:
  struct Header;
  struct Flushed;

  explicit EmulatedMedium(Pool& pool) : pool_(pool) {}
  Header& header() const;
  Flushed& flushed(uint32_t process) const;
  std::byte* certain() const;
  void settle(uint32_t process);
  void make_certain(uint64_t line);
  void carry_out_cut(uint64_t seed);

  Pool& pool_;
  std::byte* mapped_ = nullptr;
  size_t mapped_bytes_ = 0;
  uint32_t process_ = 0;
  std::optional<EmulatedCut> cut_;
};

}  // namespace flowkeep
