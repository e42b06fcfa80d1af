#include "dataplane/function_report.h"

#include <algorithm>

#include "dataplane/agent_status.h"
#include "dataplane/chain_revision.h"
#include "dataplane/dead_letter.h"
#include "nfs/chain.h"
#include "nfs/firewall/linear_classifier.h"

namespace flowkeep {
namespace {

constexpr uint32_t kDefaultEvents = 1000;

std::vector<std::string> names_of(const node::v1::ChainRevision& revision) {
  const Result<ChainSpec> spec = chain_spec(revision);
  if (!spec) return {};
  FunctionContext context;
  context.make_classifier = [] { return std::make_unique<LinearClassifier>(); };
  const auto chain = Chain::build(*spec, context);
  return chain ? (*chain)->counter_names() : std::vector<std::string>{};
}

std::string name_of(const std::vector<std::string>& names, uint32_t number) {
  return number < names.size() ? names[number] : "#" + std::to_string(number);
}

void add_counters(const ChainCounters::Bank& bank, const std::vector<std::string>& names,
                  node::v1::FunctionReport& report) {
  for (uint32_t number = 0; number < names.size(); ++number) {
    node::v1::FunctionCounter& counter = *report.add_counters();
    counter.set_name(names[number]);
    counter.set_packets(bank.packets[number].load(std::memory_order_relaxed));
  }
}

void add_events(const EventRing& ring, uint64_t after, uint32_t revision,
                const std::vector<std::string>& names, node::v1::FunctionReport& report) {
  const uint64_t end = ring.end();
  uint64_t lost = ring.begin() > after && after != 0 ? ring.begin() - after : 0;
  for (uint64_t at = std::max(ring.begin(), after); at < end; ++at) {
    const auto event = ring.read(at);
    if (!event) {
      ++lost;
      continue;
    }
    if (event->revision != static_cast<uint16_t>(revision)) continue;
    node::v1::FunctionEvent& told = *report.add_events();
    told.set_at_s(event->at_s);
    told.set_name(name_of(names, event->counter));
    told.set_packet(flow_text(event->key));
    for (const uint64_t value : event->values) told.add_values(value);
  }
  report.add_after(end);
  report.set_events_lost(report.events_lost() + lost + ring.lost());
}

}  // namespace

std::vector<std::string> CounterNames::of(const std::string& chain, uint32_t revision) {
  const std::lock_guard lock(mutex_);
  Known& known = known_[chain];
  if (known.revision == revision) return known.names;
  std::vector<std::string> problems;
  for (const node::v1::ChainRevision& saved : load_revisions(state_dir_, problems)) {
    if (saved.chain() != chain || saved.revision() != revision) continue;
    known = {revision, names_of(saved)};
    return known.names;
  }
  return {};
}

Result<node::v1::FunctionReport> function_report(const Arena& arena, CounterNames& names,
                                                 const node::v1::FunctionReportRequest& request) {
  const int index = chain_index(arena, request.chain());
  if (index < 0)
    return Error{Error::Kind::kNotFound, "chain",
                 "\"" + request.chain() + "\" does not run on this node"};
  const ArenaHeader& header = arena.header();
  const uint32_t revision = header.chains[index].revision.load();
  const std::vector<std::string> known = names.of(request.chain(), revision);
  node::v1::FunctionReport report;
  report.set_revision(revision);
  if (const ChainCounters::Bank* bank = header.counters[index].find(revision))
    add_counters(*bank, known, report);
  int slots = 0;
  for (const WorkerSlot& slot : header.slots) {
    if (slot.in_use.load() == 0 || slot.chain.load() != static_cast<uint32_t>(index)) continue;
    const uint64_t after = slots < request.after_size() ? request.after(slots) : 0;
    ++slots;
    add_events(slot.events, after, revision, known, report);
  }
  std::stable_sort(report.mutable_events()->begin(), report.mutable_events()->end(),
                   [](const auto& a, const auto& b) { return a.at_s() < b.at_s(); });
  const int limit = static_cast<int>(request.limit() == 0 ? kDefaultEvents : request.limit());
  if (report.events_size() > limit)
    report.mutable_events()->DeleteSubrange(0, report.events_size() - limit);
  return report;
}

}  // namespace flowkeep
