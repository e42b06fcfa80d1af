// Worker processes: forking, assigning, replacing, and telling a hung one from a slow one.
#include <fcntl.h>
#include <linux/membarrier.h>
#include <rte_cycles.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "dataplane/supervisor/supervisor.h"
#include "dataplane/worker.h"
#include "dataplane/worker_end.h"

namespace flowkeep {
namespace {

int64_t cpu_time_ns(pid_t pid) {
  clockid_t clock{};
  timespec used{};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) != 0) return -1;
  return used.tv_sec * 1'000'000'000LL + used.tv_nsec;
}

// A child that an urgent process forks is urgent too.
void make_urgent(pid_t pid) {
  const sched_param urgent{.sched_priority = kUrgentPriority};
  if (pid > 0) sched_setscheduler(pid, SCHED_RR, &urgent);
}

void make_normal(pid_t pid) {
  const sched_param normal{};
  if (pid > 0) sched_setscheduler(pid, SCHED_OTHER, &normal);
}

// Of /proc/PID/stat (proc(5)): the state letter, 'T' is stopped, 'Z' and 'X' are dead; and the
// pending signals of its thread, among them a SIGKILL that it has not been scheduled to die of.
struct ProcessStat {
  char state = '?';
  uint64_t pending_signals = 0;
};

ProcessStat stat_of(pid_t pid) {
  constexpr int kPendingField = 31;
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  char text[1024] = {};
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  const ssize_t got = read(fd, text, sizeof(text) - 1);
  close(fd);
  const char* at = got > 0 ? std::strrchr(text, ')') : nullptr;
  if (at == nullptr || at[1] != ' ') return {};
  ProcessStat stat;
  stat.state = at[2];
  for (int field = 2; field < kPendingField && at != nullptr; ++field)
    at = std::strchr(at + 1, ' ');
  if (at != nullptr) stat.pending_signals = std::strtoull(at, nullptr, 10);
  return stat;
}

class RealProcess final : public ProcessView {
 public:
  explicit RealProcess(pid_t pid) : pid_(pid) {}
  int64_t cpu_ns() const override { return cpu_time_ns(pid_); }
  char state() const override { return stat_of(pid_).state; }

 private:
  pid_t pid_;
};

}  // namespace

// Asks the zygote for a worker; its pid arrives as kWorkerPid. -1: no room or the zygote is gone.
int Supervisor::fork_worker(ChainState& chain, const Zygote& zygote) {
  const auto free_entry =
      std::find_if(workers_.begin(), workers_.end(), [](const WorkerInfo& w) { return !w.used; });
  if (free_entry == workers_.end() || !zygote.built) return -1;
  const auto index = static_cast<uint32_t>(free_entry - workers_.begin());
  *free_entry =
      WorkerInfo{.used = true, .chain = chain.index, .revision = zygote.revision, .hang = {}};
  WorkerProcess& process = header_.processes[index];
  process.state.store(ProcessState::kStarting);
  process.pid.store(0);
  process.slot.store(-1);
  process.chain.store(chain.index);
  process.revision.store(zygote.revision);
  process.leave.store(0);
  process.stop_at.store(BurstStep::kNone);
  process.stopped_at.store(BurstStep::kNone);
  process.life.store(0);
  process.fatal_signal.store(0);
  const uint32_t birth = process.births.fetch_add(1) + 1;
  process.assigned.sleeping.store(0);
  ZygoteMessage request;
  request.kind = ZygoteMessage::kForkWorker;
  request.chain = chain.index;
  request.process = index;
  request.birth = birth;
  if (send_message(zygote.socket, request)) return static_cast<int>(index);
  process.state.store(ProcessState::kFree);
  free_entry->used = false;
  return -1;
}

// A worker that was asked for and will not come.
void Supervisor::forget_unborn(uint32_t index) {
  WorkerProcess& process = header_.processes[index];
  const int slot = process.slot.load();
  if (slot >= 0) header_.slots[slot].process.store(-1);
  process.state.store(ProcessState::kFree);
  workers_[index].used = false;
}

// Those that were asked of a zygote which is gone and of whom it did not tell. One that was born
// all the same has said so itself; one that says so later finds that its entry is another's.
void Supervisor::forget_unborn(const ChainState& chain, uint32_t revision) {
  for (uint32_t i = 0; i < kMaxProcesses; ++i) {
    const WorkerInfo& info = workers_[i];
    if (!info.used || info.chain != chain.index || info.revision != revision) continue;
    const bool watched = std::any_of(children_.begin(), children_.end(), [i](const Child& child) {
      return child.pid != 0 && child.role == Role::kWorker && child.process == i;
    });
    if (watched) continue;
    const pid_t pid = header_.processes[i].pid.load();
    if (pid > 0) {
      watch_child({Role::kWorker, pid, -1, i, chain.index});
    } else {
      forget_unborn(i);
    }
  }
}

void Supervisor::on_zygote_death(ChainState& chain, Zygote& zygote) {
  const uint32_t revision = zygote.revision;
  const bool is_new = &zygote == &chain.next_zygote && !chain.handing_over;
  epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, zygote.socket, nullptr);
  close(zygote.socket);
  const bool built = zygote.built;
  zygote = Zygote{};
  forget_unborn(chain, revision);
  if (chain.removing) return;
  if (is_new && !built) {
    ZygoteMessage refusal;
    std::snprintf(refusal.field, sizeof(refusal.field), "spec");
    std::snprintf(refusal.text, sizeof(refusal.text), "the zygote died while it built revision %u",
                  revision);
    return on_refused(chain, refusal);
  }
  if (&zygote == &chain.zygote && chain.next) return;  // the next revision's takes over
  rebuild_zygote_later(chain, "the zygote of revision " + std::to_string(revision) + " died");
}

void Supervisor::on_zygote_message(int socket) {
  ChainState* chain = nullptr;
  Zygote* zygote = nullptr;
  for (auto& [index, candidate] : chains_) {
    for (Zygote* one : {&candidate.zygote, &candidate.next_zygote}) {
      if (one->socket != socket) continue;
      chain = &candidate;
      zygote = one;
    }
  }
  if (zygote == nullptr) return;
  ZygoteMessage message;
  if (!receive_message(socket, message)) {
    if (errno == EAGAIN) return;  // told of a socket of the same number that is closed by now
    return on_zygote_death(*chain, *zygote);
  }
  switch (message.kind) {
    case ZygoteMessage::kBuilt:
      return on_built(*chain, message);
    case ZygoteMessage::kRefused:
      return on_refused(*chain, message);
    case ZygoteMessage::kWorkerPid:
      make_normal(zygote->pid);
      if (message.pid > 0) {
        header_.processes[message.process].pid.store(message.pid);
        watch_child({Role::kWorker, message.pid, -1, message.process, chain->index});
      } else {
        forget_unborn(message.process);
        fork_later(*chain, chain->zygote_loop.note_death(now_us()));
      }
      return fill_slots(*chain);
    default:
      return;
  }
}

// Told by the switch, of a worker that does not move.
void Supervisor::on_stall() {
  uint64_t told = 0;
  if (read(stall_fd_, &told, sizeof(told)) == sizeof(told)) on_deaths();
}

void Supervisor::on_deaths() {
  const uint32_t stalled = header_.switch_block.stalled.exchange(0);
  for (uint32_t i = 0; i < kMaxProcesses; ++i) {
    if (!workers_[i].used || workers_[i].failed_over) continue;
    const int slot = header_.processes[i].slot.load();
    if (slot < 0 || header_.slots[slot].process.load() != static_cast<int32_t>(i)) continue;
    if (has_ended(header_.processes[i])) {
      if (!must_know_cause(i, slot)) fail_over(i, death_of(i));
    } else if ((stalled >> slot & 1U) != 0 && is_dying(i)) {
      kill_for_good(i);
      fail_over(i, death_of(i));
    }
  }
}

// A worker that was killed while it waited for a processor cannot die before it gets one, which on
// a busy machine takes milliseconds.
bool Supervisor::is_dying(uint32_t index) const {
  const pid_t pid = header_.processes[index].pid.load();
  if (pid <= 0) return false;
  const ProcessStat stat = stat_of(pid);
  return stat.state == 'Z' || stat.state == 'X' || (stat.pending_signals >> (SIGKILL - 1) & 1) != 0;
}

// The worker of this entry runs no more user code: its slot goes to the next one. Its exit is still
// to be reaped (on_worker_death).
void Supervisor::fail_over(uint32_t index, const WorkerDeath& death) {
  const uint64_t detected_tsc = rte_rdtsc();
  WorkerInfo& info = workers_[index];
  const int slot = header_.processes[index].slot.load();
  pool_->persistence().process_ended(index);
  info.recovery = recover_slot(arena_, *pool_, static_cast<size_t>(slot));
  info.failed_over = true;
  info.failed_slot = slot;
  header_.slots[slot].process.store(-1);
  const auto found = chains_.find(info.chain);
  if (found == chains_.end()) return;
  ChainBlock& block = header_.chains[info.chain];
  if (header_.processes[index].state.load() != ProcessState::kLeft) {
    block.worker_deaths.fetch_add(1);
    block.failovers.fetch_add(1);
  }
  examine_death(found->second, static_cast<uint8_t>(slot), death, info.recovery);
  fill_slots(found->second);
  note_death(header_.processes[index].pid.load(), slot, info.chain, info.recovery, detected_tsc);
}

// A burst that is suspected of killing workers has ended another one: how it ended decides whether
// a packet is taken out. One that exits by itself says nothing before it is reaped.
bool Supervisor::must_know_cause(uint32_t index, int slot) const {
  return header_.slots[slot].burst_limit.load() != kBurst &&
         death_of(index).cause == DeathCause::kUnknown;
}

// As far as it is known: a worker that was killed with SIGKILL, or exits by itself, says nothing,
// and its exit status is known only when it is reaped. A drill's faults are nobody's own.
Supervisor::WorkerDeath Supervisor::death_of(uint32_t index) const {
  const WorkerProcess& process = header_.processes[index];
  WorkerDeath death{.worker = static_cast<uint64_t>(process.pid.load()),
                    .revision = workers_[index].revision,
                    .cause = DeathCause::kUnknown,
                    .how = ""};
  const auto signal = static_cast<int>(process.fatal_signal.load());
  if (process.state.load() == ProcessState::kLeft) {
    death.cause = DeathCause::kOutside;
  } else if (signal != 0) {
    death.how = signal_text(signal);
    const bool drilled = process.stop_at.load() != BurstStep::kNone;
    death.cause = drilled ? DeathCause::kOutside : DeathCause::kOwn;
  } else if (const std::optional<Ending>& ending = workers_[index].ending) {
    const bool own = ending->own_fault && process.stop_at.load() == BurstStep::kNone;
    death.cause = own ? DeathCause::kOwn : DeathCause::kOutside;
    death.how = ending->text;
  }
  return death;
}

void Supervisor::on_worker_death(const Child& child, const siginfo_t& info) {
  WorkerProcess& process = header_.processes[child.process];
  WorkerInfo& worker = workers_[child.process];
  const bool left = process.state.load() == ProcessState::kLeft;
  const bool known_late = worker.failed_over && !worker.accounted &&
                          death_of(child.process).cause == DeathCause::kUnknown;
  worker.ending = ending_of(info, left);
  // A worker that was ended here (hang, switch restart) has given its slot away before.
  const int slot = process.slot.load();
  if (slot >= 0 && header_.slots[slot].process.load() == static_cast<int32_t>(child.process))
    fail_over(child.process, death_of(child.process));
  if (!worker.failed_over && !worker.accounted) {
    pool_->persistence().process_ended(child.process);
    note_death(child.pid, -1, child.chain, {}, rte_rdtsc());
  }
  const WorkerDeath death = death_of(child.process);
  const bool own_fault = death.cause == DeathCause::kOwn && !worker.accounted;
  if (worker.failed_over && !worker.accounted)
    care_[static_cast<size_t>(worker.failed_slot)].search.note_cause(death.worker, death.cause);
  process.state.store(ProcessState::kFree);
  process.pid.store(0);
  process.slot.store(-1);
  const WorkerInfo ended = worker;
  worker.used = false;
  const auto found = chains_.find(child.chain);
  if (found == chains_.end()) return;
  ChainState& chain = found->second;
  if (!left && ended.failed_over && !ended.accounted) {
    event("failover", chain.name,
          "worker " + std::to_string(child.pid) + " in slot " + std::to_string(ended.failed_slot) +
              " ended with " + death.how + "; " +
              (ended.recovery.burst_undone      ? "its burst was given back"
               : ended.recovery.burst_completed ? "its committed burst was completed"
                                                : "it held no burst"));
  } else if (!left && slot < 0 && !chain.removing && !chain.handing_over &&
             ended.revision == chain.revision.revision()) {
    header_.chains[chain.index].worker_deaths.fetch_add(1);
    event("worker_died", chain.name,
          "standby worker " + std::to_string(child.pid) + " ended with " + death.how);
    if (own_fault) fork_later(chain, blame(chain, death));
  }
  if (own_fault && known_late) blame(chain, death);
  if (own_fault) consider_crashes(chain);
  if (chain.handing_over) continue_handover(chain);
  if (chain.removing) continue_removal(chain);
  fill_slots(chain);  // an entry is free again
  replenish(chain);
}

// A standby that is ready; one that is still starting if there is none; -1 if there is neither.
int Supervisor::find_standby(const ChainState& chain, uint32_t revision) const {
  int starting = -1;
  for (uint32_t i = 0; i < kMaxProcesses; ++i) {
    const WorkerProcess& process = header_.processes[i];
    if (!workers_[i].used || workers_[i].chain != chain.index || workers_[i].revision != revision)
      continue;
    if (process.slot.load() >= 0 || process.leave.load() != 0 || has_ended(process)) continue;
    if (process.state.load() == ProcessState::kStandby) return static_cast<int>(i);
    if (process.state.load() == ProcessState::kStarting) starting = static_cast<int>(i);
  }
  return starting;
}

void Supervisor::assign(uint32_t process_index, uint8_t slot) {
  WorkerProcess& process = header_.processes[process_index];
  header_.slots[slot].first_burst_tsc.store(0);
  header_.slots[slot].process.store(static_cast<int32_t>(process_index));
  workers_[process_index].assigned_tsc = rte_rdtsc();
  // Before the priority: a standby that lowers its own looks for its slot afterwards, and raises it
  // again if it has one.
  process.slot.store(slot, std::memory_order_release);
  const pid_t pid = process.pid.load();
  if (pid > 0) {
    make_urgent(pid);
  } else if (const auto chain = chains_.find(process.chain.load()); chain != chains_.end()) {
    const bool next = chain->second.next_zygote.revision == process.revision.load();
    make_urgent((next ? chain->second.next_zygote : chain->second.zygote).pid);
  }
  ring(process.assigned);
  takeovers_settled_ = false;
  set_tick(1);
}

// What a failover leaves for later: a worker that found no packets serves at normal priority from
// then on, and standbys are forked for those that were used up.
void Supervisor::settle_takeovers() {
  constexpr double kPatienceUs = 1000;
  if (takeovers_settled_) return;
  takeovers_settled_ = true;
  std::array<bool, kMaxChains> unsettled = {};
  for (uint32_t i = 0; i < kMaxProcesses; ++i) {
    WorkerInfo& info = workers_[i];
    const WorkerProcess& process = header_.processes[i];
    if (!info.used || info.assigned_tsc == 0) continue;
    const bool waited = arena_.tsc_to_us(rte_rdtsc() - info.assigned_tsc) > kPatienceUs;
    const bool serves = process.state.load() == ProcessState::kServing && process.pid.load() > 0;
    if (!serves || !waited) {
      takeovers_settled_ = false;
      unsettled[info.chain] = true;
      continue;
    }
    make_normal(process.pid.load());
    info.assigned_tsc = 0;
  }
  for (auto& [index, chain] : chains_) {
    const uint32_t revision =
        chain.handing_over ? chain.next->revision() : chain.revision.revision();
    // The next death may be near: one that has no standby left does not wait.
    if (!unsettled[index] || find_standby(chain, revision) < 0) replenish(chain);
  }
}

// Gives every vacant slot to a standby of the revision that shall run in it.
void Supervisor::fill_slots(ChainState& chain) {
  if (chain.removing) return;
  const uint32_t revision = chain.handing_over ? chain.next->revision() : chain.revision.revision();
  for (const uint8_t slot : chain.slots) {
    if (header_.slots[slot].process.load() >= 0 || held_back(slot)) continue;
    int standby = find_standby(chain, revision);
    if (standby < 0 && chain.fork_after_us == 0)
      standby = fork_worker(chain, chain.handing_over ? chain.next_zygote : chain.zygote);
    if (standby >= 0) assign(static_cast<uint32_t>(standby), slot);
  }
}

void Supervisor::replenish(ChainState& chain) {
  if (chain.removing || chain.fork_after_us != 0) return;
  const Zygote& zygote = chain.handing_over ? chain.next_zygote : chain.zygote;
  uint32_t standbys = 0;
  for (uint32_t i = 0; i < kMaxProcesses; ++i) {
    const WorkerProcess& process = header_.processes[i];
    const bool mine = workers_[i].used && workers_[i].chain == chain.index &&
                      workers_[i].revision == zygote.revision;
    if (mine && process.slot.load() < 0 && process.leave.load() == 0 && !has_ended(process))
      ++standbys;
  }
  for (; standbys < config_.standby; ++standbys) {
    if (fork_worker(chain, zygote) < 0) break;
  }
}

HangVerdict Supervisor::look_at(uint32_t index, WorkerInfo& info, std::string& why) {
  const WorkerProcess& process = header_.processes[index];
  const int slot = process.slot.load();
  const pid_t pid = process.pid.load();
  if (slot < 0 || pid == 0 || process.state.load() == ProcessState::kFree)
    return HangVerdict::kFine;
  // A worker that was ended keeps its number until it is reaped, but the slot is its successor's.
  if (header_.slots[slot].process.load() != static_cast<int32_t>(index)) return HangVerdict::kFine;
  const bool packets_wait = !rte_ring_empty(arena_.inbox(static_cast<size_t>(slot)));
  const HangVerdict verdict =
      info.hang.look(header_.slots[slot].bursts.load(), packets_wait, now_us(),
                     uint64_t{config_.hang_timeout_ms} * 1000, RealProcess(pid));
  if (verdict == HangVerdict::kLoops)
    why = "used " + std::to_string(info.hang.used_ns() / 1'000'000) +
          " ms of processor time without ending a burst";
  if (verdict == HangVerdict::kStopped) why = "is stopped (SIGSTOP) while packets wait";
  return verdict;
}

void Supervisor::look_for_hangs() {
  for (uint32_t i = 0; i < kMaxProcesses; ++i) {
    std::string why;
    if (!workers_[i].used) continue;
    const HangVerdict verdict = look_at(i, workers_[i], why);
    if (verdict == HangVerdict::kFine) continue;
    const bool drilled = header_.processes[i].stop_at.load() != BurstStep::kNone;
    const bool own_fault = verdict == HangVerdict::kLoops && !drilled;
    replace_worker(i, own_fault ? DeathCause::kOwn : DeathCause::kOutside, why);
  }
}

// The same damage is met again and again: an event for the first, and when it has doubled.
void Supervisor::look_for_damage() {
  for (const auto& [index, chain] : chains_) {
    for (const uint8_t slot : chain.slots) {
      const uint64_t damage = header_.slots[slot].damage.load(std::memory_order_relaxed);
      if (damage == 0 || damage < 2 * care_[slot].damage_told) continue;
      care_[slot].damage_told = damage;
      event("pool_damaged", chain.name,
            "slot " + std::to_string(slot) + " has met damage in the state pool " +
                std::to_string(damage) + " times; `flowkeep-pool check " + config_.pool_path +
                "` says what is wrong");
    }
  }
}

// Fails a worker over that has to be killed for it.
void Supervisor::replace_worker(uint32_t index, DeathCause cause, const std::string& why) {
  const int slot = header_.processes[index].slot.load();
  ChainState& chain = chains_.at(workers_[index].chain);
  const int pid = header_.processes[index].pid.load();
  kill_for_good(index);
  workers_[index].accounted = true;
  fail_over(index, {.worker = static_cast<uint64_t>(pid),
                    .revision = workers_[index].revision,
                    .cause = cause,
                    .how = "a hang"});
  event("worker_hung", chain.name,
        "worker " + std::to_string(pid) + " in slot " + std::to_string(slot) + " " + why +
            "; killed and replaced");
  if (cause == DeathCause::kOwn) consider_crashes(chain);
}

// A SIGKILL followed by an expedited membarrier: every processor has been through the kernel since
// the signal was sent, so the victim will not execute another user instruction, though its exit may
// take long.
//
// A worker that has not said its process id yet finds, when it has, that it is to leave: each side
// stores before it looks.
void Supervisor::kill_for_good(uint32_t index) {
  WorkerProcess& process = header_.processes[index];
  process.leave.store(1);  // never assigned again
  const pid_t pid = process.pid.load();
  if (pid > 0) kill(pid, SIGKILL);
  syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0);
  pool_->persistence().process_ended(index);
}

// The same, and its slot is vacant: the caller decides what becomes of it.
void Supervisor::end_worker(uint32_t index) {
  WorkerProcess& process = header_.processes[index];
  kill_for_good(index);
  workers_[index].accounted = true;
  const int slot = process.slot.load();
  if (slot >= 0 && header_.slots[slot].process.load() == static_cast<int32_t>(index))
    header_.slots[slot].process.store(-1);
  if (process.pid.load() == 0) process.slot.store(-1);
}

// Ends a revision's zygote and the workers that hold no slot.
void Supervisor::retire_revision(ChainState& chain, Zygote& zygote) {
  for (uint32_t i = 0; i < kMaxProcesses; ++i) {
    if (!workers_[i].used || workers_[i].chain != chain.index ||
        workers_[i].revision != zygote.revision)
      continue;
    if (header_.processes[i].slot.load() >= 0) continue;
    header_.processes[i].leave.store(1);
    ring(header_.processes[i].assigned);
  }
  if (zygote.socket >= 0) {
    epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, zygote.socket, nullptr);
    close(zygote.socket);
  }
  if (zygote.pid > 0) kill(zygote.pid, SIGKILL);
  forget_unborn(chain, zygote.revision);
  zygote = Zygote{};
}

}  // namespace flowkeep
