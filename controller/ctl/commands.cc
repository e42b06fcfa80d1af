#include "controller/ctl/commands.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>

#include "controller/clock.h"
#include "controller/ctl/chain_yaml.h"
#include "controller/ctl/interrupts.h"
#include "controller/ctl/rule_warnings.h"
#include "controller/ctl/table.h"

namespace flowkeep {
namespace {

constexpr size_t kMaxFileBytes = 4'000'000;

double now_s() {
  return Clock().unix_s();
}

template <typename T>
std::string text(T number) {
  return std::to_string(number);
}

std::string or_dash(const std::string& value) {
  return value.empty() ? "-" : value;
}

template <typename Range>
std::string joined(const Range& range) {
  std::string all;
  for (const auto& item : range) all += (all.empty() ? "" : ",") + item;
  return or_dash(all);
}

uint64_t total(const google::protobuf::Map<std::string, uint64_t>& drops) {
  uint64_t sum = 0;
  for (const auto& [reason, packets] : drops) sum += packets;
  return sum;
}

std::string functions_text(const v1::ChainSpec& spec) {
  std::vector<std::string> types;
  for (const v1::Function& function : spec.functions()) types.push_back(function.type());
  return joined(types);
}

int usage_failure(const Session& session, const std::string& message) {
  session.err << "flowkeepctl: " << message << "; see flowkeepctl help\n";
  return kExitUsage;
}

void warn_unreachable(const Session& session,
                      const google::protobuf::RepeatedPtrField<std::string>& nodes) {
  for (const std::string& node : nodes)
    session.err << "flowkeepctl: node " << node << " is away; not shown\n";
}

// ---- apply, delete
// ----------------------------------------------------------------------------------

Result<std::string> read_file(const Session& session, const std::string& name) {
  std::ostringstream content;
  if (name == "-") {
    content << session.in.rdbuf();
  } else {
    std::ifstream file(name);
    if (!file) return invalid(name, "cannot be read");
    content << file.rdbuf();
    if (file.bad()) return invalid(name, "cannot be read");
  }
  if (content.str().size() > kMaxFileBytes) {
    return invalid(
        name, "is larger than the " + std::to_string(kMaxFileBytes) + " bytes that are accepted");
  }
  return content.str();
}

Result<std::vector<ChainDocument>> read_chains(const Session& session) {
  const std::string name = session.line.value("--file");
  const auto content = read_file(session, name);
  if (!content) return content.error();
  const auto read = [&session](const std::string& file) { return read_file(session, file); };
  return parse_chains(*content, name == "-" ? "standard input" : name, read);
}

const char* outcome_text(v1::ApplyChainResponse::Outcome outcome) {
  switch (outcome) {
    case v1::ApplyChainResponse::CREATED:
      return "created";
    case v1::ApplyChainResponse::CONFIGURED:
      return "configured";
    default:
      return "unchanged";
  }
}

void print_applied(const Session& session, const v1::ApplyChainResponse& response) {
  const v1::Chain& chain = response.chain();
  session.out << "chain/" << chain.name() << ' ' << outcome_text(response.outcome())
              << " (revision " << chain.revision() << ")";
  if (!chain.status().ready()) {
    session.out << "; " << chain.status().phase();
    if (!chain.status().message().empty()) session.out << ": " << chain.status().message();
  }
  session.out << '\n';
}

// What is questionable about the rules of a chain's firewalls, each with its place. Error: the
// controller will refuse one, at the place that the error names.
Result<std::vector<std::string>> rule_warnings(const ChainDocument& document) {
  std::vector<std::string> warnings;
  const v1::ChainSpec& spec = document.chain.spec();
  for (int i = 0; i < spec.functions_size(); ++i) {
    if (spec.functions(i).type() != "firewall") continue;
    const std::string path = "spec.functions[" + std::to_string(i) + "].config";
    const auto checked = check_firewall_rules(spec.functions(i).config(), path);
    if (!checked) {
      Error error = checked.error();
      error.field = document.place(error.text()) + error.field;
      return error;
    }
    for (const RuleWarning& warning : *checked)
      warnings.push_back(document.place(warning.field + ": ") + warning.text);
  }
  return warnings;
}

// Without a controller: what it would refuse of anything but firewall rules is not known here.
int run_check(const Session& session) {
  const std::string name = session.line.word(0);
  const auto content = read_file(session, name);
  if (!content) return report_failure(session.err, content.error());
  const auto read = [&session](const std::string& file) { return read_file(session, file); };
  const auto documents = parse_chains(*content, name, read);
  if (!documents) return report_failure(session.err, documents.error());
  size_t found = 0;
  for (const ChainDocument& document : *documents) {
    const auto warnings = rule_warnings(document);
    if (!warnings) return report_failure(session.err, warnings.error());
    for (const std::string& warning : *warnings) {
      session.out << warning << '\n';
      ++found;
    }
  }
  if (found == 0) session.out << name << ": every rule matters\n";
  return found == 0 ? kExitOk : kExitCheckFailed;
}

int run_apply(const Session& session) {
  if (!session.line.has("--file")) return usage_failure(session, "apply needs -f FILE");
  const auto documents = read_chains(session);  // all of them, before the first is sent
  if (!documents) return report_failure(session.err, documents.error());
  for (const ChainDocument& document : *documents) {
    if (const auto warnings = rule_warnings(document)) {  // what is refused is the controller's
      for (const std::string& warning : *warnings)
        session.err << "flowkeepctl: warning: " << warning << '\n';
    }
    const auto response = session.connection.apply(document.chain);
    if (!response) {
      Error error = response.error();
      if (error.kind == Error::Kind::kInvalid)
        error.message = document.place(error.message) + error.message;
      return report_failure(session.err, error);
    }
    if (session.line.json()) {
      print_json(session.out, *response);
    } else {
      print_applied(session, *response);
    }
  }
  return kExitOk;
}

int delete_one(const Session& session, const std::string& name) {
  const auto response = session.connection.remove(name);
  if (!response) return report_failure(session.err, response.error());
  if (session.line.json()) {
    print_json(session.out, *response);
    return kExitOk;
  }
  session.out << "chain/" << name << " deleted";
  if (!response->message().empty()) session.out << "; " << response->message();
  session.out << '\n';
  return kExitOk;
}

int run_delete(const Session& session) {
  if (session.line.has("--file")) {
    if (!session.line.word(0).empty())
      return usage_failure(session, "delete takes a chain's name or -f FILE");
    const auto documents = read_chains(session);
    if (!documents) return report_failure(session.err, documents.error());
    int code = kExitOk;
    for (const ChainDocument& document : *documents) {
      if (code == kExitOk) code = delete_one(session, document.chain.name());
    }
    return code;
  }
  const std::string kind = session.line.word(0);
  if ((kind != "chain" && kind != "chains") || session.line.word(1).empty()) {
    return usage_failure(session, "usage: flowkeepctl delete chain NAME, or delete -f FILE");
  }
  return delete_one(session, session.line.word(1));
}

// ---- get
// --------------------------------------------------------------------------------------------

void print_chains(std::ostream& out, const std::vector<v1::Chain>& chains) {
  if (chains.empty()) {
    out << "No chains. Deploy one with: flowkeepctl apply -f FILE\n";
    return;
  }
  Table table({"NAME", "NODE", ">REVISION", "PHASE", "FUNCTIONS", ">WORKERS", ">FLOWS",
               ">FORWARDED", ">DROPPED", "AGE"});
  for (const v1::Chain& chain : chains) {
    const v1::ChainStatus& status = chain.status();
    table.add({chain.name(), chain.spec().node(), text(chain.revision()), status.phase(),
               functions_text(chain.spec()), text(chain.spec().workers()), text(status.flows()),
               text(status.forwarded_packets()), text(total(status.drops())),
               age_text(chain.created_at_s(), now_s())});
  }
  table.print(out);
}

int get_chains(const Session& session) {
  std::vector<v1::Chain> chains;
  if (const std::string name = session.line.word(1); !name.empty()) {
    const auto chain = session.connection.chain(name);
    if (!chain) return report_failure(session.err, chain.error());
    if (session.line.json()) {
      print_json(session.out, *chain);
      return kExitOk;
    }
    chains.push_back(*chain);
  } else {
    const auto listed = session.connection.chains(session.line.value("--node"));
    if (!listed) return report_failure(session.err, listed.error());
    if (session.line.json()) {
      print_json(session.out, *listed);
      return kExitOk;
    }
    chains.assign(listed->chains().begin(), listed->chains().end());
  }
  print_chains(session.out, chains);
  return kExitOk;
}

void print_nodes(std::ostream& out, const std::vector<v1::Node>& nodes) {
  if (nodes.empty()) {
    out << "No nodes are registered.\n";
    return;
  }
  Table table({"NAME", "STATE", "MEDIUM", ">POOL", ">PAGES-FREE", "PORTS", "CHAINS", "UP", "AGE"});
  for (const v1::Node& node : nodes) {
    std::vector<std::string> ports;
    for (const v1::Port& port : node.ports()) ports.push_back(port.name());
    const v1::NodeStatus& status = node.status();
    const bool known = node.has_status();
    table.add({node.name(), node.alive() ? "alive" : "away", or_dash(node.medium()),
               known ? bytes_text(status.pool_bytes()) : "-",
               known ? text(status.pool_pages_free()) + "/" + text(status.pool_pages()) : "-",
               joined(ports), joined(node.chains()),
               node.alive() ? age_text(node.started_at_s(), now_s()) : "-",
               age_text(node.registered_at_s(), now_s())});
  }
  table.print(out);
  for (const v1::Node& node : nodes) {
    if (!node.message().empty()) out << node.name() << ": " << node.message() << '\n';
  }
}

int get_nodes(const Session& session) {
  std::vector<v1::Node> nodes;
  if (const std::string name = session.line.word(1); !name.empty()) {
    const auto node = session.connection.node(name);
    if (!node) return report_failure(session.err, node.error());
    if (session.line.json()) {
      print_json(session.out, *node);
      return kExitOk;
    }
    nodes.push_back(*node);
  } else {
    const auto listed = session.connection.nodes();
    if (!listed) return report_failure(session.err, listed.error());
    if (session.line.json()) {
      print_json(session.out, *listed);
      return kExitOk;
    }
    nodes.assign(listed->nodes().begin(), listed->nodes().end());
  }
  print_nodes(session.out, nodes);
  return kExitOk;
}

int get_workers(const Session& session) {
  v1::ListWorkersRequest request;
  request.set_chain(session.line.word(1).empty() ? session.line.value("--chain")
                                                 : session.line.word(1));
  request.set_node(session.line.value("--node"));
  const auto listed = session.connection.workers(request);
  if (!listed) return report_failure(session.err, listed.error());
  if (session.line.json()) {
    print_json(session.out, *listed);
    return kExitOk;
  }
  Table table({">PID", "NODE", "CHAIN", ">REVISION", "SLOT", "STATE", ">PACKETS", ">BURSTS",
               ">COMMITS", ">QUEUE"});
  for (const v1::Worker& worker : listed->workers()) {
    table.add({text(worker.pid()), worker.node(), worker.chain(), text(worker.revision()),
               worker.slot() < 0 ? "standby" : text(worker.slot()), worker.state(),
               text(worker.packets()), text(worker.bursts()), text(worker.commits()),
               text(worker.queue())});
  }
  if (table.empty()) {
    session.out << "No workers.\n";
  } else {
    table.print(session.out);
  }
  warn_unreachable(session, listed->unreachable_nodes());
  return kExitOk;
}

std::string event_line(const v1::Event& event) {
  std::string line = time_text(event.at_s()) + "  " + event.kind();
  if (!event.node().empty()) line += "  node/" + event.node();
  if (!event.chain().empty()) line += "  chain/" + event.chain();
  if (!event.message().empty()) line += "  " + event.message();
  return line;
}

int get_events(const Session& session, const std::string& chain) {
  v1::ListEventsRequest request;
  request.set_chain(chain);
  request.set_limit(session.line.number("--limit", 100));
  const auto listed = session.connection.events(request);
  if (!listed) return report_failure(session.err, listed.error());
  if (session.line.json()) {
    print_json(session.out, *listed);
    return kExitOk;
  }
  Table table({"AGE", "KIND", "NODE", "CHAIN", "MESSAGE"});
  for (const v1::Event& event : listed->events()) {
    table.add({age_text(event.at_s(), now_s()), event.kind(), or_dash(event.node()),
               or_dash(event.chain()), event.message()});
  }
  if (table.empty()) {
    session.out << "No events.\n";
  } else {
    table.print(session.out);
  }
  return kExitOk;
}

int run_get(const Session& session) {
  const std::string kind = session.line.word(0);
  if (kind == "chains" || kind == "chain") return get_chains(session);
  if (kind == "nodes" || kind == "node") return get_nodes(session);
  if (kind == "workers" || kind == "worker") return get_workers(session);
  if (kind == "events" || kind == "event") {
    return get_events(session, session.line.word(1).empty() ? session.line.value("--chain")
                                                            : session.line.word(1));
  }
  return usage_failure(session,
                       "there are no \"" + kind + "\"; accepted: chains, nodes, workers, events");
}

int run_events(const Session& session) {
  if (!session.line.has("--watch")) return get_events(session, session.line.value("--chain"));
  v1::WatchEventsRequest request;
  request.set_chain(session.line.value("--chain"));
  const Error ended = session.connection.watch_events(request, [&](const v1::Event& event) {
    if (session.line.json()) {
      print_json(session.out, event);
    } else {
      session.out << event_line(event) << '\n';
    }
    session.out.flush();
  });
  return report_failure(session.err, ended);
}

// ---- describe
// ---------------------------------------------------------------------------------------

// "  name:        value" lines.
class Facts {
 public:
  explicit Facts(std::ostream& out) : out_(out) {}
  void add(const std::string& name, const std::string& value) {
    constexpr size_t kWidth = 20;
    out_ << name << ':' << std::string(kWidth > name.size() ? kWidth - name.size() : 1, ' ')
         << or_dash(value) << '\n';
  }
  void add_drops(const google::protobuf::Map<std::string, uint64_t>& drops) {
    add("Dropped", text(total(drops)) + " packets");
    const std::map<std::string, uint64_t> sorted(drops.begin(), drops.end());
    for (const auto& [reason, packets] : sorted) {
      if (packets != 0) add("  " + reason, text(packets));
    }
  }

 private:
  std::ostream& out_;
};

void describe_chain(std::ostream& out, const v1::Chain& chain) {
  Facts facts(out);
  const v1::ChainStatus& status = chain.status();
  facts.add("Name", chain.name());
  facts.add("Node", chain.spec().node());
  facts.add("Phase", status.phase() + (status.message().empty() ? "" : ": " + status.message()));
  facts.add("Revision",
            text(chain.revision()) + ", the node runs " +
                (status.running_revision() == 0 ? "none" : text(status.running_revision())));
  facts.add("Created", time_text(chain.created_at_s()));
  facts.add("Updated", time_text(chain.updated_at_s()));
  facts.add("Ports", chain.spec().inside() + " (inside), " + chain.spec().outside() + " (outside)");
  facts.add("Workers", text(chain.spec().workers()));
  facts.add("Buckets", text(chain.spec().buckets()));
  facts.add("Flows", text(status.flows()) + " open, " + text(status.opened_flows()) + " opened");
  facts.add("Forwarded",
            text(status.forwarded_packets()) + " packets, " + bytes_text(status.forwarded_bytes()));
  facts.add_drops(status.drops());
  facts.add("Worker deaths",
            text(status.worker_deaths()) + ", failovers " + text(status.failovers()));
  for (const v1::Function& function : chain.spec().functions()) {
    out << "Function " << function.type() << ":\n";
    print_json(out, function.config());
  }
}

// Counters that have counted, the greatest first.
void describe_counters(std::ostream& out, const v1::FunctionReport& report) {
  std::vector<v1::FunctionCounter> counters(report.counters().begin(), report.counters().end());
  std::erase_if(counters, [](const auto& counter) { return counter.packets() == 0; });
  std::stable_sort(counters.begin(), counters.end(),
                   [](const auto& a, const auto& b) { return a.packets() > b.packets(); });
  constexpr size_t kShown = 50;
  out << "Counters of revision " << report.revision() << ", of " << report.counters_size()
      << " the " << std::min(kShown, counters.size()) << " greatest:\n";
  Table table({"NAME", ">PACKETS"});
  for (size_t i = 0; i < std::min(kShown, counters.size()); ++i)
    table.add({counters[i].name(), text(counters[i].packets())});
  table.print(out);
}

// What the chain's functions told; --watch goes on.
int run_logs(const Session& session) {
  v1::FunctionReportRequest request;
  request.set_chain(session.line.word(0));
  request.set_limit(session.line.number("--limit", 100));
  for (;;) {
    const auto report = session.connection.functions(request);
    if (!report) return report_failure(session.err, report.error());
    for (const v1::FunctionEvent& event : report->events()) {
      if (session.line.json()) {
        print_json(session.out, event);
        continue;
      }
      session.out << time_text(event.at_s()) << "  " << event.name() << "  " << event.packet();
      for (const uint64_t value : event.values())
        if (value != 0) session.out << "  " << value;
      session.out << '\n';
    }
    if (request.after_size() > 0 && report->events_lost() > 0)
      session.err << "flowkeepctl: " << report->events_lost() << " events are lost\n";
    if (!session.line.has("--watch")) return kExitOk;
    session.out.flush();
    *request.mutable_after() = report->after();
    request.set_limit(0);
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
}

void describe_node(std::ostream& out, const v1::Node& node) {
  Facts facts(out);
  const v1::NodeStatus& status = node.status();
  facts.add("Name", node.name());
  facts.add("State", std::string(node.alive() ? "alive" : "away") +
                         (node.message().empty() ? "" : ": " + node.message()));
  facts.add("Agent", node.agent_address());
  facts.add("Version", node.version());
  facts.add("Started", node.started_at_s() > 0 ? time_text(node.started_at_s()) : "");
  facts.add("Registered", time_text(node.registered_at_s()));
  facts.add("Last heartbeat", age_text(node.last_heartbeat_s(), now_s()) +
                                  (node.last_heartbeat_s() > 0 ? " ago" : ""));
  facts.add("Medium",
            node.medium() +
                (node.medium_survives().empty() ? "" : ": survives " + node.medium_survives()));
  facts.add("Chains", joined(node.chains()));
  if (node.has_status()) {
    facts.add("Persistence", status.persistence());
    facts.add("Packet memory", status.packet_memory());
    facts.add("Pool", bytes_text(status.pool_bytes()) + ", " + text(status.pool_pages_free()) +
                          " of " + text(status.pool_pages()) + " pages free");
    facts.add("Packets",
              text(status.packets_free()) + " of " + text(status.packets_total()) + " free");
    facts.add("Processes", "supervisor " + text(status.supervisor_pid()) + ", switch " +
                               text(status.switch_pid()) + " (" + text(status.switch_restarts()) +
                               " restarts), " + text(status.workers_size()) + " workers");
  }
  out << "Ports:\n";
  Table table({"NAME", "ROLE", "DEVICE", "ADDRESSES"});
  for (const v1::Port& port : node.ports()) {
    table.add(
        {port.name(), or_dash(port.role()), or_dash(port.device()), joined(port.addresses())});
  }
  table.print(out);
}

int run_describe(const Session& session) {
  const std::string kind = session.line.word(0);
  if (kind == "chain" || kind == "chains") {
    const auto chain = session.connection.chain(session.line.word(1));
    if (!chain) return report_failure(session.err, chain.error());
    if (session.line.json()) {
      print_json(session.out, *chain);
      return kExitOk;
    }
    describe_chain(session.out, *chain);
    v1::FunctionReportRequest request;
    request.set_chain(chain->name());
    request.set_limit(1);
    // A node that is away has none to show; the phase says so.
    if (const auto report = session.connection.functions(request))
      describe_counters(session.out, *report);
    return kExitOk;
  }
  if (kind == "node" || kind == "nodes") {
    const auto node = session.connection.node(session.line.word(1));
    if (!node) return report_failure(session.err, node.error());
    session.line.json() ? print_json(session.out, *node) : describe_node(session.out, *node);
    return kExitOk;
  }
  return usage_failure(session, "cannot describe \"" + kind + "\"; accepted: chain, node");
}

// ---- flows, stats
// -----------------------------------------------------------------------------------

int run_flows(const Session& session) {
  v1::ListFlowsRequest request;
  request.set_chain(session.line.word(0).empty() ? session.line.value("--chain")
                                                 : session.line.word(0));
  request.set_filter(session.line.value("--filter"));
  request.set_limit(session.line.number("--limit", 0));
  const auto listed = session.connection.flows(request);
  if (!listed) return report_failure(session.err, listed.error());
  if (session.line.json()) {
    print_json(session.out, *listed);
    return kExitOk;
  }
  Table table({"PROTOCOL", "INSIDE", "DESTINATION", "EXTERNAL", "PHASE", ">BUCKET", ">REVISION",
               "AGE", "IDLE"});
  for (const v1::Flow& flow : listed->flows()) {
    table.add({flow.protocol(), flow.inside_source(), flow.destination(), flow.external(),
               flow.phase(), text(flow.bucket()), text(flow.revision()),
               age_text(static_cast<double>(flow.opened_at_s()), now_s()),
               age_text(static_cast<double>(flow.last_seen_s()), now_s())});
  }
  if (table.empty()) {
    session.out << "No flows.\n";
  } else {
    table.print(session.out);
  }
  if (listed->truncated())
    session.err << "flowkeepctl: there are more flows; see --limit and --filter\n";
  return kExitOk;
}

void print_drops(std::ostream& out, const std::string& title,
                 const google::protobuf::Map<std::string, uint64_t>& drops) {
  Table table({title, ">PACKETS"});
  const std::map<std::string, uint64_t> sorted(drops.begin(), drops.end());
  for (const auto& [reason, packets] : sorted) {
    if (packets != 0) table.add({reason, text(packets)});
  }
  if (table.empty()) return;
  out << '\n';
  table.print(out);
}

void print_node_statistics(std::ostream& out, const v1::NodeStatus& node) {
  out << "NODE " << node.name() << "   pool pages free " << node.pool_pages_free() << '/'
      << node.pool_pages() << "   packets free " << node.packets_free() << '/'
      << node.packets_total() << "   switch restarts " << node.switch_restarts() << "\n\n";
  Table chains({"CHAIN", ">REVISION", "STATE", ">FLOWS", ">OPENED", ">PACKETS", ">BYTES",
                ">DROPPED", ">DEATHS", ">FAILOVERS"});
  for (const v1::ChainCounters& chain : node.chains()) {
    chains.add({chain.chain(), text(chain.revision()), chain.state(), text(chain.flows()),
                text(chain.opened_flows()), text(chain.forwarded_packets()),
                text(chain.forwarded_bytes()), text(total(chain.drops())),
                text(chain.worker_deaths()), text(chain.failovers())});
  }
  chains.print(out);
  out << '\n';
  Table ports(
      {"PORT", "ROLE", "LINK", ">RX-PACKETS", ">RX-BYTES", ">TX-PACKETS", ">TX-BYTES", ">DROPPED"});
  for (const v1::PortStatus& port : node.ports()) {
    ports.add({port.name(), or_dash(port.role()), port.link_up() ? "up" : "down",
               text(port.rx_packets()), text(port.rx_bytes()), text(port.tx_packets()),
               text(port.tx_bytes()), text(total(port.drops()))});
  }
  ports.print(out);
  for (const v1::ChainCounters& chain : node.chains())
    print_drops(out, "DROPPED BY CHAIN " + chain.chain(), chain.drops());
  for (const v1::PortStatus& port : node.ports())
    print_drops(out, "DROPPED AT PORT " + port.name(), port.drops());
}

int run_stats(const Session& session) {
  v1::GetStatisticsRequest request;
  request.set_chain(session.line.word(0).empty() ? session.line.value("--chain")
                                                 : session.line.word(0));
  request.set_node(session.line.value("--node"));
  const auto statistics = session.connection.statistics(request);
  if (!statistics) return report_failure(session.err, statistics.error());
  if (session.line.json()) {
    print_json(session.out, *statistics);
    return kExitOk;
  }
  bool first = true;
  for (const v1::NodeStatus& node : statistics->nodes()) {
    if (!first) session.out << '\n';
    first = false;
    print_node_statistics(session.out, node);
  }
  if (first) session.out << "No node reports statistics.\n";
  warn_unreachable(session, statistics->unreachable_nodes());
  return kExitOk;
}

}  // namespace

int report_failure(std::ostream& err, const Error& error) {
  err << "flowkeepctl: " << error.text() << '\n';
  switch (error.kind) {
    case Error::Kind::kInvalid:
    case Error::Kind::kExists:
      return kExitRefused;
    case Error::Kind::kNotFound:
      return kExitNotFound;
    case Error::Kind::kUnavailable:
      return kExitUnreachable;
    case Error::Kind::kInternal:
      break;
  }
  return kExitFailed;
}

void print_json(std::ostream& out, const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(message, &json, options).ok()) json = "{}\n";
  out << json;
}

int run_flowkeepctl(const std::vector<std::string>& arguments,
                    const std::string& environment_controller, std::istream& in, std::ostream& out,
                    std::ostream& err) {
  const auto line = CommandLine::parse(arguments, environment_controller);
  if (!line) {
    err << "flowkeepctl: " << line.error().text() << '\n';
    return kExitUsage;
  }
  if (line->command() == "help") {
    out << help_text();
    return kExitOk;
  }
  if (line->command() == "version") {
    out << "flowkeepctl " << FLOWKEEP_VERSION << '\n';
    return kExitOk;
  }
  static const std::map<std::string, int (*)(const Session&)> kRuns = {
      {"apply", run_apply}, {"check", run_check},       {"logs", run_logs},
      {"get", run_get},     {"describe", run_describe}, {"delete", run_delete},
      {"top", run_top},     {"flows", run_flows},       {"stats", run_stats},
      {"drill", run_drill}, {"events", run_events},
  };
  if (line->command() == "drill") hold_interrupts();
  Connection connection(line->controller(), line->timeout());
  return kRuns.at(line->command())({*line, connection, in, out, err});
}

}  // namespace flowkeep
