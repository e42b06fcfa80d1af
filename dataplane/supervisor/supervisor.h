// Supervisor: the first process of a node, parent of all others. Makes the arena, maps the pool,
// starts switch, zygotes, workers and agent, watches them by pidfd, and replaces what dies or
// hangs.
//
// Not a DPDK process, and one thread does its work, because it forks for its whole life; the death
// watch is a second one that only sleeps. Answers arrive through the event loop. The one thing that
// it waits for while workers serve is the root's fork of a zygote: a millisecond or so, and two
// seconds at most.
//
// Failover: worker dead (its life word says so: dataplane/worker_end.h; or it was killed here, for
// hanging or because it is dying but not scheduled, and a membarrier proved that it runs no more
// user code) -> recover_slot -> the slot is given to a warm standby. All that can wait, such as
// forking the next standby, waits until the standby has begun: the two may share a processor.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/arena.h"
#include "dataplane/dead_letter.h"
#include "dataplane/node_config.h"
#include "dataplane/supervisor.pb.h"
#include "dataplane/supervisor/crash_loop.h"
#include "dataplane/supervisor/death_watch.h"
#include "dataplane/supervisor/ending.h"
#include "dataplane/supervisor/hang.h"
#include "dataplane/supervisor/poison.h"
#include "dataplane/supervisor/revision_health.h"
#include "dataplane/worker.h"
#include "dataplane/zygote.h"
#include "state/emulated_medium.h"
#include "state/pool.h"

namespace flowkeep {

class Supervisor {
 public:
  static Result<std::unique_ptr<Supervisor>> start(const NodeConfig& config);
  ~Supervisor();
  // Until SIGTERM or SIGINT; ends every child and returns the node's exit status.
  int run();

 private:
  enum class Watch : uint32_t { kSignal, kTimer, kAgent, kChild, kZygote, kStall };
  enum class Role { kSwitch, kAgent, kRoot, kZygote, kWorker };

  struct Child {
    Role role{};
    pid_t pid = 0;
    int pidfd = -1;
    uint32_t process = 0;  // kWorker: index in the arena
    uint32_t chain = 0;    // kZygote, kWorker
  };

  struct Zygote {
    pid_t pid = 0;
    int socket = -1;
    uint32_t revision = 0;
    bool built = false;
  };

  // A worker process as its zygote and the arena know it.
  struct WorkerInfo {
    bool used = false;
    uint32_t chain = 0;
    uint32_t revision = 0;
    HangWatch hang;
    uint64_t assigned_tsc = 0;  // 0: serves at normal priority, or has no slot yet
    bool failed_over = false;   // its slot has been given on
    int failed_slot = -1;
    bool accounted = false;  // ended here: what follows from its death is done already
    SlotRecovery recovery{};
    std::optional<Ending> ending{};  // once it is reaped
  };

  struct WorkerDeath {
    uint64_t worker = 0;  // its process id
    uint32_t revision = 0;
    DeathCause cause = DeathCause::kUnknown;
    std::string how;  // "SIGSEGV"
  };

  // What the deaths of a slot's workers ask for.
  struct SlotCare {
    PoisonSearch search;
    uint64_t start_us = 0;  // its next worker waits until then; 0: does not wait
    uint64_t damage_told = 0;
  };

  struct ChainState {
    std::string name;
    uint32_t index = 0;
    node::v1::ChainRevision revision;             // running
    Zygote zygote;                                // of the running revision
    std::optional<node::v1::ChainRevision> next;  // being built or handed over
    Zygote next_zygote;
    bool handing_over = false;
    bool moving = false;  // buckets are on their way
    bool removing = false;
    std::vector<uint8_t> slots;
    std::vector<uint8_t> leaving_slots;  // to be vacated after a move
    std::optional<uint64_t> request;     // of the agent, answered when done
    double build_ms = 0;
    uint64_t handover_tsc = 0;
    // Deaths by their own fault (crashes.cc).
    CrashLoop loop;
    CrashLoop zygote_loop;
    RevisionHealth health;  // of the revision that runs or is being handed the slots
    bool in_crash_loop = false;
    std::string last_crash;
    uint64_t fork_after_us = 0;  // 0: at once
    uint64_t zygote_after_us = 0;
    bool previous_good = false;
    std::optional<node::v1::ChainRevision> last_good;  // to go back to
    std::string rollback_reason;                       // `next` is a rollback
    std::optional<node::internal::ChainHistory> restored;
  };

  Supervisor(const NodeConfig& config, Arena arena, std::unique_ptr<Pool> pool);

  // Children (supervisor.cc).
  Result<void> start_root();
  Result<void> start_switch();
  Result<void> start_agent();
  void watch_child(Child child);
  void watch(int fd, Watch what, uint32_t number);
  void on_child_exit(size_t index);
  void on_switch_death(const std::string& how);
  void forget_switch_requests();
  void on_timer();
  void set_tick(uint64_t milliseconds);
  void stop_all();
  int stop(bool failed);

  // Workers (workers.cc).
  int fork_worker(ChainState& chain, const Zygote& zygote);
  void on_zygote_message(int socket);
  void on_zygote_death(ChainState& chain, Zygote& zygote);
  void forget_unborn(uint32_t process);
  void forget_unborn(const ChainState& chain, uint32_t revision);
  void on_stall();
  void on_deaths();
  void fail_over(uint32_t process, const WorkerDeath& death);
  WorkerDeath death_of(uint32_t process) const;
  bool must_know_cause(uint32_t process, int slot) const;
  bool is_dying(uint32_t process) const;
  void settle_takeovers();
  void on_worker_death(const Child& child, const siginfo_t& info);
  void fill_slots(ChainState& chain);
  void replenish(ChainState& chain);
  int find_standby(const ChainState& chain, uint32_t revision) const;
  void assign(uint32_t process, uint8_t slot);
  void look_for_hangs();
  void look_for_damage();
  void replace_worker(uint32_t process, DeathCause cause, const std::string& why);
  HangVerdict look_at(uint32_t process, WorkerInfo& info, std::string& why);
  void kill_for_good(uint32_t process);  // SIGKILL and proof that it runs no more user code
  void end_worker(uint32_t process);
  void retire_revision(ChainState& chain, Zygote& zygote);

  // Deaths by their own fault (crashes.cc).
  static constexpr uint64_t kStartTickMs = 10;
  uint64_t now_us() const;  // since the node's start
  void examine_death(ChainState& chain, uint8_t slot, const WorkerDeath& death,
                     const struct SlotRecovery& recovery);
  uint64_t blame(ChainState& chain, const WorkerDeath& death);
  void take_out_packet(ChainState& chain, uint8_t slot, const WorkerDeath& death);
  void bury_dead_letters();
  bool held_back(uint8_t slot);
  void consider_crashes(ChainState& chain);
  void tend_crashes();
  bool starts_pending() const;
  void rebuild_zygote_later(ChainState& chain, const std::string& why);
  void rebuild_zygote(ChainState& chain);
  void fork_later(ChainState& chain, uint64_t wait_us);
  void begin_trial(ChainState& chain);
  void end_trial(ChainState& chain, const node::v1::ChainRevision& previous);
  void give_up(ChainState& chain, uint32_t revision, const std::string& reason);
  void remember(const ChainState& chain);

  // Chains (chains.cc).
  void on_agent_request();
  void handle(const node::internal::Request& request);
  void apply(uint64_t request, const node::v1::ChainRevision& revision);
  Result<void> begin_build(ChainState& chain, const node::v1::ChainRevision& revision);
  Result<void> prepare_new_chain(ChainState& chain, const node::v1::ChainRevision& revision);
  void on_built(ChainState& chain, const ZygoteMessage& message);
  void on_refused(ChainState& chain, const ZygoteMessage& message);
  Result<void> check_externals(const ChainState& chain, const ZygoteMessage& message) const;
  void begin_handover(ChainState& chain);
  void continue_handover(ChainState& chain);
  void end_those_that_stay(ChainState& chain);
  void finish_handover(ChainState& chain);
  Result<void> take_slots(ChainState& chain, uint32_t count);
  void place_buckets(ChainState& chain, size_t slot_count);
  void spread_buckets(ChainState& chain, size_t slot_count, uint8_t* owner) const;
  void remove(uint64_t request, const std::string& name);
  void continue_removal(ChainState& chain);
  void restore_chains();
  ChainState* find_chain(const std::string& name);

  // Commands to the switch: posted one after the other.
  struct SwitchRequest {
    SwitchCommand command{};
    uint32_t chain = 0;
    uint32_t slot = 0;
    std::vector<uint8_t> owner;
  };
  void tell_switch(SwitchRequest request);
  void pump_mailbox();
  bool mailbox_idle() const;

  // Drills (drills.cc).
  void hang_worker(uint64_t request, const node::internal::HangWorker& wanted);
  void note_death(pid_t victim, int slot, uint32_t chain, const struct SlotRecovery& recovery,
                  uint64_t detected_tsc);

  void reply(const node::internal::Reply& reply);
  void reply_error(uint64_t request, const Error& error);
  void tell_power_cut();
  void event(const char* kind, const std::string& chain, const std::string& message);

  const NodeConfig& config_;
  Arena arena_;
  ArenaHeader& header_;
  std::unique_ptr<Pool> pool_;
  std::unique_ptr<EmulatedMedium> medium_;  // null without power_cut_drills
  std::optional<ZygoteRoot> root_;
  int epoll_fd_ = -1;
  int signal_fd_ = -1;
  int timer_fd_ = -1;
  int wake_fd_ = -1;
  int stall_fd_ = -1;  // written by the switch when a worker stalls
  std::optional<DeathWatch> death_watch_;
  int agent_socket_ = -1;
  uint64_t tick_ms_ = 0;
  std::string agent_input_;
  std::vector<Child> children_;
  std::vector<WorkerInfo> workers_;
  std::array<SlotCare, kMaxWorkerSlots> care_;
  std::vector<DeadLetter> dead_letters_;  // taken out, not yet written
  DeadLetterOffice letter_office_;
  std::map<uint32_t, ChainState> chains_;  // by index in the arena
  std::deque<SwitchRequest> switch_queue_;
  bool takeovers_settled_ = true;
  bool stopping_ = false;
  bool failed_ = false;
  // Held by whoever does the supervisor's work: run(), but while it waits, or the death watch.
  std::mutex turn_;
};

}  // namespace flowkeep
