// Drills on workers: a fault is injected, and what follows is measured with the time stamp counter.
#include <rte_cycles.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <vector>

#include "dataplane/supervisor/supervisor.h"
#include "dataplane/worker.h"

namespace flowkeep {
namespace {

constexpr double kPacketWaitUs = 200'000;  // then no packet came to the replacement
constexpr double kDetectWaitUs = 10'000'000;
constexpr double kSettleUs = 500'000;  // a worker in a burst may be waiting for a processor

double percentile(std::vector<double> values, double rank) {
  if (values.empty()) return -1;
  std::sort(values.begin(), values.end());
  const auto place =
      static_cast<size_t>(std::lround(rank * static_cast<double>(values.size() - 1)));
  return values[place];
}

}  // namespace

void Supervisor::begin_drill(uint64_t request, const node::v1::RunDrillRequest& wanted) {
  const ChainState* chain = find_chain(wanted.chain());
  if (drill_)
    return reply_error(
        request, unavailable("drill", "another drill is running; try again when it has ended"));
  if (chain == nullptr || header_.chains[chain->index].active.load() == 0) {
    return reply_error(
        request, Error{Error::Kind::kNotFound, "chain",
                       "\"" + wanted.chain() + "\" does not run on node \"" + config_.name + "\""});
  }
  if (chain->next || chain->removing) {
    return reply_error(request,
                       unavailable("chain", "\"" + chain->name + "\" is being changed; try again"));
  }
  const std::optional<BurstStep> at_step = burst_step_of(wanted.at_step());
  if (!wanted.at_step().empty() && !at_step) {
    return reply_error(request, invalid("at_step", "\"" + wanted.at_step() +
                                                       "\" is not accepted; one of these is: " +
                                                       burst_step_names()));
  }
  Drill drill;
  drill.at_step = at_step.value_or(BurstStep::kNone);
  drill.request = request;
  drill.chain = chain->index;
  drill.hang = wanted.kind() == "hang-worker";
  drill.remaining = std::max(wanted.count(), 1U);
  drill.interval_tsc =
      header_.tsc_hz / 1000 * (wanted.interval_ms() == 0 ? 100 : wanted.interval_ms());
  drill.report.set_kind(wanted.kind());
  drill.report.set_chain(wanted.chain());
  drill.report.set_what_failed(drill.hang ? "the worker loops for ever inside a burst"
                               : at_step  ? "the worker is killed with SIGKILL at step " +
                                               wanted.at_step() + " of a burst"
                                         : "the worker is killed with SIGKILL");
  drill_ = std::move(drill);
  set_tick(1);
}

void Supervisor::continue_drill() {
  Drill& drill = *drill_;
  const uint64_t now_tsc = rte_rdtsc();
  if (!chains_.contains(drill.chain) || chains_.at(drill.chain).slots.empty())
    return finish_drill();  // the chain was removed meanwhile
  if (drill.asked_tsc != 0) return kill_at_step();
  if (drill.injected_tsc == 0) {
    if (drill.remaining == 0) return settle_drill();
    if (now_tsc >= drill.next_tsc) inject();
    return;
  }
  const double elapsed_us = arena_.tsc_to_us(now_tsc - drill.injected_tsc);
  if (drill.taken_over_tsc == 0) {
    // A hang shows only when a packet arrives; without traffic there is nothing to detect.
    if (elapsed_us > kDetectWaitUs) finish_injection(-1);
    return;
  }
  const uint64_t first = header_.slots[drill.slot].first_burst_tsc.load();
  if (first != 0) return finish_injection(arena_.tsc_to_us(first - drill.injected_tsc));
  if (arena_.tsc_to_us(now_tsc - drill.taken_over_tsc) > kPacketWaitUs) finish_injection(-1);
}

void Supervisor::inject() {
  Drill& drill = *drill_;
  const ChainState& chain = chains_.at(drill.chain);
  const uint8_t slot = chain.slots[drill.next_slot++ % chain.slots.size()];
  const int index = header_.slots[slot].process.load();
  if (index < 0 || header_.processes[index].state.load() != ProcessState::kServing ||
      header_.processes[index].pid.load() == 0) {
    return;  // its worker is just being replaced: the next tick
  }
  WorkerProcess& process = header_.processes[index];
  drill.injection = node::v1::DrillInjection();
  drill.injection.set_victim_pid(static_cast<uint64_t>(process.pid.load()));
  drill.slot = slot;
  drill.detected_tsc = drill.taken_over_tsc = 0;
  if (drill.at_step != BurstStep::kNone) {
    drill.victim = static_cast<uint32_t>(index);
    drill.asked_tsc = rte_rdtsc();
    return process.stop_at.store(drill.at_step);
  }
  drill.injected_tsc = rte_rdtsc();
  if (drill.hang) {
    process.stop_at.store(BurstStep::kPeeked);
  } else {
    kill(process.pid.load(), SIGKILL);
  }
}

// The victim is killed when it says that it is there; without packets it never is.
void Supervisor::kill_at_step() {
  Drill& drill = *drill_;
  WorkerProcess& process = header_.processes[drill.victim];
  const bool there = process.stopped_at.load() == drill.at_step;
  const bool alive = header_.slots[drill.slot].process.load() == static_cast<int>(drill.victim);
  if (alive && !there && arena_.tsc_to_us(rte_rdtsc() - drill.asked_tsc) < kDetectWaitUs) return;
  drill.asked_tsc = 0;
  drill.injected_tsc = rte_rdtsc();
  if (!alive || !there) {
    process.stop_at.store(BurstStep::kNone);
    return finish_injection(-1);
  }
  kill(process.pid.load(), SIGKILL);
}

void Supervisor::note_takeover(uint8_t slot, const SlotRecovery& recovery, uint64_t detected_tsc) {
  if (!drill_ || drill_->injected_tsc == 0 || drill_->slot != slot || drill_->taken_over_tsc != 0)
    return;
  Drill& drill = *drill_;
  drill.detected_tsc = detected_tsc;
  drill.taken_over_tsc = rte_rdtsc();
  const int replacement = header_.slots[slot].process.load();
  if (replacement >= 0)
    drill.injection.set_replacement_pid(
        static_cast<uint64_t>(header_.processes[replacement].pid.load()));
  drill.injection.set_detect_us(arena_.tsc_to_us(detected_tsc - drill.injected_tsc));
  drill.injection.set_takeover_us(arena_.tsc_to_us(drill.taken_over_tsc - drill.injected_tsc));
  drill.injection.set_inbox_packets(rte_ring_count(arena_.inbox(slot)));
  drill.injection.set_burst_redone(recovery.burst_undone);
}

void Supervisor::finish_injection(double first_packet_us) {
  Drill& drill = *drill_;
  const int replacement = header_.slots[drill.slot].process.load();
  if (replacement >= 0)
    drill.injection.set_replacement_pid(
        static_cast<uint64_t>(header_.processes[replacement].pid.load()));
  drill.injection.set_first_packet_us(first_packet_us);
  if (drill.taken_over_tsc == 0) {
    drill.injection.set_detect_us(-1);
    drill.injection.set_takeover_us(-1);
  }
  *drill.report.add_injections() = drill.injection;
  drill.next_tsc = drill.injected_tsc + drill.interval_tsc;
  drill.injected_tsc = 0;
  --drill.remaining;
}

// Each packet that a worker takes it gives back, so the positions of a slot's two rings differ only
// by a burst that is published and not yet released, or by packets lost or doubled.
uint64_t Supervisor::lost_packets(const ChainState& chain) const {
  uint64_t lost = 0;
  for (const uint8_t slot : chain.slots) {
    const uint32_t given = __atomic_load_n(&arena_.outbox(slot)->prod.tail, __ATOMIC_ACQUIRE);
    const uint32_t taken = __atomic_load_n(&arena_.inbox(slot)->cons.tail, __ATOMIC_ACQUIRE);
    lost += static_cast<uint64_t>(std::abs(static_cast<int32_t>(taken - given)));
  }
  return lost;
}

// A look each tick until no burst is in the way, or for so long that none can be.
void Supervisor::settle_drill() {
  Drill& drill = *drill_;
  const uint64_t lost = lost_packets(chains_.at(drill.chain));
  if (drill.settling_since_tsc == 0) {
    drill.settling_since_tsc = rte_rdtsc();
    drill.report.set_packets_lost(lost);
  }
  drill.report.set_packets_lost(std::min(drill.report.packets_lost(), lost));
  const double settling_us = arena_.tsc_to_us(rte_rdtsc() - drill.settling_since_tsc);
  if (drill.report.packets_lost() == 0 || settling_us > kSettleUs) finish_drill();
}

void Supervisor::finish_drill() {
  Drill& drill = *drill_;
  std::vector<double> detect, first;
  for (const node::v1::DrillInjection& injection : drill.report.injections()) {
    if (injection.detect_us() >= 0) detect.push_back(injection.detect_us());
    if (injection.first_packet_us() >= 0) first.push_back(injection.first_packet_us());
  }
  drill.report.set_detect_us_p50(percentile(detect, 0.50));
  drill.report.set_detect_us_p99(percentile(detect, 0.99));
  drill.report.set_first_packet_us_p50(percentile(first, 0.50));
  drill.report.set_first_packet_us_p99(percentile(first, 0.99));
  node::internal::Reply answer;
  answer.set_id(drill.request);
  *answer.mutable_drilled() = drill.report;
  drill_.reset();
  reply(answer);
}

}  // namespace flowkeep
