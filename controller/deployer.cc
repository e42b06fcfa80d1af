#include "controller/deployer.h"

#include <google/protobuf/util/message_differencer.h>

#include <algorithm>

namespace flowkeep {
namespace {

using google::protobuf::util::MessageDifferencer;

constexpr std::chrono::seconds kChangeWait{60};
constexpr std::chrono::milliseconds kStatusDeadline{1'000};

std::string revision_text(uint32_t revision) {
  return "revision " + std::to_string(revision);
}

Error not_found(const std::string& name) {
  return {Error::Kind::kNotFound, "", "there is no chain \"" + name + "\""};
}

const StoredChain* find_chain(const std::vector<StoredChain>& chains, const std::string& name) {
  const auto found = std::find_if(chains.begin(), chains.end(),
                                  [&](const StoredChain& chain) { return chain.name == name; });
  return found == chains.end() ? nullptr : &*found;
}

void copy_counters(const v1::ChainCounters& counters, v1::ChainStatus& status) {
  status.set_running_revision(counters.revision());
  status.set_slots(counters.slots());
  status.set_flows(counters.flows());
  status.set_forwarded_packets(counters.forwarded_packets());
  status.set_forwarded_bytes(counters.forwarded_bytes());
  *status.mutable_drops() = counters.drops();
  status.set_worker_deaths(counters.worker_deaths());
  status.set_failovers(counters.failovers());
  status.set_opened_flows(counters.opened_flows());
  status.set_given_up_revision(counters.given_up_revision());
}

// Did the node go back from the stored revision by itself? Then it is not asked again to run it.
bool was_given_up(const StoredChain& chain, const v1::ChainCounters* counters) {
  return counters != nullptr && counters->given_up_revision() == chain.revision;
}

std::string given_up_text(const v1::ChainCounters& counters) {
  return revision_text(counters.given_up_revision()) + " was given up (" +
         counters.given_up_reason() + "); " + revision_text(counters.revision()) + " runs";
}

void set_phase(v1::ChainStatus& status, const std::string& phase, const std::string& message) {
  status.set_phase(phase);
  status.set_message(message);
  status.set_ready(phase == "Ready");
}

}  // namespace

v1::ChainStatus chain_status(const StoredChain& chain, const NodeView* node,
                             const std::string& failure) {
  v1::ChainStatus status;
  status.set_node(chain.spec.node());
  const v1::ChainCounters* counters = node == nullptr ? nullptr : node->counters(chain.name);
  if (counters != nullptr) copy_counters(*counters, status);
  if (node != nullptr) status.set_as_of_s(node->status_at_s);
  const bool runs = counters != nullptr && counters->revision() == chain.revision;

  if (node == nullptr || !node->alive) {
    set_phase(status, "Pending", "node " + chain.spec.node() + " is away; applied when it returns");
  } else if (!node->status && !node->trouble.empty()) {
    set_phase(status, "Pending", node->trouble);
  } else if (!failure.empty() && !runs) {
    set_phase(status, "Failed", failure);
  } else if (counters == nullptr) {
    set_phase(status, "Pending", "not on the node yet");
  } else if (was_given_up(chain, counters)) {
    set_phase(status, "Degraded", given_up_text(*counters));
  } else if (!runs) {
    set_phase(status, "Starting", "the node still runs " + revision_text(counters->revision()));
  } else if (counters->state().starts_with("degraded")) {
    const size_t colon = counters->state().find(": ");
    set_phase(status, "Degraded",
              colon == std::string::npos ? "" : counters->state().substr(colon + 2));
  } else if (counters->state() == "starting") {
    set_phase(status, "Starting", "");
  } else {
    set_phase(status, "Ready", "");
  }
  return status;
}

v1::Chain Deployer::describe(const StoredChain& stored) const {
  v1::Chain chain;
  chain.set_name(stored.name);
  *chain.mutable_spec() = stored.spec;
  chain.set_revision(stored.revision);
  chain.set_created_at_s(stored.created_at_s);
  chain.set_updated_at_s(stored.updated_at_s);
  std::string failure;
  {
    const std::scoped_lock lock(failures_mutex_);
    const auto found = failures_.find(stored.name);
    if (found != failures_.end() && found->second.revision == stored.revision)
      failure = found->second.message;
  }
  const auto node = fleet_.node(stored.spec.node());
  *chain.mutable_status() = chain_status(stored, node ? &*node : nullptr, failure);
  return chain;
}

void Deployer::record(const std::string& node, const std::string& kind, const std::string& chain,
                      const std::string& message) {
  v1::Event event;
  event.set_at_s(clock_.unix_s());
  event.set_node(node);
  event.set_kind(kind);
  event.set_chain(chain);
  event.set_message(message);
  (void)store_.add_event(
      event);  // an event lost to a full disk must not undo the change it tells of
  changed_.raise();
}

// ---- Changes
// ----------------------------------------------------------------------------------------

Result<StoredChain> Deployer::prepare(ChangeKind kind, const v1::Chain& wanted,
                                      const std::optional<StoredChain>& current) {
  auto valid = check_name("name", wanted.name());
  if (!valid) return valid.error();
  if (kind == ChangeKind::kCreate && current) {
    return Error{Error::Kind::kExists, "name", "chain \"" + wanted.name() + "\" exists already"};
  }
  if (kind == ChangeKind::kUpdate && !current) return not_found(wanted.name());
  const uint32_t current_revision = current ? current->revision : 0;
  if (wanted.revision() != 0 && wanted.revision() != current_revision) {
    return unavailable("revision", "the change is based on " + revision_text(wanted.revision()) +
                                       ", but the chain has " + revision_text(current_revision));
  }
  std::vector<v1::RegisterRequest> nodes;
  for (const NodeView& node : fleet_.nodes()) nodes.push_back(node.registration);
  auto spec = complete_spec(wanted.spec(), current ? current->spec.node() : "", nodes);
  if (!spec) return spec.error();
  StoredChain chain{wanted.name(), std::move(*spec), current_revision, 0, clock_.unix_s()};
  chain.created_at_s = current ? current->created_at_s : chain.updated_at_s;
  const auto others = store_.chains();
  if (!others) return others.error();
  const auto node = fleet_.node(chain.spec.node());
  valid = check_chain(chain, node->registration, *others, functions_);
  if (!valid) return valid.error();
  return chain;
}

Result<v1::ApplyChainResponse> Deployer::change(ChangeKind kind, const v1::Chain& wanted) {
  const std::unique_lock lock(changing_, kChangeWait);
  if (!lock.owns_lock()) return unavailable("", "other changes are still in progress; try again");
  const auto current = store_.chain(wanted.name());
  if (!current) return current.error();
  auto chain = prepare(kind, wanted, *current);
  if (!chain) return chain.error();

  v1::ApplyChainResponse response;
  if (*current && MessageDifferencer::Equals((*current)->spec, chain->spec)) {
    const auto running = ensure_running(**current);
    if (!running) return running.error();
    response.set_outcome(v1::ApplyChainResponse::UNCHANGED);
    *response.mutable_chain() = describe(**current);
    return response;
  }
  const auto deployed = deploy(*chain, *current);
  if (!deployed) return deployed.error();
  response.set_outcome(*current ? v1::ApplyChainResponse::CONFIGURED
                                : v1::ApplyChainResponse::CREATED);
  *response.mutable_chain() = describe(*chain);
  return response;
}

Result<void> Deployer::deploy(StoredChain& chain, const std::optional<StoredChain>& current) {
  const auto node = fleet_.node(chain.spec.node());
  const v1::ChainCounters* running = node->counters(chain.name);
  const auto revision =
      store_.next_revision(chain.name, running == nullptr ? 0 : running->revision());
  if (!revision) return revision.error();
  chain.revision = *revision;
  if (node->alive) {
    auto done = store_.reserve_revision(chain.name, chain.revision, chain.updated_at_s);
    if (!done) return done;
    done = apply_on_node(*node, chain);
    if (!done && done.error().kind == Error::Kind::kInvalid) {
      (void)store_.release_revision(chain.name, chain.revision);
    }
    // An unreachable node is a node that is away, found out earlier than by its lease.
    if (!done && done.error().kind != Error::Kind::kUnavailable) return done;
  }
  const auto stored = store_.put_chain(chain);
  if (!stored) return stored;
  {
    const std::scoped_lock lock(failures_mutex_);
    failures_.erase(chain.name);
  }
  record(chain.spec.node(), current ? "chain_updated" : "chain_created", chain.name,
         revision_text(chain.revision));
  if (current && current->spec.node() != chain.spec.node()) {
    const auto left = fleet_.node(current->spec.node());
    if (left && left->alive && left->link->remove(chain.name, kNodeDeadline).ok()) refresh(*left);
  }
  return {};
}

Result<void> Deployer::ensure_running(const StoredChain& chain) {
  auto node = fleet_.node(chain.spec.node());
  if (!node->alive) return {};
  refresh(*node);
  node = fleet_.node(chain.spec.node());
  const v1::ChainCounters* counters = node->counters(chain.name);
  if (counters != nullptr && counters->revision() == chain.revision) return {};
  if (was_given_up(chain, counters)) {
    return unavailable(
        "spec", given_up_text(*counters) + "; apply a changed specification to try another one");
  }
  const auto applied = apply_on_node(*node, chain);
  if (!applied && applied.error().kind != Error::Kind::kUnavailable) return applied;
  return {};
}

Result<void> Deployer::apply_on_node(const NodeView& node, const StoredChain& chain) {
  const auto applied = node.link->apply(chain, kNodeDeadline);
  if (applied) {
    const std::scoped_lock lock(failures_mutex_);
    failures_.erase(chain.name);
  }
  refresh(node);
  return applied;
}

void Deployer::refresh(const NodeView& node) {
  fleet_.note_status(node.name(), node.link->status(kStatusDeadline));
  changed_.raise();
}

Result<std::string> Deployer::remove(const std::string& name) {
  const std::unique_lock lock(changing_, kChangeWait);
  if (!lock.owns_lock()) return unavailable("", "other changes are still in progress; try again");
  const auto current = store_.chain(name);
  if (!current) return current.error();
  std::vector<NodeView> running;
  for (const NodeView& node : fleet_.nodes()) {
    const bool assigned = *current && (*current)->spec.node() == node.name();
    if (assigned || node.counters(name) != nullptr) running.push_back(node);
  }
  if (!*current && running.empty()) return not_found(name);
  std::string waiting;
  for (const NodeView& node : running) {
    const auto removed = node.alive ? node.link->remove(name, kNodeDeadline) : unavailable("", "");
    if (!removed && removed.error().kind != Error::Kind::kUnavailable) return removed.error();
    if (!removed)
      waiting = "node " + node.name() + " is away; it removes the chain when it returns";
    if (removed) refresh(node);
  }
  const auto deleted = store_.delete_chain(name, clock_.unix_s());
  if (!deleted) return deleted.error();
  {
    const std::scoped_lock failures_lock(failures_mutex_);
    failures_.erase(name);
  }
  record(*current ? (*current)->spec.node() : running.front().name(), "chain_deleted", name,
         waiting);
  return waiting;
}

// ---- Reading
// ----------------------------------------------------------------------------------------

Result<v1::Chain> Deployer::get(const std::string& name) {
  const auto chain = store_.chain(name);
  if (!chain) return chain.error();
  if (!*chain) return not_found(name);
  return describe(**chain);
}

Result<std::vector<v1::Chain>> Deployer::list(const std::string& node) {
  const auto stored = store_.chains();
  if (!stored) return stored.error();
  std::vector<v1::Chain> chains;
  for (const StoredChain& chain : *stored) {
    if (node.empty() || chain.spec.node() == node) chains.push_back(describe(chain));
  }
  return chains;
}

// ---- Reconciling
// ------------------------------------------------------------------------------------

bool Deployer::is_due(const StoredChain& chain) {
  const std::scoped_lock lock(failures_mutex_);
  const auto failed = failures_.find(chain.name);
  return failed == failures_.end() || failed->second.revision != chain.revision ||
         failed->second.retry_at_s <= clock_.steady_s();
}

void Deployer::note_failure(const StoredChain& chain, const std::string& message) {
  bool persists = false;
  {
    const std::scoped_lock lock(failures_mutex_);
    Failure& failure = failures_[chain.name];
    if (failure.revision != chain.revision || failure.message != message) {
      failure = {chain.revision, message, 0, 0, 0};
    }
    failure.wait_s =
        failure.attempts == 0 ? kFirstRetry_s : std::min(2 * failure.wait_s, kLastRetry_s);
    failure.retry_at_s = clock_.steady_s() + failure.wait_s;
    persists = ++failure.attempts == 2;
  }
  // The first may only mean that the node, just started, is bringing the chain up by itself.
  if (persists) record(chain.spec.node(), "chain_failed", chain.name, message);
}

bool Deployer::differs(const NodeView& node, const std::vector<StoredChain>& desired) {
  for (const StoredChain& chain : desired) {
    if (chain.spec.node() != node.name()) continue;
    const v1::ChainCounters* counters = node.counters(chain.name);
    if ((counters == nullptr || counters->revision() != chain.revision) &&
        !was_given_up(chain, counters) && is_due(chain))
      return true;
  }
  for (const v1::ChainCounters& counters : node.status->chains()) {
    const StoredChain* chain = find_chain(desired, counters.chain());
    if (chain == nullptr || chain->spec.node() != node.name()) return true;
  }
  return false;
}

void Deployer::reconcile(const std::string& name) {
  {
    const auto node = fleet_.node(name);
    const auto desired = store_.chains();
    if (!node || !node->alive || !node->status || !desired || !differs(*node, *desired)) return;
  }
  // A change in progress explains the difference, or will be found a second later.
  const std::unique_lock lock(changing_, std::try_to_lock);
  if (!lock.owns_lock()) return;
  const auto outdated = fleet_.node(name);
  if (outdated) refresh(*outdated);
  const auto node = fleet_.node(name);
  const auto desired = store_.chains();
  if (!node || !node->alive || !node->status || !desired) return;
  remove_strays(*node, *desired);  // first: they may hold ports that a desired chain needs
  reconcile_chains(*node, *desired);
}

void Deployer::reconcile_chains(const NodeView& node, const std::vector<StoredChain>& desired) {
  for (const StoredChain& chain : desired) {
    if (chain.spec.node() != node.name()) continue;
    const v1::ChainCounters* counters = node.counters(chain.name);
    if (counters != nullptr && counters->revision() == chain.revision) continue;
    if (was_given_up(chain, counters)) continue;
    if (!is_due(chain)) continue;
    const auto applied = apply_on_node(node, chain);
    if (!applied) note_failure(chain, applied.error().text());
  }
}

void Deployer::remove_strays(const NodeView& node, const std::vector<StoredChain>& desired) {
  for (const v1::ChainCounters& counters : node.status->chains()) {
    const StoredChain* chain = find_chain(desired, counters.chain());
    if (chain != nullptr && chain->spec.node() == node.name()) continue;
    const auto known = store_.knows_chain_name(counters.chain());
    if (!known || !*known) continue;
    if (node.link->remove(counters.chain(), kNodeDeadline).ok()) refresh(node);
  }
}

}  // namespace flowkeep
