#include "dataplane/drill/drill_run.h"

#include <rte_cycles.h>
#include <rte_ring.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdlib>

namespace flowkeep {
namespace {

constexpr double kDetectWaitUs = 10'000'000;
constexpr double kPacketWaitUs = 200'000;  // after the take-over; then no packet came
constexpr double kStandbyWaitUs = 5'000'000;
constexpr double kVictimWaitUs = 60'000'000;
constexpr double kSettleUs = 500'000;
constexpr double kAfterglowUs = 45'000;  // sampled beyond the last fault, for the time-line
constexpr double kSampleUs = 1000;
constexpr uint32_t kSamplesOfRate = 500;
constexpr double kLookUs = 100;  // for a victim that is not there yet

// Woken at its moments though both processors of a small machine poll.
void prefer_this_thread() {
  sched_param parameters{};
  parameters.sched_priority = 1;
  sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &parameters);
}

}  // namespace

DrillRun::DrillRun(const Arena& arena, DrillOrder order, DrillPlan plan, Hang hang)
    : arena_(arena),
      header_(arena.header()),
      order_(std::move(order)),
      plan_(std::move(plan)),
      hang_(std::move(hang)),
      samples_(header_.tsc_hz),
      lost_(kMaxChains, 0) {
  injections_.reserve(order_.count + 1);  // "several" may go one beyond
}

double DrillRun::us_since(uint64_t from_tsc, uint64_t tsc) const {
  return tsc < from_tsc ? 0 : arena_.tsc_to_us(tsc - from_tsc);
}

double DrillRun::elapsed_s() const {
  return begin_tsc_ == 0 ? 0 : us_since(begin_tsc_, rte_rdtsc()) / 1e6;
}

void DrillRun::run() {
  prefer_this_thread();
  read_ = header_.takeovers.last.load();
  last_injected_tsc_ = next_sample_tsc_ = rte_rdtsc();
  begin_tsc_ = last_injected_tsc_;
  const double hz = static_cast<double>(header_.tsc_hz);
  plan_next(begin_tsc_);
  while (true) {
    follow();
    uint64_t now_tsc = rte_rdtsc();
    if (now_tsc >= next_sample_tsc_) sample(now_tsc);
    const bool more = injections_.size() < order_.count && !stopping_.load() && !gave_up_;
    if (!more && open_.empty() && us_since(last_injected_tsc_, now_tsc) > kAfterglowUs) break;
    if (more && now_tsc >= due_tsc_) try_to_inject();
    now_tsc = rte_rdtsc();
    const auto look_tsc = now_tsc + static_cast<uint64_t>(kLookUs * hz / 1e6);
    uint64_t wake_tsc = next_sample_tsc_;
    if (more) wake_tsc = std::min(wake_tsc, std::max(due_tsc_, look_tsc));
    if (wake_tsc <= now_tsc) continue;
    const double nap_ns = static_cast<double>(wake_tsc - now_tsc) * 1e9 / hz;
    const timespec nap{0, static_cast<long>(nap_ns)};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, nullptr);
  }
  duration_s_ = us_since(begin_tsc_, last_injected_tsc_) / 1e6;
  settle();
}

void DrillRun::plan_next(uint64_t from_tsc) {
  planned_ = plan_.next();
  due_tsc_ = from_tsc +
             static_cast<uint64_t>(planned_.after_us * static_cast<double>(header_.tsc_hz) / 1e6);
}

std::vector<uint8_t> DrillRun::slots() const {
  std::vector<uint8_t> found;
  for (uint8_t slot = 0; slot < kMaxWorkerSlots; ++slot) {
    const WorkerSlot& control = header_.slots[slot];
    const bool wanted = std::find(order_.chains.begin(), order_.chains.end(),
                                  control.chain.load()) != order_.chains.end();
    if (control.in_use.load() != 0 && wanted) found.push_back(slot);
  }
  return found;
}

bool DrillRun::under_way(pid_t pid) const {
  return std::any_of(open_.begin(), open_.end(),
                     [&](size_t i) { return injections_[i].victim_pid == pid; });
}

// The process that occupies a slot. Not one that is dying already.
DrillRun::Target DrillRun::worker_of(uint8_t slot, bool serving) const {
  const int index = header_.slots[slot].process.load();
  if (index < 0) return {};
  const WorkerProcess& process = header_.processes[index];
  const pid_t pid = process.pid.load();
  const bool ready = !serving || process.state.load() == ProcessState::kServing;
  if (pid == 0 || !ready || under_way(pid)) return {};
  return {index, pid};
}

DrillRun::Target DrillRun::standby_of(uint32_t chain) const {
  for (size_t i = 0; i < kMaxProcesses; ++i) {
    const WorkerProcess& process = header_.processes[i];
    const pid_t pid = process.pid.load();
    const bool idle = process.state.load() == ProcessState::kStandby && process.slot.load() < 0 &&
                      process.chain.load() == chain && process.leave.load() == 0;
    if (idle && pid != 0 && !under_way(pid)) return {static_cast<int>(i), pid};
  }
  return {};
}

// A victim that is not there (it is being replaced) is waited for: run() looks again.
void DrillRun::try_to_inject() {
  const std::vector<uint8_t> all = slots();
  const double late_us = us_since(due_tsc_, rte_rdtsc());
  if (all.empty() || late_us > kVictimWaitUs) {
    gave_up_ = true;  // the chain was removed meanwhile, or does not come back
    return;
  }
  if (order_.one_at_a_time && !open_.empty()) return;
  // A node may be configured without standbys.
  if (late_us > kStandbyWaitUs) planned_.victim = Victim::kWorker;
  const uint8_t slot = all[planned_.pick % all.size()];
  bool done = false;
  switch (planned_.victim) {
    case Victim::kWorker:
      done = inject(worker_of(slot, true), Victim::kWorker);
      break;
    case Victim::kStandby:
      done = inject(standby_of(header_.slots[slot].chain.load()), Victim::kStandby);
      break;
    case Victim::kSuccessor: {
      const auto last = std::find_if(injections_.rbegin(), injections_.rend(),
                                     [](const Injection& one) { return one.slot >= 0; });
      const bool none = last == injections_.rend();
      if (!none && last->takeover_us < 0 && under_way(last->victim_pid)) return;
      if (none || last->takeover_us < 0) {
        done = inject(worker_of(slot, true), Victim::kWorker);
        break;
      }
      const double since_us = us_since(last->injected_tsc, rte_rdtsc()) - last->takeover_us;
      if (since_us < planned_.delay_us) return;
      done = inject(worker_of(static_cast<uint8_t>(last->slot), false), Victim::kSuccessor);
      break;
    }
    case Victim::kSeveral: {
      const uint8_t next = all[(planned_.pick + 1) % all.size()];
      const Target first = worker_of(slot, true);
      const Target second =
          next == slot ? standby_of(header_.slots[slot].chain.load()) : worker_of(next, true);
      if (first.pid == 0 || second.pid == 0) return;
      done = inject(first, Victim::kWorker);
      inject(second, next == slot ? Victim::kStandby : Victim::kWorker);
      break;
    }
  }
  if (done) plan_next(last_injected_tsc_);
}

bool DrillRun::inject(const Target& target, Victim victim) {
  if (target.pid == 0) return false;
  const WorkerProcess& process = header_.processes[target.process];
  // By descriptor: the number could be another process's by now.
  const int fd = static_cast<int>(syscall(SYS_pidfd_open, target.pid, 0));
  if (fd < 0) return false;
  bool sent = false;
  Injection injection;
  injection.victim = victim;
  injection.victim_pid = target.pid;
  injection.chain = process.chain.load();
  injection.slot = process.slot.load();
  if (process.pid.load() == target.pid) sent = send_fault(target, fd, injection);
  close(fd);
  if (!sent) return false;
  last_injected_tsc_ = injection.injected_tsc;
  open_.push_back(injections_.size());
  injections_.push_back(injection);
  injected_.store(injections_.size());
  return true;
}

bool DrillRun::send_fault(const Target& target, int pidfd, Injection& injection) const {
  injection.injected_tsc = rte_rdtsc();
  if (order_.at_step != BurstStep::kNone) {
    if (!hang_(static_cast<uint32_t>(target.process), target.pid, order_.at_step)) return false;
    if (!order_.kill_there) return true;
    if (!wait_at_step(target)) {
      // The order is taken back, so that the worker does not stop there when the drill is over.
      hang_(static_cast<uint32_t>(target.process), target.pid, BurstStep::kNone);
      if (header_.processes[target.process].stopped_at.load() != order_.at_step) return false;
    }
    injection.injected_tsc = rte_rdtsc();
  }
  return syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0) == 0;
}

// Until the worker says that it has stopped there. False: it ended before, or no packet brought it
// there.
bool DrillRun::wait_at_step(const Target& target) const {
  const WorkerProcess& process = header_.processes[target.process];
  const uint64_t begin_tsc = rte_rdtsc();
  while (process.stopped_at.load() != order_.at_step) {
    if (process.pid.load() != target.pid || stopping_.load()) return false;
    if (us_since(begin_tsc, rte_rdtsc()) > kDetectWaitUs) return false;
    const timespec nap{0, static_cast<long>(kLookUs * 1000)};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, nullptr);
  }
  return true;
}

void DrillRun::follow() {
  const uint64_t last = header_.takeovers.last.load(std::memory_order_acquire);
  while (read_ < last) {
    Takeover takeover;
    if (header_.takeovers.read(++read_, takeover)) note(takeover);
  }
  look_for_first_packets();
  const uint64_t now_tsc = rte_rdtsc();
  std::erase_if(open_, [&](size_t i) { return settled(injections_[i], now_tsc); });
}

void DrillRun::note(const Takeover& takeover) {
  for (const size_t i : open_) {
    Injection& injection = injections_[i];
    // A successor that died too, after its first burst: that one ended the interruption.
    const bool ended = takeover.slot == injection.slot && injection.takeover_us >= 0 &&
                       injection.first_packet_us < 0 && takeover.first_burst_tsc != 0;
    if (ended)
      injection.first_packet_us = us_since(injection.injected_tsc, takeover.first_burst_tsc);
    if (injection.victim_pid != takeover.victim_pid || injection.detect_us >= 0) continue;
    injection.detect_us = us_since(injection.injected_tsc, takeover.detected_tsc);
    injection.slot = takeover.slot;
    injection.burst = takeover.burst;
    injection.waiting = takeover.waiting;
    injection.replacement_pid = takeover.replacement_pid;
    if (takeover.taken_over_tsc != 0)
      injection.takeover_us = us_since(injection.injected_tsc, takeover.taken_over_tsc);
  }
}

void DrillRun::look_for_first_packets() {
  for (const size_t i : open_) {
    Injection& injection = injections_[i];
    if (injection.detect_us < 0 || injection.slot < 0) continue;
    const WorkerSlot& slot = header_.slots[injection.slot];
    const int replacement = slot.process.load();
    if (replacement < 0) continue;
    if (injection.takeover_us < 0)
      injection.takeover_us = us_since(injection.injected_tsc, rte_rdtsc());
    if (injection.replacement_pid == 0)
      injection.replacement_pid = header_.processes[replacement].pid.load();
    const uint64_t first = slot.first_burst_tsc.load();
    if (first != 0 && injection.first_packet_us < 0)
      injection.first_packet_us = us_since(injection.injected_tsc, first);
  }
}

// Nothing more will be known of it.
bool DrillRun::settled(Injection& injection, uint64_t now_tsc) const {
  const double age_us = us_since(injection.injected_tsc, now_tsc);
  if (injection.detect_us < 0) return age_us > kDetectWaitUs;
  if (injection.slot < 0 || injection.first_packet_us >= 0) return true;
  if (injection.takeover_us < 0) return age_us > kDetectWaitUs;
  return age_us - injection.takeover_us > kPacketWaitUs;
}

void DrillRun::sample(uint64_t now_tsc) {
  uint64_t forwarded = 0;
  for (const uint32_t chain : order_.chains)
    forwarded += header_.chains[chain].forwarded_packets.load(std::memory_order_relaxed);
  samples_.add(now_tsc, forwarded);
  if (++sampled_ % kSamplesOfRate == 0) recent_pps_ = samples_.recent_pps();
  next_sample_tsc_ =
      now_tsc + static_cast<uint64_t>(kSampleUs * static_cast<double>(header_.tsc_hz) / 1e6);
}

// What the switch has given to the chain's workers is back with it, or in a ring. Under load a look
// may fall between a ring and its count, or into a burst that lies in both rings.
uint64_t DrillRun::unaccounted(uint32_t chain) const {
  const ChainBlock& block = header_.chains[chain];
  int64_t packets = static_cast<int64_t>(block.steered.load() - block.returned.load());
  for (size_t slot = 0; slot < kMaxWorkerSlots; ++slot) {
    const WorkerSlot& control = header_.slots[slot];
    if (control.in_use.load() == 0 || control.chain.load() != chain) continue;
    packets -= rte_ring_count(arena_.inbox(slot));
    packets -= rte_ring_count(arena_.outbox(slot));
  }
  return static_cast<uint64_t>(std::abs(packets));
}

// Looks until everything is accounted for, or for so long that nothing can be in the way. The
// switch counts the free packet buffers now and then, and holds a burst or two itself.
void DrillRun::settle() {
  for (const uint32_t chain : order_.chains) {
    const uint64_t begin_tsc = rte_rdtsc();
    lost_[chain] = unaccounted(chain);
    while (lost_[chain] != 0 && us_since(begin_tsc, rte_rdtsc()) < kSettleUs)
      lost_[chain] = std::min(lost_[chain], unaccounted(chain));
  }
  const uint64_t begin_tsc = rte_rdtsc();
  while (buffers_missing_ != 0 && us_since(begin_tsc, rte_rdtsc()) < kSettleUs) {
    uint64_t known = header_.switch_block.packets_free.load();
    for (size_t slot = 0; slot < kMaxWorkerSlots; ++slot) {
      if (header_.slots[slot].in_use.load() == 0) continue;
      known += rte_ring_count(arena_.inbox(slot)) + rte_ring_count(arena_.outbox(slot));
    }
    buffers_missing_ =
        std::min(buffers_missing_, known >= order_.buffers ? 0 : order_.buffers - known);
    const timespec nap{0, 1'000'000};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, nullptr);
  }
}

}  // namespace flowkeep
