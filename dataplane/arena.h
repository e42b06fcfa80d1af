// The packet arena: one shared mapping, made by the supervisor before it forks anything, that holds
// everything the processes of a node share besides the state pool: packets (the switch's mempool
// lives in it), each worker slot's rings and control block, and the tables through which
// supervisor, switch, workers and agent tell each other what is so.
//
// Lives in a memfd, in huge pages where possible, mapped at the same address in every process
// because all of them are forked from the supervisor. Nothing here is durable: it dies with the
// node.
//
// Who writes: each struct says so. A worker may be killed between any two stores; whatever it
// writes here is either one word or is protected by the burst commit (dataplane/worker.h).
#pragma once

#include <rte_ring.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "dataplane/burst_step.h"
#include "dataplane/chain_counters.h"
#include "dataplane/event_ring.h"
#include "dataplane/shared_text.h"
#include "dataplane/takeover_log.h"
#include "nfs/forward.h"
#include "nfs/packet.h"
#include "state/flow_table.h"
#include "state/pool.h"
#include "state/result.h"

namespace flowkeep {

inline constexpr size_t kMaxPorts = 8;
inline constexpr size_t kMaxProcesses =
    48;  // worker processes, standbys and those being replaced included
// Numbers, beyond the workers', of the other processes that write to the state pool.
inline constexpr uint32_t kSupervisorProcess = kMaxProcesses;
inline constexpr uint32_t kSwitchProcess = kMaxProcesses + 1;
inline constexpr uint32_t kRingPackets =
    32768;  // inbox and outbox of a slot; holds what arrives during a failover
inline constexpr size_t kBurst = 64;
inline constexpr size_t kEvents = 1024;

// Real-time priority (SCHED_RR) of the supervisor and of whom a slot waits for, so that a failover
// does not wait for a processor on a busy machine: of a standby from the moment that it is given a
// slot until it has ended its first burst, and of a zygote that forks one for a slot that is vacant
// already.
inline constexpr int kUrgentPriority = 2;

// A word that a process sleeps on and others ring. Works across processes.
struct Doorbell {
  std::atomic<uint32_t> rings{0};
  std::atomic<uint32_t> sleeping{0};
};

// One worker process. Written by the supervisor, but for `state` and what is said to be the
// worker's.
enum class ProcessState : uint32_t { kFree, kStarting, kStandby, kServing, kLeft };
struct alignas(64) WorkerProcess {
  std::atomic<ProcessState> state{ProcessState::kFree};  // worker: kStandby, kServing, kLeft
  std::atomic<int32_t> pid{0};                           // also said by the worker itself
  std::atomic<int32_t> slot{-1};                         // supervisor assigns; -1: standby
  std::atomic<uint32_t> chain{0};
  std::atomic<uint32_t> revision{0};
  std::atomic<uint32_t> leave{0};  // asked to finish its burst and exit
  // A drill: loop for ever at this step of the next burst (or sweep), and say so.
  std::atomic<BurstStep> stop_at{BurstStep::kNone};
  std::atomic<BurstStep> stopped_at{BurstStep::kNone};  // worker
  Doorbell assigned;                                    // a standby sleeps on this
  // How many workers were asked for under this entry: one that comes when it is another's leaves.
  std::atomic<uint32_t> births{0};
  // Worker and kernel (dataplane/worker_end.h): its thread id while it lives, FUTEX_OWNER_DIED once
  // it runs no more user code; 0: not announced.
  std::atomic<uint32_t> life{0};
  std::atomic<uint32_t> fatal_signal{0};  // worker: what it exits of; 0: none
};

// One worker slot: a lane of buckets with its rings, control block and redo log (of the same
// number). A worker process occupies it; when the process is replaced (failover, new revision), the
// next one goes on exactly where the slot stands.
struct alignas(64) WorkerSlot {
  // Supervisor.
  std::atomic<int32_t> process{-1};  // index of the occupying WorkerProcess, -1: vacant
  std::atomic<uint32_t> chain{0};
  std::atomic<uint32_t> in_use{0};
  // One packet at a time up to here (an inbox position): one of them may have killed a worker.
  std::atomic<uint32_t> careful_until{0};
  uint32_t pad0[12];
  // Worker, each burst.
  alignas(64) std::atomic<uint64_t> committed{
      0};  // BurstPositions after the last committed burst, packed
  std::atomic<uint64_t> done_sequence{
      0};  // redo records up to this one are applied to the home records
  std::atomic<uint64_t> bursts{0};
  std::atomic<uint64_t> packets{0};
  std::atomic<uint64_t> commits{0};
  std::atomic<uint64_t> opened_flows{0};
  std::atomic<uint64_t> first_burst_tsc{0};  // first burst since adoption, for drills; 0: none yet
  std::atomic<uint64_t> damage{0};           // FlowTable::damage(), over all workers of the slot
  std::atomic<uint32_t> sweeping{0};  // 1 while it looks for expired flows of buckets that it owns
  // Packets of a burst at most. The supervisor sets 1 while nobody occupies the slot; the worker
  // goes back to kBurst when it has passed careful_until.
  std::atomic<uint32_t> burst_limit{kBurst};
  // Worker sleeps on it, switch rings it.
  alignas(64) Doorbell doorbell;
  // Packets' first bytes before the running burst changed them.
  alignas(64) UndoLog undo;
  // What functions tell the users: worker, read by the agent.
  EventRing events;
};

// A chain as the switch sees it. Written by the supervisor while inactive, then counters by the
// switch.
enum class SteerBy : uint32_t { kEndpoint, kHost };
struct Steering {
  std::atomic<uint8_t> slot{0};
  std::atomic<uint8_t> held{0};  // being handed over: packets wait in the hold queue
};
struct alignas(64) ChainBlock {
  std::atomic<uint32_t> active{0};
  std::atomic<uint32_t> revision{0};
  char name[64] = {};
  uint8_t inside_port = 0;
  uint8_t outside_port = 0;
  uint16_t pool_index = 0;  // ChainAttachment::index
  uint32_t buckets = 0;
  SteerBy steer_by = SteerBy::kEndpoint;
  uint32_t external_count =
      0;  // translated chains: packets from the outside are steered by port lease
  Be32 external[kMaxExternalAddresses] = {};
  std::atomic<uint32_t> passes_untranslated{0};  // to inside hosts' own addresses
  std::atomic<uint32_t> forward_count{0};        // 0 while they change
  Forward forwards[kMostForwards] = {};
  std::atomic<uint32_t> slot_count{0};
  std::atomic<uint32_t> worker_deaths{0};
  std::atomic<uint32_t> failovers{0};
  std::atomic<uint32_t> given_up_revision{0};  // 0: none; set after its reason
  SharedText<192> given_up_reason;
  SharedText<192> trouble;  // why the chain is degraded; empty: it is not, by what workers do
  Steering steering[kMaxBuckets];
  // Switch.
  // Packets given to workers and taken back from them: what is in neither count nor in a ring is
  // lost, or doubled. Equal when the rings are empty.
  alignas(64) std::atomic<uint64_t> steered{0};
  std::atomic<uint64_t> returned{0};
  std::atomic<uint64_t> forwarded_packets{0};
  std::atomic<uint64_t> forwarded_bytes{0};
  std::atomic<uint64_t> drops[kDropReasons] = {};
};

struct alignas(64) PortBlock {
  char name[32] = {};
  uint8_t mac[6] = {};
  std::atomic<uint8_t> link_up{0};
  std::atomic<uint64_t> rx_packets{0}, rx_bytes{0}, tx_packets{0}, tx_bytes{0};
  std::atomic<uint64_t> drops[kDropReasons] = {};  // of packets that no chain counts
};

// Supervisor to switch, one command at a time.
enum class SwitchCommand : uint32_t {
  kNone,
  kActivate,
  kDeactivate,
  kMoveBuckets,
  kDiscardSlot,
  kStop
};
struct alignas(64) SwitchMailbox {
  std::atomic<uint32_t> posted{0};    // sequence number of the last command
  std::atomic<uint32_t> answered{0};  // of the last one carried out
  SwitchCommand command = SwitchCommand::kNone;
  uint32_t chain = 0;
  uint32_t slot = 0;
  uint8_t owner[kMaxBuckets] = {};  // kMoveBuckets: the slot that shall own each bucket
};

struct alignas(64) SwitchBlock {
  std::atomic<uint32_t> ready{0};  // ports are up, loop runs
  std::atomic<uint32_t> sleeping{0};
  // Bit for each slot whose worker has not moved for a while though packets wait. Set by the
  // switch, cleared by the supervisor.
  std::atomic<uint32_t> stalled{0};
  std::atomic<uint64_t> packets_free{0};  // mbufs, as of the last housekeeping
  std::atomic<uint64_t> first_forward_unix_us{0};
  std::atomic<uint64_t> loops{0};
  char error[512] = {};  // why it could not start
};

struct EventEntry {
  std::atomic<uint64_t> sequence{0};  // 0 while being written
  double at_s = 0;
  char kind[32] = {};
  char chain[64] = {};
  char message[384] = {};
};

struct ArenaHeader {
  uint64_t bytes = 0;
  // Region of the switch's mempools: frames, and behind them reassembled datagrams.
  uint64_t packet_offset = 0;
  uint64_t packet_bytes = 0;
  uint64_t datagram_offset = 0;
  uint64_t page_bytes = 0;
  uint64_t tsc_hz = 0;
  uint64_t tsc_base = 0;  // at unix_base_ns
  uint64_t unix_base_ns = 0;
  double started_at_s = 0;
  uint64_t power_cut_seed = 0;  // of the drill that this start carried out; 0: none
  uint64_t power_cut_words_at_risk = 0;
  uint64_t power_cut_words_lost = 0;
  std::atomic<uint32_t> supervisor_pid{0}, switch_pid{0}, agent_pid{0};
  std::atomic<uint32_t> switch_restarts{0};
  std::atomic<uint64_t> last_event{0};
  std::atomic<uint32_t> lives_changed{0};  // futex: a worker has announced its life word
  SwitchMailbox mailbox;
  SwitchBlock switch_block;
  PortBlock ports[kMaxPorts];
  ChainBlock chains[kMaxChains];
  ChainCounters counters[kMaxChains];
  WorkerProcess processes[kMaxProcesses];
  WorkerSlot slots[kMaxWorkerSlots];
  EventEntry events[kEvents];
  TakeoverLog takeovers;
};

enum class Hugepages { kAuto, kAlways, kNever };

struct PacketRoom {  // for packets of one size
  uint32_t count = 0;
  uint32_t bytes = 0;  // of each, with all that belongs to it
};

class Arena {
 public:
  // Error: the memory cannot be had (names what was asked and what the machine has).
  static Result<Arena> create(PacketRoom frames, PacketRoom datagrams, Hugepages hugepages);

  ArenaHeader& header() const { return *header_; }
  rte_ring* inbox(size_t slot) const { return ring(slot, 0); }
  rte_ring* outbox(size_t slot) const { return ring(slot, 1); }
  // Empties both rings and the control block of a slot that nobody occupies.
  void reset_slot(size_t slot) const;
  bool huge() const { return header_->page_bytes > 4096; }
  std::byte* base() const { return reinterpret_cast<std::byte*>(header_); }
  int fd() const { return fd_; }

  // Seconds of Unix time, from the time stamp counter: no system call.
  uint32_t now_s() const;
  double now_unix_s() const;
  double tsc_to_us(uint64_t cycles) const {
    return static_cast<double>(cycles) * 1e6 / static_cast<double>(header_->tsc_hz);
  }

 private:
  rte_ring* ring(size_t slot, size_t which) const;
  ArenaHeader* header_ = nullptr;
  int fd_ = -1;
};

inline uint64_t pack(BurstPositions positions) {
  return static_cast<uint64_t>(positions.outbox) << 32 | positions.inbox;
}
inline BurstPositions unpack(uint64_t word) {
  return {static_cast<uint32_t>(word), static_cast<uint32_t>(word >> 32)};
}

// Event log, written by the supervisor only, read by the agent.
void record_event(const Arena& arena, std::string_view kind, std::string_view chain,
                  std::string_view message);

// Doorbells. ring() makes a system call only when somebody sleeps. sleep_on() returns when rung,
// after `timeout_ms`, or at once if `ready` (checked after announcing the sleep) says there is
// work.
void ring(Doorbell& bell);
template <typename Ready>
void sleep_on(Doorbell& bell, uint32_t timeout_ms, Ready&& ready);
void futex_wait(std::atomic<uint32_t>& word, uint32_t seen, uint32_t timeout_ms);
void futex_wake(std::atomic<uint32_t>& word);

template <typename Ready>
void sleep_on(Doorbell& bell, uint32_t timeout_ms, Ready&& ready) {
  const uint32_t seen = bell.rings.load(std::memory_order_acquire);
  bell.sleeping.exchange(1, std::memory_order_seq_cst);  // a full fence: announce, then look
  if (!ready()) futex_wait(bell.rings, seen, timeout_ms);
  bell.sleeping.store(0, std::memory_order_release);
}

// Increments a counter that only this thread writes.
inline void bump(std::atomic<uint64_t>& counter, uint64_t by = 1) {
  counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

}  // namespace flowkeep
