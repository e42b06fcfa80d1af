// flowkeepctl top: rates, from the difference of two readings of the counters.
#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <map>
#include <thread>

#include "controller/ctl/commands.h"
#include "controller/ctl/table.h"

namespace flowkeep {
namespace {

constexpr const char* kClearScreen = "\033[H\033[2J";

struct Rate {
  const v1::GetStatisticsResponse& before;
  const v1::GetStatisticsResponse& now;

  double interval_s() const { return now.at_s() - before.at_s(); }
  // Counters that went back belong to something that was started anew.
  double of(uint64_t then, uint64_t current) const {
    return current < then || interval_s() <= 0 ? 0
                                               : static_cast<double>(current - then) / interval_s();
  }
};

uint64_t dropped(const v1::ChainCounters& chain) {
  uint64_t packets = 0;
  for (const auto& [reason, count] : chain.drops()) packets += count;
  return packets;
}

struct ChainRates {
  std::string node, chain, state;
  double mpps = 0, gbit_s = 0, drops_s = 0, opened_s = 0;
  uint64_t flows = 0;
};
struct WorkerRates {
  std::string node, chain, slot, state;
  uint64_t pid = 0, queue = 0;
  double mpps = 0, packets_per_burst = 0;
};

std::vector<ChainRates> chain_rates(const Rate& rate) {
  std::map<std::pair<std::string, std::string>, v1::ChainCounters> then;
  for (const auto& node : rate.before.nodes()) {
    for (const auto& chain : node.chains()) then[{node.name(), chain.chain()}] = chain;
  }
  std::vector<ChainRates> rates;
  for (const auto& node : rate.now.nodes()) {
    for (const auto& chain : node.chains()) {
      const auto found = then.find({node.name(), chain.chain()});
      const v1::ChainCounters& was = found == then.end() ? chain : found->second;
      rates.push_back({node.name(), chain.chain(), chain.state(),
                       rate.of(was.forwarded_packets(), chain.forwarded_packets()) / 1e6,
                       rate.of(was.forwarded_bytes(), chain.forwarded_bytes()) * 8 / 1e9,
                       rate.of(dropped(was), dropped(chain)),
                       rate.of(was.opened_flows(), chain.opened_flows()), chain.flows()});
    }
  }
  return rates;
}

std::vector<WorkerRates> worker_rates(const Rate& rate) {
  std::map<std::pair<std::string, uint64_t>, v1::Worker> then;
  for (const auto& node : rate.before.nodes()) {
    for (const auto& worker : node.workers()) then[{node.name(), worker.pid()}] = worker;
  }
  std::vector<WorkerRates> rates;
  for (const auto& node : rate.now.nodes()) {
    for (const auto& worker : node.workers()) {
      const auto found = then.find({node.name(), worker.pid()});
      const v1::Worker& was = found == then.end() ? worker : found->second;
      const double packets_s = rate.of(was.packets(), worker.packets());
      const double bursts_s = rate.of(was.bursts(), worker.bursts());
      rates.push_back({node.name(), worker.chain(),
                       worker.slot() < 0 ? "standby" : std::to_string(worker.slot()),
                       worker.state(), worker.pid(), worker.queue(), packets_s / 1e6,
                       bursts_s > 0 ? packets_s / bursts_s : 0});
    }
  }
  return rates;
}

void print_rates(std::ostream& out, const Rate& rate) {
  out << time_text(rate.now.at_s()) << "   over " << number_text(rate.interval_s(), 2) << " s\n\n";
  Table chains(
      {"CHAIN", "NODE", "STATE", ">MPPS", ">GBIT/S", ">FLOWS", ">NEW-FLOWS/S", ">DROPS/S"});
  for (const ChainRates& chain : chain_rates(rate)) {
    chains.add({chain.chain, chain.node, chain.state, number_text(chain.mpps, 3),
                number_text(chain.gbit_s, 3), std::to_string(chain.flows),
                number_text(chain.opened_s, 0), number_text(chain.drops_s, 0)});
  }
  if (chains.empty()) {
    out << "No chain runs.\n";
    return;
  }
  chains.print(out);
  out << '\n';
  Table workers({">PID", "NODE", "CHAIN", "SLOT", "STATE", ">MPPS", ">PACKETS/BURST", ">QUEUE"});
  for (const WorkerRates& worker : worker_rates(rate)) {
    workers.add({std::to_string(worker.pid), worker.node, worker.chain, worker.slot, worker.state,
                 number_text(worker.mpps, 3), number_text(worker.packets_per_burst, 1),
                 std::to_string(worker.queue)});
  }
  workers.print(out);
}

void set(google::protobuf::Struct& row, const std::string& name, const std::string& value) {
  (*row.mutable_fields())[name].set_string_value(value);
}
void set(google::protobuf::Struct& row, const std::string& name, double value) {
  (*row.mutable_fields())[name].set_number_value(value);
}

void print_rates_json(std::ostream& out, const Rate& rate) {
  google::protobuf::Struct root;
  set(root, "at_s", rate.now.at_s());
  set(root, "interval_s", rate.interval_s());
  auto& chains = *(*root.mutable_fields())["chains"].mutable_list_value();
  for (const ChainRates& chain : chain_rates(rate)) {
    auto& row = *chains.add_values()->mutable_struct_value();
    set(row, "chain", chain.chain);
    set(row, "node", chain.node);
    set(row, "state", chain.state);
    set(row, "mpps", chain.mpps);
    set(row, "gbit_s", chain.gbit_s);
    set(row, "flows", static_cast<double>(chain.flows));
    set(row, "new_flows_s", chain.opened_s);
    set(row, "drops_s", chain.drops_s);
  }
  auto& workers = *(*root.mutable_fields())["workers"].mutable_list_value();
  for (const WorkerRates& worker : worker_rates(rate)) {
    auto& row = *workers.add_values()->mutable_struct_value();
    set(row, "pid", static_cast<double>(worker.pid));
    set(row, "node", worker.node);
    set(row, "chain", worker.chain);
    set(row, "slot", worker.slot);
    set(row, "state", worker.state);
    set(row, "mpps", worker.mpps);
    set(row, "packets_per_burst", worker.packets_per_burst);
    set(row, "queue", static_cast<double>(worker.queue));
  }
  print_json(out, root);
}

}  // namespace

int run_top(const Session& session) {
  v1::GetStatisticsRequest request;
  request.set_chain(session.line.value("--chain"));
  request.set_node(session.line.value("--node"));
  const double interval_s = session.line.has("--interval")
                                ? std::strtod(session.line.value("--interval").c_str(), nullptr)
                                : 1;
  const bool is_screen =
      ::isatty(STDOUT_FILENO) == 1 && !session.line.json() && !session.line.has("--once");
  auto before = session.connection.statistics(request);
  while (true) {
    if (!before) return report_failure(session.err, before.error());
    std::this_thread::sleep_for(std::chrono::duration<double>(interval_s));
    auto now = session.connection.statistics(request);
    if (!now) return report_failure(session.err, now.error());
    if (is_screen) session.out << kClearScreen;
    const Rate rate{*before, *now};
    session.line.json() ? print_rates_json(session.out, rate) : print_rates(session.out, rate);
    for (const std::string& node : now->unreachable_nodes())
      session.err << "node " << node << " is away\n";
    session.out.flush();
    if (session.line.has("--once")) return kExitOk;
    before = std::move(now);
  }
}

}  // namespace flowkeep
