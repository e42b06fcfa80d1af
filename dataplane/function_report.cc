#include "dataplane/function_report.h"

#include <algorithm>
#include <optional>

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

// How far a reader has come in a slot's ring: two numbers of a report's `after`.
struct Read {
  uint64_t position = 0;
  uint64_t lost = 0;  // EventRing::lost() that he has been told of
};
constexpr int kNumbersOfRead = 2;

// Of the slot that is the n-th of the chain. Nothing: he asks for the first time.
std::optional<Read> read_so_far(const node::v1::FunctionReportRequest& request, int slot) {
  const int at = slot * kNumbersOfRead;
  if (at + kNumbersOfRead > request.after_size()) return std::nullopt;
  return Read{request.after(at), request.after(at + 1)};
}

void add_events(const EventRing& ring, std::optional<Read> before, uint32_t revision,
                const std::vector<std::string>& names, node::v1::FunctionReport& report) {
  const uint64_t begin = ring.begin(), end = ring.end(), never_kept = ring.lost();
  // Beyond the end: the node has started anew.
  const uint64_t after = before && before->position <= end ? before->position : begin;
  uint64_t lost = begin > after ? begin - after : 0;
  // Less than before: the ring has begun anew.
  lost += before && before->lost <= never_kept ? never_kept - before->lost : never_kept;
  for (uint64_t at = std::max(begin, after); at < end; ++at) {
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
  report.add_after(never_kept);
  report.set_events_lost(report.events_lost() + lost);
}

// The oldest are left out. Who asks for what came after an earlier report has lost them.
void keep_latest(uint32_t limit, bool is_first, node::v1::FunctionReport& report) {
  const auto count = static_cast<uint32_t>(report.events_size());
  if (count <= limit) return;
  const uint32_t beyond = count - limit;
  report.mutable_events()->DeleteSubrange(0, static_cast<int>(beyond));
  if (!is_first) report.set_events_lost(report.events_lost() + beyond);
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
    add_events(slot.events, read_so_far(request, slots++), revision, known, report);
  }
  std::stable_sort(report.mutable_events()->begin(), report.mutable_events()->end(),
                   [](const auto& a, const auto& b) { return a.at_s() < b.at_s(); });
  keep_latest(request.limit() == 0 ? kDefaultEvents : request.limit(), request.after().empty(),
              report);
  return report;
}

}  // namespace flowkeep
