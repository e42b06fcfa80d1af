#include "dataplane/supervisor/supervisor.h"

#include <rte_cycles.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "dataplane/agent.h"
#include "dataplane/chain_revision.h"
#include "dataplane/switch/packet_pools.h"
#include "dataplane/switch/switch.h"
#include "dataplane/worker.h"

namespace flowkeep {
namespace {

constexpr uint64_t kIdleTickMs = 250;
constexpr uint32_t kSwitchStartMs = 30'000;

std::vector<std::string> port_names(const NodeConfig& config) {
  std::vector<std::string> names;
  for (const PortConfig& port : config.ports) names.push_back(port.name);
  return names;
}

// Woken at once even when both processors are busy polling. Not inherited by the processes it
// forks.
void prefer_supervisor() {
  sched_param parameters{};
  parameters.sched_priority = kUrgentPriority;
  if (sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &parameters) != 0)
    setpriority(PRIO_PROCESS, 0, -10);
}

std::string run_directory() {
  return "/var/run/dpdk/flowkeep-" + std::to_string(getpid());
}

// The processes of a node that was killed die with it, but each in its own time; until the last of
// them is gone the pool is locked. A lock that stays is another node's.
Result<std::unique_ptr<Pool>> open_pool(const PoolOptions& options) {
  constexpr int kTries = 100;
  for (int tries = 1;; ++tries) {
    Result<std::unique_ptr<Pool>> pool = Pool::open(options);
    const bool locked =
        !pool && pool.error().message.find("is locked by another") != std::string::npos;
    if (!locked || tries == kTries) return pool;
    usleep(20'000);
  }
}

}  // namespace

Result<std::unique_ptr<Supervisor>> Supervisor::start(const NodeConfig& config) {
  Result<std::unique_ptr<Pool>> pool = open_pool({.path = config.pool_path,
                                                  .bytes = config.pool_bytes,
                                                  .emulate_pmem = config.emulate_pmem,
                                                  .delay = config.pool_delay});
  if (!pool) return pool.error();
  static_assert(kSwitchProcess < EmulatedMedium::kMostProcesses);
  std::unique_ptr<EmulatedMedium> medium;
  if (config.power_cut_drills) {
    auto opened = EmulatedMedium::open(config.pool_path, **pool);
    if (!opened) return opened.error();
    medium = std::move(*opened);
  }
  const RecoveryReport recovery = (*pool)->recover_all();
  if (recovery.refused) return *recovery.refused;
  if (medium) medium->begin();
  std::printf(
      "flowkeep-node %s: pool %s, %llu MiB on %s (%s): survives %s; %s, %u bursts completed\n",
      config.name.c_str(), config.pool_path.c_str(),
      static_cast<unsigned long long>((*pool)->bytes() >> 20),
      std::string(medium_name((*pool)->medium())).c_str(), (*pool)->flush_text().c_str(),
      std::string(medium_survives((*pool)->medium())).c_str(),
      (*pool)->was_formatted() ? "new" : "attached with its flows", recovery.redo_records_applied);
  Result<Arena> arena =
      Arena::create({config.packet_count, frame_footprint_bytes()},
                    {config.datagram_count, datagram_footprint_bytes()}, config.hugepages);
  if (!arena) return arena.error();
  std::printf("flowkeep-node %s: %u packets, %llu MiB in %s\n", config.name.c_str(),
              config.packet_count, static_cast<unsigned long long>(arena->header().bytes >> 20),
              arena->huge() ? "huge pages" : "4 KiB pages");
  std::fflush(stdout);

  std::unique_ptr<Supervisor> supervisor(new Supervisor(config, *arena, std::move(*pool)));
  supervisor->medium_ = std::move(medium);
  supervisor->pool_->persistence().used_by(kSupervisorProcess);
  if (Result<void> up = supervisor->start_root(); !up) return up.error();
  const std::lock_guard<std::mutex> turn(supervisor->turn_);
  supervisor->death_watch_.emplace(supervisor->header_, [self = supervisor.get()] {
    const std::lock_guard<std::mutex> turn(self->turn_);
    if (!self->stopping_) self->on_deaths();
  });
  if (Result<void> up = supervisor->start_switch(); !up) {
    supervisor->stop_all();
    return up.error();
  }
  if (Result<void> up = supervisor->start_agent(); !up) {
    supervisor->stop_all();
    return up.error();
  }
  supervisor->event("node_started", "", config.name);
  supervisor->tell_power_cut();
  supervisor->restore_chains();
  std::printf("flowkeep-node %s: ready, %zu ports, agent at %s\n", config.name.c_str(),
              config.ports.size(), config.agent_listen.c_str());
  std::fflush(stdout);
  return supervisor;
}

Supervisor::Supervisor(const NodeConfig& config, Arena arena, std::unique_ptr<Pool> pool)
    : config_(config),
      arena_(arena),
      header_(arena_.header()),
      pool_(std::move(pool)),
      workers_(kMaxProcesses),
      letter_office_(config.dead_letter_directory,
                     static_cast<uint64_t>(config.dead_letter_limit_mib) << 20,
                     port_names(config)) {
  header_.supervisor_pid.store(static_cast<uint32_t>(getpid()));
  prefer_supervisor();
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, number);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  signal_fd_ = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  timer_fd_ = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  stall_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  watch(stall_fd_, Watch::kStall, 0);
  watch(signal_fd_, Watch::kSignal, 0);
  watch(timer_fd_, Watch::kTimer, 0);
  set_tick(kIdleTickMs);
}

Supervisor::~Supervisor() {
  death_watch_.reset();
  for (const int fd : {epoll_fd_, signal_fd_, timer_fd_, wake_fd_, stall_fd_, agent_socket_}) {
    if (fd >= 0) close(fd);
  }
}

void Supervisor::watch(int fd, Watch what, uint32_t number) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = static_cast<uint64_t>(what) << 32 | number;
  epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event);
}

void Supervisor::watch_child(Child child) {
  child.pidfd = static_cast<int>(syscall(SYS_pidfd_open, child.pid, 0));
  auto place =
      std::find_if(children_.begin(), children_.end(), [](const Child& c) { return c.pid == 0; });
  if (place == children_.end()) place = children_.insert(children_.end(), Child{});
  *place = child;
  watch(child.pidfd, Watch::kChild, static_cast<uint32_t>(place - children_.begin()));
}

Result<void> Supervisor::start_root() {
  Result<ZygoteRoot> root = ZygoteRoot::start(arena_, *pool_);
  if (!root) return root.error();
  root_ = *root;
  watch_child({Role::kRoot, root->pid()});
  return {};
}

Result<void> Supervisor::start_switch() {
  header_.switch_block.ready.store(0);
  header_.switch_block.error[0] = '\0';
  header_.mailbox.answered.store(header_.mailbox.posted.load());
  const pid_t pid = fork();
  if (pid < 0) return internal_error("switch", std::string("fork: ") + std::strerror(errno));
  if (pid == 0) {
    become("flowkeep-switch", static_cast<pid_t>(header_.supervisor_pid.load()));
    pool_->persistence().used_by(kSwitchProcess);
    const int status = switch_main(config_, arena_, *pool_, {wake_fd_, stall_fd_});
    std::fflush(nullptr);
    _exit(status);
  }
  header_.switch_pid.store(static_cast<uint32_t>(pid));
  for (uint32_t waited_ms = 0; header_.switch_block.ready.load() == 0 && waited_ms < kSwitchStartMs;
       ++waited_ms) {
    siginfo_t info{};
    if (waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        info.si_pid == pid)
      break;
    usleep(1000);
  }
  watch_child({Role::kSwitch, pid});
  if (header_.switch_block.ready.load() == 1) return {};
  const std::string error = header_.switch_block.error;
  return unavailable("switch", error.empty() ? "did not start" : error);
}

Result<void> Supervisor::start_agent() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return internal_error("agent", std::string("socketpair: ") + std::strerror(errno));
  }
  const pid_t pid = fork();
  if (pid < 0) return internal_error("agent", std::string("fork: ") + std::strerror(errno));
  if (pid == 0) {
    close(ends[0]);
    become("flowkeep-agent", static_cast<pid_t>(header_.supervisor_pid.load()));
    agent_main(config_, arena_, *pool_, ends[1]);
  }
  close(ends[1]);
  agent_socket_ = ends[0];
  agent_input_.clear();
  header_.agent_pid.store(static_cast<uint32_t>(pid));
  watch_child({Role::kAgent, pid});
  watch(agent_socket_, Watch::kAgent, 0);
  return {};
}

int Supervisor::run() {
  std::unique_lock<std::mutex> turn(turn_);
  while (!stopping_) {
    epoll_event events[16];
    turn.unlock();
    const int ready = std::max(epoll_wait(epoll_fd_, events, 16, -1), 0);  // interrupted: none
    turn.lock();
    // First: a failover waits for nothing else.
    const auto is_stall = [](const epoll_event& event) {
      return static_cast<Watch>(event.data.u64 >> 32) == Watch::kStall;
    };
    if (std::any_of(events, events + ready, is_stall)) on_stall();
    for (int i = 0; i < ready; ++i) {
      if (static_cast<Watch>(events[i].data.u64 >> 32) == Watch::kChild) {
        on_child_exit(static_cast<uint32_t>(events[i].data.u64));
      }
    }
    for (int i = 0; i < ready; ++i) {
      const auto number = static_cast<uint32_t>(events[i].data.u64);
      switch (static_cast<Watch>(events[i].data.u64 >> 32)) {
        case Watch::kSignal:
          stopping_ = true;
          break;
        case Watch::kTimer:
          on_timer();
          break;
        case Watch::kAgent:
          on_agent_request();
          break;
        case Watch::kZygote:
          on_zygote_message(static_cast<int>(number));
          break;
        case Watch::kChild:
        case Watch::kStall:
          break;
      }
    }
    pump_mailbox();
    bury_dead_letters();
  }
  return stop(failed_);
}

void Supervisor::on_child_exit(size_t index) {
  const Child child = children_[index];
  if (child.pid == 0) return;
  siginfo_t info{};
  if (waitid(P_PID, static_cast<id_t>(child.pid), &info, WEXITED | WNOHANG) != 0 ||
      info.si_pid != child.pid)
    return;
  epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, child.pidfd, nullptr);
  close(child.pidfd);
  children_[index] = Child{};
  const std::string how = ending_of(info, false).text;
  if (stopping_) return;
  switch (child.role) {
    case Role::kWorker:
      on_worker_death(child, info);
      break;
    case Role::kSwitch:
      on_switch_death(how);
      break;
    case Role::kAgent:
      epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, agent_socket_, nullptr);
      close(agent_socket_);
      agent_socket_ = -1;
      event("agent_restarted", "", "the agent ended with " + how);
      if (info.si_code == CLD_EXITED && info.si_status == kAgentCannotListen) {
        failed_ = stopping_ = true;
      } else if (Result<void> again = start_agent(); !again) {
        event("agent_lost", "", again.error().text());
      }
      break;
    case Role::kRoot:
      root_->close_socket();
      root_.reset();
      if (const Result<void> again = start_root(); again) {
        event("zygote_root_restarted", "", "the zygote root ended with " + how);
      } else {
        event("zygote_root_lost", "", again.error().text() + "; tried again for the next revision");
      }
      break;
    case Role::kZygote:
      break;  // its socket says so too: on_zygote_message
  }
}

// Packets in flight are lost, state is not: every slot's last committed burst is completed, the
// arena is emptied, and switch and workers start again on it.
void Supervisor::on_switch_death(const std::string& how) {
  pool_->persistence().process_ended(kSwitchProcess);
  event("switch_restarted", "", "the switch ended with " + how);
  header_.switch_restarts.fetch_add(1);
  for (auto& [index, chain] : chains_) {
    ChainBlock& block = header_.chains[index];
    block.returned.store(block.steered.load());  // what is in the rings goes with the switch
    for (const uint8_t slot : chain.slots) {
      const int process = header_.slots[slot].process.load();
      if (process >= 0) end_worker(static_cast<uint32_t>(process));
      recover_slot(arena_, *pool_, slot);
      RedoLog(*pool_, slot).retire(header_.slots[slot].done_sequence.load());
      arena_.reset_slot(slot);
      care_[slot] = SlotCare();
    }
    // A move that the switch had begun is done at once: there is nothing left to hold.
    if (chain.moving) place_buckets(chain, header_.chains[index].slot_count.load());
  }
  forget_switch_requests();
  if (Result<void> again = start_switch(); !again) {
    event("switch_lost", "", again.error().text());
    std::fprintf(stderr, "flowkeep-node: %s\n", again.error().text().c_str());
    failed_ = stopping_ = true;
    return;
  }
  for (auto& [index, chain] : chains_) {
    if (header_.chains[index].active.load() == 0) continue;
    tell_switch({.command = SwitchCommand::kActivate, .chain = index, .slot = 0, .owner = {}});
    fill_slots(chain);
  }
}

// Of what the dead switch was still to do, only the slots that it was to let go of matter.
void Supervisor::forget_switch_requests() {
  const SwitchMailbox& mailbox = header_.mailbox;
  const bool unanswered = mailbox.answered.load() != mailbox.posted.load();
  if (unanswered && mailbox.command == SwitchCommand::kDiscardSlot)
    header_.slots[mailbox.slot].in_use.store(0);
  for (const SwitchRequest& request : switch_queue_) {
    if (request.command == SwitchCommand::kDiscardSlot) header_.slots[request.slot].in_use.store(0);
  }
  switch_queue_.clear();
}

void Supervisor::on_timer() {
  uint64_t expirations = 0;
  if (read(timer_fd_, &expirations, sizeof(expirations)) < 0) return;
  settle_takeovers();
  look_for_hangs();
  look_for_damage();
  tend_crashes();
  for (auto& [index, chain] : chains_) {
    if (chain.handing_over) continue_handover(chain);
    if (chain.removing) continue_removal(chain);
  }
  std::erase_if(chains_, [](const auto& entry) {
    return entry.second.removing && entry.second.slots.empty() && entry.second.name.empty();
  });
  const bool urgent = !takeovers_settled_ || !mailbox_idle() ||
                      std::any_of(chains_.begin(), chains_.end(), [](const auto& entry) {
                        return entry.second.handing_over || entry.second.removing;
                      });
  bool busy = starts_pending();
  for (const auto& [index, chain] : chains_) {
    for (const uint8_t slot : chain.slots) busy |= !rte_ring_empty(arena_.inbox(slot));
  }
  set_tick(urgent ? 1 : busy ? 10 : kIdleTickMs);
}

void Supervisor::set_tick(uint64_t milliseconds) {
  if (tick_ms_ == milliseconds) return;
  tick_ms_ = milliseconds;
  itimerspec timer{};
  timer.it_interval.tv_sec = static_cast<time_t>(milliseconds / 1000);
  timer.it_interval.tv_nsec = static_cast<long>(milliseconds % 1000) * 1'000'000L;
  timer.it_value = timer.it_interval;
  timerfd_settime(timer_fd_, 0, &timer, nullptr);
}

bool Supervisor::mailbox_idle() const {
  return switch_queue_.empty() && header_.mailbox.answered.load() == header_.mailbox.posted.load();
}

void Supervisor::tell_switch(SwitchRequest request) {
  switch_queue_.push_back(std::move(request));
  pump_mailbox();
}

void Supervisor::pump_mailbox() {
  SwitchMailbox& mailbox = header_.mailbox;
  if (switch_queue_.empty() || mailbox.answered.load() != mailbox.posted.load()) return;
  const SwitchRequest request = std::move(switch_queue_.front());
  switch_queue_.pop_front();
  mailbox.command = request.command;
  mailbox.chain = request.chain;
  mailbox.slot = request.slot;
  std::copy(request.owner.begin(), request.owner.end(), mailbox.owner);
  mailbox.posted.store(mailbox.posted.load() + 1, std::memory_order_release);
  const uint64_t one = 1;
  if (write(wake_fd_, &one, sizeof(one)) < 0) return;
  set_tick(1);
}

int Supervisor::stop(bool failed) {
  switch_queue_.clear();
  tell_switch({.command = SwitchCommand::kStop, .chain = 0, .slot = 0, .owner = {}});
  const pid_t pid = static_cast<pid_t>(header_.switch_pid.load());
  for (int waited_ms = 0; waited_ms < 2000; ++waited_ms) {
    siginfo_t info{};
    if (waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
        info.si_pid == pid)
      break;
    usleep(1000);
  }
  stop_all();
  std::printf("flowkeep-node %s: stopped\n", config_.name.c_str());
  return failed ? 1 : 0;
}

void Supervisor::stop_all() {
  stopping_ = true;
  for (const Child& child : children_) {
    if (child.pid != 0) kill(child.pid, SIGKILL);
  }
  while (wait(nullptr) > 0 || errno == EINTR) {
  }
  pool_->recover_all();
  std::error_code ignored;
  std::filesystem::remove_all(run_directory(), ignored);
}

// A drill's order, carried out before the pool was recovered.
void Supervisor::tell_power_cut() {
  if (!medium_ || !medium_->cut()) return;
  const EmulatedCut& cut = *medium_->cut();
  header_.power_cut_seed = cut.seed;
  header_.power_cut_words_at_risk = cut.words_at_risk;
  header_.power_cut_words_lost = cut.words_lost;
  event("power_cut", "",
        "drill, seed " + std::to_string(cut.seed) + ": of " + std::to_string(cut.words_at_risk) +
            " words that no fence covered " + std::to_string(cut.words_lost) +
            " were lost; the pool was recovered from there");
}

void Supervisor::event(const char* kind, const std::string& chain, const std::string& message) {
  record_event(arena_, kind, chain, message);
  std::printf("flowkeep-node: %s%s%s: %s\n", kind, chain.empty() ? "" : " ", chain.c_str(),
              message.c_str());
  std::fflush(stdout);
}

}  // namespace flowkeep
