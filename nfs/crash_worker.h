// CrashWorker: one worker slot of a recorded run. Does what dataplane/worker.cc does around the
// chain, without rings: peek, run, commit, publish, apply, and sweeps between bursts. It may die at
// any flush or fence; the supervisor then recovers its log, and a successor goes on.
//
// Thread rule: a thread of its own, which runs while it has the turn (nfs/turns.h).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "nfs/chain_runtime.h"
#include "nfs/crash_packets.h"
#include "nfs/crash_run.h"
#include "nfs/turns.h"

namespace flowkeep {

// Thrown out of a flush or fence.
struct WorkerDied {};

// Records what happens, and lets others have a turn where several workers could run side by side.
// Not between a look at a word and the compare-and-swap that follows: the observer is told of it
// beforehand.
class InterleavedRecording : public PersistenceRecording {
 public:
  InterleavedRecording(const std::byte* base, Turns& turns, uint64_t seed)
      : PersistenceRecording(base), turns_(turns), random_(seed) {}

  void flushing(const void* address, size_t bytes) override;
  void fencing() override;
  // Who runs: gives the recording the right processor and the turns the right actor.
  void run_as(size_t actor, uint8_t processor);
  void give_turn();
  // From now on this actor may die: once in so many operations, 0: never.
  void may_die(uint64_t once_in) { once_in_[actor_] = once_in; }

 private:
  void between_operations();

  Turns& turns_;
  std::mt19937_64 random_;
  size_t actor_ = 0;
  uint8_t processor_ = 0;
  uint64_t once_in_[8] = {};
};

// What the workers and the switch of a run share.
// Numbers of actors and processors other than the workers'.
inline constexpr size_t kSwitchActor = 2;
inline constexpr uint8_t kSwitchProcessor = 30;
inline constexpr uint8_t kSupervisorProcessor = 31;

struct CrashScene {
  Pool& pool;
  CrashRun& run;
  InterleavedRecording& recording;
  uint32_t chain_index = 0;
  uint32_t burst_packets = 12;
  uint64_t operations_in_a_life = 150;
  uint32_t bursts_left = 0;
  uint32_t now_s = 0;
  struct Steering {
    uint32_t worker = 0;
    bool held = false;
  };
  Steering steering[CrashRun::kBuckets] = {};
  // Of each worker slot: between bursts, and what may be retired.
  struct Slot {
    bool in_burst = false;
    uint64_t done_sequence = 0;
  };
  Slot slots[2] = {};
  std::vector<std::vector<FlowRecord>> flows;  // of each bucket, after its last burst
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> known_leases;  // address index, block: bucket
};

// The flows of each bucket as they lie in the pool.
std::vector<std::vector<FlowRecord>> records_by_bucket(const Pool& pool, uint32_t chain_index);

class CrashWorker {
 public:
  CrashWorker(CrashScene& scene, uint32_t log, uint64_t seed);

  // Serves until the scene has no bursts left.
  void serve();
  // One burst of these packets; those for buckets of others are left out.
  void burst(const std::vector<CrashPacket>& arrivals);
  uint32_t bucket_of(const CrashPacket& packet) const;

 private:
  struct Queued {
    CrashPacket packet;
    Bytes original;
    PacketMeta meta;
  };

  void incarnate();
  void go_on_after_death();
  std::vector<CrashPacket> draw_packets();
  std::vector<FlowRecord> flows_of(uint32_t bucket) const;
  bool steer(const CrashPacket& packet, PacketMeta& meta) const;
  void run(std::vector<Queued>& queue);
  void sweep();
  void begin_burst();
  void commit_and_apply(const std::vector<Queued>& queue);
  void mark(BurstMark mark);
  void end_recorded_burst();
  void check_published(const std::vector<Queued>& queue);
  void note_leases();
  uint8_t processor() const;

  CrashScene& scene_;
  const uint32_t log_;
  std::mt19937_64 random_;
  uint32_t revision_ = 1;
  uint32_t incarnation_ = 0;
  uint64_t burst_ = 0;  // index in CrashRun::bursts
  bool in_burst_ = false;
  bool committed_ = false;  // commit() of this burst has returned
  uint64_t sequence_ = 0;   // of the last commit
  std::unique_ptr<Chain> chain_;
  std::unique_ptr<FlowTable> table_;
  std::unique_ptr<ChainRuntime> runtime_;
  std::unique_ptr<UndoLog> undo_;
};

}  // namespace flowkeep
