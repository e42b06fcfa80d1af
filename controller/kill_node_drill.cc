#include "controller/kill_node_drill.h"

#include <algorithm>
#include <map>
#include <random>
#include <tuple>

#include "nfs/flow_phase.h"

namespace flowkeep {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kStatusDeadline{1'000};
constexpr milliseconds kFlowsDeadline{30'000};
constexpr uint32_t kFlowsCompared = 1'000'000;

double seconds(milliseconds time) {
  return std::chrono::duration<double>(time).count();
}

uint64_t forwarded_packets(const v1::NodeStatus& status) {
  uint64_t packets = 0;
  for (const v1::ChainCounters& chain : status.chains()) packets += chain.forwarded_packets();
  return packets;
}

bool chains_run(const v1::NodeStatus& status, const v1::NodeStatus& before) {
  return std::all_of(
      before.chains().begin(), before.chains().end(), [&](const v1::ChainCounters& was) {
        return std::any_of(status.chains().begin(), status.chains().end(),
                           [&](const v1::ChainCounters& is) {
                             return is.chain() == was.chain() && is.state() == "running";
                           });
      });
}

void add_check(v1::DrillReport& report, const std::string& name, bool ok, double measured,
               double required, const std::string& unit) {
  v1::DrillCheck& check = *report.add_checks();
  check.set_name(name);
  check.set_ok(ok);
  check.set_measured(measured);
  check.set_required(required);
  check.set_unit(unit);
}

void set_only(v1::DrillPercentiles& figures, double value_us) {
  figures.set_count(value_us < 0 ? 0 : 1);
  figures.set_p50(value_us);
  figures.set_p90(value_us);
  figures.set_p99(value_us);
  figures.set_p999(value_us);
  figures.set_max(value_us);
}

void add_time_check(v1::DrillReport& report, const std::string& name, double measured_s,
                    milliseconds limit) {
  add_check(report, name, measured_s >= 0 && measured_s <= seconds(limit), measured_s,
            seconds(limit), "s");
}

}  // namespace

bool may_have_ended(const v1::Flow& before, double now_s) {
  const uint8_t protocol = before.protocol() == "tcp"   ? kProtocolTcp
                           : before.protocol() == "udp" ? kProtocolUdp
                                                        : kProtocolIcmp;
  const FlowPhase phase =
      before.phase() == "established" ? FlowPhase::kEstablished : FlowPhase::kOpening;
  return now_s - static_cast<double>(before.last_seen_s()) >= Timeouts().of(protocol, phase);
}

Result<std::vector<KillNodeDrill::ChainFlow>> KillNodeDrill::flows(NodeLink& link,
                                                                   const v1::NodeStatus& status) {
  std::vector<ChainFlow> all;
  for (const v1::ChainCounters& chain : status.chains()) {
    v1::ListFlowsRequest request;
    request.set_chain(chain.chain());
    request.set_limit(kFlowsCompared);
    auto listed = link.flows(request, kFlowsDeadline);
    if (!listed) return listed.error();
    for (v1::Flow& flow : *listed->mutable_flows()) all.push_back({chain.chain(), std::move(flow)});
  }
  return all;
}

std::optional<NodeView> KillNodeDrill::wait_back(const std::string& name, double old_start_s) {
  const double until_s = clock_.steady_s() + seconds(limits_.back);
  uint64_t seen = changed_.count();
  while (true) {
    auto node = fleet_.node(name);
    if (node && node->registration.started_at_s() > old_start_s) return node;
    const double left_s = until_s - clock_.steady_s();
    if (left_s <= 0) return std::nullopt;
    seen = changed_.wait(seen, milliseconds(static_cast<int64_t>(left_s * 1'000) + 1));
  }
}

v1::NodeStatus KillNodeDrill::wait_working(NodeLink& link, const v1::NodeStatus& before,
                                           double killed_at_s, double killed_steady_s,
                                           Times& times) {
  v1::NodeStatus last;
  const ChangeSignal never;
  while (true) {
    if (const auto status = link.status(kStatusDeadline)) last = *status;
    const double now_s = clock_.steady_s() - killed_steady_s;
    if (times.running < 0 && chains_run(last, before)) times.running = now_s;
    if (last.first_forwarded_at_s() > 0)
      times.first_packet = std::max(0.0, last.first_forwarded_at_s() - killed_at_s);
    if (times.running >= 0 && times.first_packet >= 0) return last;
    const bool packet_late = now_s > times.back + seconds(limits_.first_packet);
    if (packet_late && (times.running >= 0 || now_s > times.back + seconds(limits_.back)))
      return last;
    never.wait(0, limits_.poll);
  }
}

void KillNodeDrill::report_power_cut(const v1::NodeStatus& after, uint64_t seed,
                                     v1::DrillReport& report) {
  report.set_seed(seed);
  report.set_words_at_risk(after.power_cut_words_at_risk());
  report.set_words_lost(after.power_cut_words_lost());
  add_check(report, "pool put back as the cut left it", after.power_cut_seed() == seed,
            after.power_cut_seed() == seed ? 1 : 0, 1, "pools");
}

Result<v1::DrillReport> KillNodeDrill::run(const std::string& name, v1::RunDrillRequest order) {
  const auto node = fleet_.node(name);
  if (!node || !node->alive) return unavailable("node", "node \"" + name + "\" is away");
  const auto before = node->link->status(kStatusDeadline);
  if (!before) return before.error();
  const auto flows_before = flows(*node->link, *before);
  if (!flows_before) return flows_before.error();
  const auto moments_later = node->link->status(kStatusDeadline);
  const bool has_traffic =
      moments_later && forwarded_packets(*moments_later) > forwarded_packets(*before);

  const bool power_cut = order.kind() == "power-cut";
  while (power_cut && order.seed() == 0) order.set_seed(std::random_device()());
  const double killed_steady_s = clock_.steady_s();
  const double killed_at_s = clock_.unix_s();
  const auto ordered = node->link->run_drill(order, limits_.detection);
  // The tree may die before its answer is on the wire.
  if (!ordered && ordered.error().kind != Error::Kind::kUnavailable) return ordered.error();

  Times times;
  if (node->link->wait_disconnected(limits_.detection))
    times.detected = clock_.steady_s() - killed_steady_s;
  const auto returned = wait_back(name, node->registration.started_at_s());
  v1::NodeStatus after;
  std::vector<ChainFlow> flows_after;
  if (returned) {
    times.back = clock_.steady_s() - killed_steady_s;
    after = wait_working(*returned->link, *before, killed_at_s, killed_steady_s, times);
    if (auto listed = flows(*returned->link, after)) flows_after = std::move(*listed);
  }

  using Key = std::tuple<std::string, std::string, std::string, std::string>;
  const auto key = [](const ChainFlow& flow) {
    return Key(flow.chain, flow.flow.protocol(), flow.flow.inside_source(),
               flow.flow.destination());
  };
  std::map<Key, std::string> external;
  for (const ChainFlow& flow : flows_after) external[key(flow)] = flow.flow.external();
  uint64_t resumed = 0;
  for (const ChainFlow& flow : *flows_before) {
    const auto found = external.find(key(flow));
    const bool kept = found != external.end()
                          ? found->second == flow.flow.external()
                          : times.running >= 0 && may_have_ended(flow.flow, clock_.unix_s());
    if (kept) ++resumed;
  }

  v1::DrillReport report;
  report.set_kind(order.kind());
  report.set_what_failed("node " + name + ": its whole process tree, by SIGKILL" +
                         (power_cut ? "; and what no fence covered in its pool" : ""));
  const auto microseconds = [](double s) { return s < 0 ? -1 : s * 1e6; };
  v1::DrillInjection& injection = *report.add_injections();
  injection.set_victim_pid(before->supervisor_pid());
  injection.set_replacement_pid(after.supervisor_pid());
  injection.set_detect_us(microseconds(times.detected));
  injection.set_takeover_us(microseconds(times.back));
  injection.set_first_packet_us(microseconds(times.first_packet));
  report.set_detect_us_p50(injection.detect_us());
  report.set_detect_us_p99(injection.detect_us());
  report.set_first_packet_us_p50(injection.first_packet_us());
  report.set_first_packet_us_p99(injection.first_packet_us());
  report.set_kills(1);
  set_only(*report.mutable_detect_us(), injection.detect_us());
  set_only(*report.mutable_takeover_us(), injection.takeover_us());
  set_only(*report.mutable_first_packet_us(), injection.first_packet_us());
  // Afterwards it is the same pool, if the node is back at all.
  report.set_medium(before->medium());
  report.set_medium_survives(before->medium_survives());
  report.set_emulated(before->emulated());
  report.set_flows_before(flows_before->size());
  report.set_flows_resumed(resumed);
  report.set_state_verified(times.running >= 0 && resumed == flows_before->size());
  add_time_check(report, "loss detected", times.detected, limits_.detection);
  add_time_check(report, "node back", times.back, limits_.back);
  add_time_check(report, "chains running", times.running, limits_.back);
  if (has_traffic)
    add_time_check(report, "first packet forwarded", times.first_packet, limits_.first_packet);
  add_check(report, "flows resumed", report.state_verified(), static_cast<double>(resumed),
            static_cast<double>(flows_before->size()), "flows");
  if (power_cut) report_power_cut(after, order.seed(), report);
  return report;
}

}  // namespace flowkeep
