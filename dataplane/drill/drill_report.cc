#include "dataplane/drill/drill_report.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace flowkeep {
namespace {

constexpr size_t kWorstShown = 10;
// The switch holds packets of its own: what it just received, what waits for a neighbour's answer
// or for a device to take it.
constexpr uint64_t kBuffersInSwitch = 1024;

constexpr const char* burst_name(DeadBurst burst) {
  return burst == DeadBurst::kRedone      ? "redone"
         : burst == DeadBurst::kCompleted ? "completed"
                                          : "none";
}

double over_us(const Injection& injection) {
  if (injection.detect_us < 0) return std::numeric_limits<double>::infinity();
  return std::max({injection.detect_us, injection.takeover_us, injection.first_packet_us});
}

void add_check(node::v1::DrillReport& report, const std::string& name, bool ok, double measured,
               double required, const char* unit) {
  node::v1::DrillCheck& check = *report.add_checks();
  check.set_name(name);
  check.set_ok(ok);
  check.set_measured(measured);
  check.set_required(required);
  check.set_unit(unit);
}

void add_none_check(node::v1::DrillReport& report, const std::string& name, uint64_t measured,
                    const char* unit) {
  add_check(report, name, measured == 0, static_cast<double>(measured), 0, unit);
}

node::v1::DrillInjection message(const Arena& arena, const DrillRun& run, const Injection& one) {
  node::v1::DrillInjection injection;
  injection.set_victim_pid(static_cast<uint64_t>(one.victim_pid));
  injection.set_replacement_pid(static_cast<uint64_t>(one.replacement_pid));
  injection.set_detect_us(one.detect_us);
  injection.set_takeover_us(one.takeover_us);
  injection.set_first_packet_us(one.first_packet_us);
  injection.set_inbox_packets(one.waiting);
  injection.set_burst_redone(one.burst == DeadBurst::kRedone);
  injection.set_at_s(arena.tsc_to_us(one.injected_tsc - run.begin_tsc()) / 1e6);
  injection.set_chain(arena.header().chains[one.chain].name);
  injection.set_slot(one.slot);
  injection.set_victim(victim_name(one.victim));
  injection.set_burst(burst_name(one.burst));
  return injection;
}

// Percentiles and counts over all injections.
void summarize(const std::vector<Injection>& injections, node::v1::DrillReport& report) {
  std::vector<double> detect, takeover, first;
  uint64_t standbys = 0, successors = 0, redone = 0, completed = 0, none = 0;
  for (const Injection& one : injections) {
    if (one.detect_us >= 0) detect.push_back(one.detect_us);
    if (one.takeover_us >= 0) takeover.push_back(one.takeover_us);
    if (one.first_packet_us >= 0 && one.waiting > 0) first.push_back(one.first_packet_us);
    standbys += one.victim == Victim::kStandby;
    successors += one.victim == Victim::kSuccessor;
    if (one.slot < 0) continue;
    redone += one.burst == DeadBurst::kRedone;
    completed += one.burst == DeadBurst::kCompleted;
    none += one.burst == DeadBurst::kNone;
  }
  report.set_kills(injections.size());
  report.set_standby_kills(standbys);
  report.set_successor_kills(successors);
  report.set_bursts_redone(redone);
  report.set_bursts_completed(completed);
  report.set_bursts_none(none);
  *report.mutable_detect_us() = percentiles(std::move(detect));
  *report.mutable_takeover_us() = percentiles(std::move(takeover));
  *report.mutable_first_packet_us() = percentiles(std::move(first));
  report.set_detect_us_p50(report.detect_us().p50());
  report.set_detect_us_p99(report.detect_us().p99());
  report.set_first_packet_us_p50(report.first_packet_us().p50());
  report.set_first_packet_us_p99(report.first_packet_us().p99());
}

std::string chain_state(const ArenaHeader& header, uint32_t index) {
  const ChainBlock& block = header.chains[index];
  if (block.active.load() == 0) return "gone";
  for (const WorkerSlot& slot : header.slots) {
    const bool mine = slot.in_use.load() != 0 && slot.chain.load() == index;
    if (mine && slot.process.load() < 0) return "degraded: a slot without a worker";
  }
  return "running";
}

void add_chains(const Arena& arena, const DrillRun& run, const std::vector<ChainFlows>& flows,
                node::v1::DrillReport& report) {
  for (const ChainFlows& one : flows) {
    uint64_t changed = 0;
    node::v1::DrillChain& chain = *report.add_chains();
    chain.set_chain(arena.header().chains[one.chain].name);
    chain.set_state(chain_state(arena.header(), one.chain));
    chain.set_kills(static_cast<uint64_t>(
        std::count_if(run.injections().begin(), run.injections().end(),
                      [&](const Injection& i) { return i.chain == one.chain; })));
    chain.set_flows_before(one.before.size());
    chain.set_flows_resumed(count_resumed(one.before, one.after, changed));
    chain.set_flows_changed(changed);
    chain.set_packets_lost(run.packets_lost(one.chain));
    report.set_flows_before(report.flows_before() + chain.flows_before());
    report.set_flows_resumed(report.flows_resumed() + chain.flows_resumed());
    report.set_packets_lost(report.packets_lost() + chain.packets_lost());
  }
}

// Flows that ended by themselves during the drill are not found afterwards; none may have changed.
void judge(uint64_t wanted, const std::vector<Injection>& injections,
           node::v1::DrillReport& report) {
  uint64_t changed = 0, down = 0;
  for (const node::v1::DrillChain& chain : report.chains()) {
    changed += chain.flows_changed();
    down += chain.state() != "running";
  }
  report.set_state_verified(changed == 0);
  const auto recovered = static_cast<uint64_t>(
      std::count_if(injections.begin(), injections.end(), [](const Injection& one) {
        return one.detect_us >= 0 && (one.slot < 0 || one.takeover_us >= 0);
      }));
  const auto done = static_cast<double>(injections.size());
  add_check(report, "faults injected", injections.size() >= wanted, done,
            static_cast<double>(wanted), "faults");
  add_check(report, "faults detected and taken over", recovered == injections.size(),
            static_cast<double>(recovered), done, "faults");
  add_none_check(report, "packets lost", report.packets_lost(), "packets");
  add_none_check(report, "flows with another translation", changed, "flows");
  add_check(report, "packet buffers not found", report.buffers_missing() <= kBuffersInSwitch,
            static_cast<double>(report.buffers_missing()), kBuffersInSwitch, "buffers at most");
  add_none_check(report, "chains that do not run", down, "chains");
}

}  // namespace

node::v1::DrillPercentiles percentiles(std::vector<double> values) {
  node::v1::DrillPercentiles result;
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    if (values.empty()) return -1.0;
    const auto rank =
        static_cast<size_t>(std::ceil(share * static_cast<double>(values.size()) - 1e-9));
    return values[std::max<size_t>(rank, 1) - 1];
  };
  result.set_count(values.size());
  result.set_p50(at(0.5));
  result.set_p90(at(0.9));
  result.set_p99(at(0.99));
  result.set_p999(at(0.999));
  result.set_max(at(1));
  return result;
}

std::vector<size_t> worst(const std::vector<Injection>& injections, size_t count) {
  std::vector<size_t> order(injections.size());
  std::iota(order.begin(), order.end(), size_t{0});
  count = std::min(count, order.size());
  std::partial_sort(
      order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(),
      [&](size_t a, size_t b) { return over_us(injections[a]) > over_us(injections[b]); });
  order.resize(count);
  return order;
}

node::v1::DrillReport make_report(const Arena& arena, const node::v1::RunDrillRequest& request,
                                  const DrillRun& run, const std::vector<ChainFlows>& flows) {
  node::v1::DrillReport report;
  report.set_kind(request.kind());
  report.set_chain(request.chain());
  report.set_what_failed(
      !request.at_step().empty()
          ? "the worker is killed with SIGKILL at step " + request.at_step() + " of a burst"
      : request.kind() == "hang-worker" ? "the worker loops for ever inside a burst"
      : request.kind() == "storm"       ? "random workers are killed with SIGKILL at random moments"
                                        : "the worker is killed with SIGKILL");
  const std::vector<Injection>& injections = run.injections();
  summarize(injections, report);
  if (request.kind() == "storm") {
    report.set_seed(request.seed());
    for (const size_t i : worst(injections, kWorstShown))
      *report.add_injections() = message(arena, run, injections[i]);
  } else {
    for (const Injection& one : injections) *report.add_injections() = message(arena, run, one);
  }
  report.set_buffers_missing(run.buffers_missing());
  report.set_stopped(run.stopped());
  report.set_duration_s(run.duration_s());
  std::vector<uint64_t> failures;
  for (const Injection& one : injections) {
    if (one.slot >= 0) failures.push_back(one.injected_tsc);
  }
  *report.mutable_timeline() = run.samples().timeline(failures);
  add_chains(arena, run, flows, report);
  judge(run.stopped() ? injections.size() : std::max<uint64_t>(request.count(), 1), injections,
        report);
  return report;
}

}  // namespace flowkeep
