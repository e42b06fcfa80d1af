// CrashSimulator: replays a recorded run on a pool of its own and cuts the power in it, many times
// over. Each image that the cut can leave is recovered with the production code, Pool::open() and
// recover_all(), and shown to an oracle that knows the run. Some images are cut again while they
// are recovered.
//
// An image costs what differs from the run at that point, not a copy of the pool: the lost words
// are written into the pool's file, and everything that recovery stored is taken back afterwards.
//
// Deterministic: the recording, `seed`, step (index of an operation) and image (a number within the
// step) give the same image again.
//
// Thread rule: one thread. State: a file of the pool's size on tmpfs, removed with this object.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <unordered_set>
#include <vector>

#include "state/persistence_recording.h"
#include "state/pool.h"
#include "state/volatile_words.h"

namespace flowkeep {

// What the run knows of itself.
class CrashOracle {
 public:
  virtual ~CrashOracle() = default;
  // The replay has come to a mark of the recording.
  virtual void reached(uint64_t mark) = 0;
  // "" if the recovered pool explains everything that had left the node by now; otherwise what is
  // wrong with it.
  virtual std::string check(Pool& pool) = 0;
  // The same, asked after check(): can the run go on from here? Changes the pool.
  virtual std::string go_on(Pool& pool, uint64_t seed) = 0;
};

struct CrashSimulatorOptions {
  uint64_t seed = 1;
  uint32_t images_at_fences = 8;  // drawn just before each fence, when most is at stake
  uint32_t elsewhere_every = 1;   // operations from one image to the next elsewhere; 0: none
  uint32_t go_on_every = 16;      // images from one continuation of the run to the next
  uint32_t recut_every = 8;       // images from one cut of a recovery to the next
  uint32_t most_recuts = 2;       // of one image
  uint32_t open_every = 32;       // images from one Pool::open() to the next; it stores nothing
  uint64_t most_distinct = UINT64_MAX;  // ends the run
};

struct CrashViolation {
  uint64_t step = 0;
  uint64_t image = 0;
  std::string what;
};

struct CrashCounts {
  uint64_t steps = 0;     // operations replayed
  uint64_t drawn = 0;     // images drawn, equal ones included
  uint64_t distinct = 0;  // of those that were checked; words that nothing depends on not counted
  uint64_t recovery_cuts = 0;    // images of a recovery, among `distinct`
  uint64_t continued = 0;        // images from which the run went on
  uint64_t most_words_lost = 0;  // of one image
};

class CrashSimulator {
 public:
  // `start`: the pool's bytes before the first operation.
  CrashSimulator(const std::vector<std::byte>& start, const std::string& directory,
                 const CrashSimulatorOptions& options);
  ~CrashSimulator();
  CrashSimulator(const CrashSimulator&) = delete;
  CrashSimulator& operator=(const CrashSimulator&) = delete;

  // Ends at the first violation. Empty `what`: none.
  CrashViolation run(const std::vector<RecordedOperation>& recording, CrashOracle& oracle);
  // One image alone, to reproduce a violation.
  CrashViolation run_one(const std::vector<RecordedOperation>& recording, CrashOracle& oracle,
                         uint64_t step, uint64_t image);

  const CrashCounts& counts() const { return counts_; }

 private:
  struct UndoneStore {
    uint64_t at;
    uint64_t before;
  };
  class RecoveryObserver;

  void replay(const RecordedOperation& operation, CrashOracle& oracle);
  uint32_t images_at(const RecordedOperation& operation, uint64_t step) const;
  std::string try_images(CrashOracle& oracle, uint64_t step, uint32_t images, uint64_t& image);
  std::string try_image(CrashOracle& oracle, uint64_t step, uint64_t image);
  std::string recover_and_check(CrashOracle& oracle, std::mt19937_64& random, bool go_on,
                                uint64_t& operations);
  std::string cut_recovery(CrashOracle& oracle, std::mt19937_64& random, uint64_t operations);
  std::string open_pool();
  void lose(const std::vector<LostWord>& lost);
  bool is_new(uint64_t hash);
  void put(uint64_t at, uint64_t value);
  void note(uint64_t at, uint64_t value);
  void take_back(size_t until);
  uint64_t& word(uint64_t at) const;
  uint64_t hash_change(uint64_t at, uint64_t before, uint64_t after) const;

  const CrashSimulatorOptions options_;
  PoolOptions pool_options_;
  std::byte* base_ = nullptr;  // the pool as the processors of the run see it, between images
  Regions regions_;
  std::unique_ptr<Pool> pool_;  // the same file, as recovery sees it
  uint64_t opened_for_ = 0;     // images
  std::unique_ptr<VolatileWords> words_;
  std::vector<UndoneStore> undo_;  // of the image at hand, oldest first
  uint64_t run_hash_ = 0;          // of what the run has stored so far, but for soft words
  uint64_t image_hash_ = 0;        // of the image at hand
  uint64_t reached_ = 0;           // marks so far: what is allowed depends on them
  std::unordered_set<uint64_t> images_;
  std::unordered_set<uint64_t> checked_;  // images with the marks at which they were checked
  CrashCounts counts_;
};

}  // namespace flowkeep
