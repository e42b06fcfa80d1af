// Chains: applying a revision, handing the chain's slots over to it, removing a chain.
//
// A revision is built by a zygote of its own while the running one serves. Then each slot's worker
// is asked to leave; when it has, a worker of the new revision occupies the slot and goes on where
// the slot stands, with the packets that waited in its inbox. Nothing is moved, so nothing can be
// lost or reordered.
#include <fcntl.h>
#include <google/protobuf/util/message_differencer.h>
#include <rte_cycles.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "dataplane/agent.h"
#include "dataplane/chain_history.h"
#include "dataplane/chain_revision.h"
#include "dataplane/supervisor/supervisor.h"
#include "dataplane/worker.h"
#include "state/layout_table.h"

namespace flowkeep {
namespace {

constexpr uint32_t kDefaultBuckets = 256;
constexpr double kLeavePatienceUs = 2'000'000;
uint32_t wanted_slots(const node::v1::ChainRevision& revision) {
  return std::max(revision.workers(), 1U);
}
uint32_t wanted_buckets(const node::v1::ChainRevision& revision) {
  return revision.buckets() == 0 ? kDefaultBuckets : revision.buckets();
}

}  // namespace

void Supervisor::on_agent_request() {
  if (!receive_frames(agent_socket_, agent_input_, Wait::kNot))
    return;  // the agent's death is noticed by its pidfd
  while (std::optional<std::string> frame = take_frame(agent_input_)) {
    node::internal::Request request;
    if (request.ParseFromString(*frame)) handle(request);
  }
}

void Supervisor::handle(const node::internal::Request& request) {
  switch (request.what_case()) {
    case node::internal::Request::kApply:
      return apply(request.id(), request.apply().revision());
    case node::internal::Request::kRemove:
      return remove(request.id(), request.remove().chain());
    case node::internal::Request::kHang:
      return hang_worker(request.id(), request.hang());
    case node::internal::Request::WHAT_NOT_SET:
      return reply_error(request.id(), internal_error("request", "is empty"));
  }
}

Supervisor::ChainState* Supervisor::find_chain(const std::string& name) {
  for (auto& [index, chain] : chains_) {
    if (chain.name == name) return &chain;
  }
  return nullptr;
}

void Supervisor::apply(uint64_t request, const node::v1::ChainRevision& revision) {
  if (Result<void> checked = check_revision(revision, config_); !checked)
    return reply_error(request, checked.error());
  ChainState* chain = find_chain(revision.chain());
  if (chain == nullptr) {
    const auto free_index = [this] {
      uint32_t index = 0;
      while (chains_.contains(index)) ++index;
      return index;
    }();
    if (free_index >= kMaxChains) {
      return reply_error(
          request,
          unavailable("metadata.name", "node \"" + config_.name + "\" holds " +
                                           std::to_string(kMaxChains) + " chains, its limit"));
    }
    ChainState fresh;
    fresh.name = revision.chain();
    fresh.index = free_index;
    if (Result<void> ready = prepare_new_chain(fresh, revision); !ready)
      return reply_error(request, ready.error());
    chain = &chains_.emplace(free_index, std::move(fresh)).first->second;
  } else {
    if (chain->next || chain->removing || chain->moving) {
      return reply_error(request,
                         unavailable("metadata.name",
                                     "chain \"" + chain->name + "\" is being changed; try again"));
    }
    const ChainBlock& block = header_.chains[chain->index];
    const bool same = chain->zygote.built &&
                      google::protobuf::util::MessageDifferencer::Equals(revision, chain->revision);
    if (same) {
      node::internal::Reply answer;
      answer.set_id(request);
      answer.mutable_applied()->set_revision(revision.revision());
      return reply(answer);
    }
    if (wanted_buckets(revision) != block.buckets) {
      return reply_error(
          request,
          invalid("spec.buckets", std::to_string(wanted_buckets(revision)) +
                                      " is not accepted; chain \"" + chain->name + "\" keeps its " +
                                      std::to_string(block.buckets) + " for its life"));
    }
    if (revision.inside() != chain->revision.inside() ||
        revision.outside() != chain->revision.outside()) {
      return reply_error(
          request,
          invalid("spec.inside",
                  "the ports of a running chain stay; delete the chain and deploy it anew"));
    }
  }
  chain->request = request;
  chain->next = revision;
  if (Result<void> begun = begin_build(*chain, revision); !begun) {
    chain->next.reset();
    chain->request.reset();
    if (chain->slots.empty()) chains_.erase(chain->index);
    reply_error(request, begun.error());
  }
}

// Ports free? Pool ready? Nothing is running yet and nothing is changed if it is refused.
Result<void> Supervisor::prepare_new_chain(ChainState& chain,
                                           const node::v1::ChainRevision& revision) {
  for (const auto& [index, other] : chains_) {
    const node::v1::ChainRevision& theirs = other.next ? *other.next : other.revision;
    if (theirs.inside() == revision.inside()) {
      return invalid("spec.inside", "port \"" + revision.inside() + "\" belongs to chain \"" +
                                        other.name + "\"; a port carries one chain");
    }
    if (theirs.outside() == revision.outside()) {
      return invalid("spec.outside", "port \"" + revision.outside() + "\" belongs to chain \"" +
                                         other.name + "\"; a port carries one chain");
    }
  }
  Result<ChainAttachment> attached =
      pool_->attach_chain(revision.chain(), wanted_buckets(revision));
  if (!attached) return attached.error();
  ChainBlock& block = header_.chains[chain.index];
  std::memset(block.name, 0, sizeof(block.name));
  std::memcpy(block.name, revision.chain().data(), revision.chain().size());
  block.pool_index = static_cast<uint16_t>(attached->index);
  block.buckets = wanted_buckets(revision);
  block.external_count = 0;
  block.passes_untranslated.store(0);
  block.forward_count.store(0);
  for (size_t port = 0; port < config_.ports.size(); ++port) {
    if (config_.ports[port].name == revision.inside())
      block.inside_port = static_cast<uint8_t>(port);
    if (config_.ports[port].name == revision.outside())
      block.outside_port = static_cast<uint8_t>(port);
  }
  for (std::atomic<uint64_t>* counter :
       {&block.steered, &block.returned, &block.forwarded_packets, &block.forwarded_bytes})
    counter->store(0);
  for (std::atomic<uint64_t>& counter : block.drops) counter.store(0);
  block.worker_deaths.store(0);
  block.failovers.store(0);
  return {};
}

Result<void> Supervisor::begin_build(ChainState& chain, const node::v1::ChainRevision& revision) {
  if (!root_) {
    if (Result<void> root = start_root(); !root) return root.error();
  }
  pid_t pid = 0;
  Result<int> socket = root_->make_zygote(chain.index, revision.SerializeAsString(), pid);
  if (!socket) return socket.error();
  Zygote& zygote = chain.next ? chain.next_zygote : chain.zygote;
  zygote = Zygote{.pid = pid, .socket = *socket, .revision = revision.revision(), .built = false};
  watch_child({Role::kZygote, pid, -1, 0, chain.index});
  watch(*socket, Watch::kZygote, static_cast<uint32_t>(*socket));
  return {};
}

// Port leases are kept by the place of an address in the list; an address that stays must keep its
// place.
Result<void> Supervisor::check_externals(const ChainState& chain,
                                         const ZygoteMessage& message) const {
  const ChainBlock& block = header_.chains[chain.index];
  for (uint32_t i = 0; i < block.external_count; ++i) {
    for (uint32_t j = 0; j < message.external_count; ++j) {
      if (block.external[i].raw != message.external[j] || i == j) continue;
      return invalid("spec.functions",
                     "external address " + format_ipv4(block.external[i]) + " moves from place " +
                         std::to_string(i) + " to " + std::to_string(j) +
                         " of external_addresses; addresses that stay must keep their place");
    }
  }
  return {};
}

void Supervisor::on_built(ChainState& chain, const ZygoteMessage& message) {
  if (!chain.next) {  // a zygote that died was built again
    chain.zygote.built = true;
    fill_slots(chain);
    return replenish(chain);
  }
  chain.next_zygote.built = true;
  if (chain.handing_over) {
    fill_slots(chain);
    return replenish(chain);
  }
  chain.build_ms = message.build_ms;
  Result<void> acceptable = check_externals(chain, message);
  if (acceptable) {  // before a worker of it runs
    const uint32_t running = chain.revision.revision();
    acceptable = LayoutTable(*pool_, header_.chains[chain.index].pool_index)
                     .attach(chain.next->revision(), message.layout, {&running, 1});
  }
  const uint32_t slots = wanted_slots(*chain.next);
  if (acceptable && slots > chain.slots.size()) acceptable = take_slots(chain, slots);
  if (!acceptable) {
    ZygoteMessage refusal;
    std::snprintf(refusal.field, sizeof(refusal.field), "%s", acceptable.error().field.c_str());
    std::snprintf(refusal.text, sizeof(refusal.text), "%s", acceptable.error().message.c_str());
    return on_refused(chain, refusal);
  }
  ChainBlock& block = header_.chains[chain.index];
  block.steer_by =
      static_cast<Scope>(message.scope) == Scope::kHost ? SteerBy::kHost : SteerBy::kEndpoint;
  for (uint32_t i = 0; i < message.external_count; ++i) block.external[i].raw = message.external[i];
  block.external_count = message.external_count;
  block.passes_untranslated.store(message.passes_untranslated ? 1 : 0);
  block.forward_count.store(0);
  std::ranges::copy(message.forwards, block.forwards);
  block.forward_count.store(message.forward_count);
  header_.counters[chain.index].begin(chain.next->revision(), chain.revision.revision());
  begin_handover(chain);
}

void Supervisor::on_refused(ChainState& chain, const ZygoteMessage& message) {
  if (!chain.next || chain.handing_over) {  // built before: it is not the revision's fault
    retire_revision(chain, chain.next ? chain.next_zygote : chain.zygote);
    return rebuild_zygote_later(chain, std::string("the zygote cannot build: ") + message.text);
  }
  retire_revision(chain, chain.next_zygote);
  if (!chain.rollback_reason.empty()) {
    chain.rollback_reason.clear();
    chain.last_good.reset();
    event("rollback_failed", chain.name, message.text);
  }
  const std::optional<uint64_t> request = chain.request;
  const Error error = invalid(message.field, message.text);
  event("chain_refused", chain.name, error.text());
  chain.next.reset();
  chain.request.reset();
  // A chain that never ran leaves nothing behind but, if it was there before, its flows in the
  // pool.
  if (request) reply_error(*request, error);
  if (chain.slots.empty()) {
    chains_.erase(chain.index);
  } else {
    rebuild_zygote(chain);  // if it died meanwhile
  }
}

Result<void> Supervisor::take_slots(ChainState& chain, uint32_t count) {
  std::vector<uint8_t> taken;
  for (uint8_t slot = 0; slot < config_.worker_slots && chain.slots.size() + taken.size() < count;
       ++slot) {
    if (header_.slots[slot].in_use.load() == 0) taken.push_back(slot);
  }
  if (chain.slots.size() + taken.size() < count) {
    return invalid("spec.workers", std::to_string(count) + " is not accepted; node \"" +
                                       config_.name + "\" has " +
                                       std::to_string(chain.slots.size() + taken.size()) +
                                       " worker slots left for this chain");
  }
  for (const uint8_t slot : taken) {
    arena_.reset_slot(slot);
    care_[slot] = SlotCare();
    header_.slots[slot].chain.store(chain.index);
    header_.slots[slot].in_use.store(1);
    chain.slots.push_back(slot);
  }
  return {};
}

// Buckets in equal contiguous shares.
void Supervisor::spread_buckets(ChainState& chain, size_t slot_count, uint8_t* owner) const {
  const uint32_t buckets = header_.chains[chain.index].buckets;
  for (uint32_t bucket = 0; bucket < buckets; ++bucket)
    owner[bucket] = chain.slots[bucket * slot_count / buckets];
}

// Without the switch: only while no packet is inside.
void Supervisor::place_buckets(ChainState& chain, size_t slot_count) {
  ChainBlock& block = header_.chains[chain.index];
  uint8_t owner[kMaxBuckets];
  spread_buckets(chain, slot_count, owner);
  for (uint32_t bucket = 0; bucket < block.buckets; ++bucket) {
    block.steering[bucket].slot.store(owner[bucket]);
    block.steering[bucket].held.store(0);
  }
}

void Supervisor::begin_handover(ChainState& chain) {
  ChainBlock& block = header_.chains[chain.index];
  chain.handing_over = true;
  chain.handover_tsc = rte_rdtsc();
  begin_trial(chain);
  if (block.active.load() == 0) {
    place_buckets(chain, chain.slots.size());
    block.slot_count.store(static_cast<uint32_t>(chain.slots.size()));
    block.active.store(1);
    tell_switch(
        {.command = SwitchCommand::kActivate, .chain = chain.index, .slot = 0, .owner = {}});
  }
  // Standbys first, so that a slot is vacant only for as long as it takes to wake one.
  replenish(chain);
  for (const uint8_t slot : chain.slots) {
    const int process = header_.slots[slot].process.load();
    if (process < 0) continue;
    header_.processes[process].leave.store(1);
    ring(header_.slots[slot].doorbell);
  }
  fill_slots(chain);
  set_tick(1);
  continue_handover(chain);
}

void Supervisor::continue_handover(ChainState& chain) {
  if (chain.moving) {
    if (!mailbox_idle()) return;
    chain.moving = false;
    return finish_handover(chain);
  }
  end_those_that_stay(chain);
  for (const uint8_t slot : chain.slots) {
    const int process = header_.slots[slot].process.load();
    // It crashed, and its successor is held back: the slot is the new revision's all the same.
    if (process < 0 && care_[slot].start_us != 0) continue;
    if (process < 0 || workers_[static_cast<size_t>(process)].revision != chain.next->revision())
      return;
    if (header_.processes[process].state.load() != ProcessState::kServing) return;
  }
  // All slots run the new revision. More or fewer slots than before: buckets move between them.
  const uint32_t wanted = wanted_slots(*chain.next);
  ChainBlock& block = header_.chains[chain.index];
  if (block.slot_count.load() != wanted) {
    chain.leaving_slots.assign(chain.slots.begin() + wanted, chain.slots.end());
    std::vector<uint8_t> owner(kMaxBuckets);
    spread_buckets(chain, wanted, owner.data());
    block.slot_count.store(wanted);
    chain.moving = true;
    return tell_switch(
        {.command = SwitchCommand::kMoveBuckets, .chain = chain.index, .slot = 0, .owner = owner});
  }
  finish_handover(chain);
}

// A worker that was asked to leave and does not, in a time that is plenty for a burst, is hung or
// stopped: it is failed over to the new revision.
void Supervisor::end_those_that_stay(ChainState& chain) {
  if (arena_.tsc_to_us(rte_rdtsc() - chain.handover_tsc) < kLeavePatienceUs) return;
  for (const uint8_t slot : chain.slots) {
    const int process = header_.slots[slot].process.load();
    if (process < 0) continue;
    const auto index = static_cast<uint32_t>(process);
    if (workers_[index].revision == chain.next->revision()) continue;
    replace_worker(index, DeathCause::kOutside, "was asked to leave and did not");
  }
}

void Supervisor::finish_handover(ChainState& chain) {
  Zygote old = chain.zygote;
  const node::v1::ChainRevision previous = chain.revision;
  const bool first = previous.revision() == 0;
  chain.revision = *chain.next;
  chain.zygote = chain.next_zygote;
  chain.next_zygote = Zygote{};
  chain.next.reset();
  chain.handing_over = false;
  header_.chains[chain.index].revision.store(chain.revision.revision());
  if (!first) retire_revision(chain, old);
  for (const uint8_t slot : chain.leaving_slots) {
    std::erase(chain.slots, slot);
    const int process = header_.slots[slot].process.load();
    if (process >= 0) end_worker(static_cast<uint32_t>(process));
    recover_slot(arena_, *pool_, slot);
    tell_switch(
        {.command = SwitchCommand::kDiscardSlot, .chain = chain.index, .slot = slot, .owner = {}});
  }
  chain.leaving_slots.clear();
  replenish(chain);  // the slots have taken the standbys
  const double handover_ms = arena_.tsc_to_us(rte_rdtsc() - chain.handover_tsc) / 1000.0;
  event("chain_applied", chain.name,
        "revision " + std::to_string(chain.revision.revision()) + " runs in " +
            std::to_string(chain.slots.size()) + " slot(s)");
  if (chain.request) {
    node::internal::Reply answer;
    answer.set_id(*chain.request);
    answer.mutable_applied()->set_revision(chain.revision.revision());
    answer.mutable_applied()->set_build_ms(chain.build_ms);
    answer.mutable_applied()->set_handover_ms(handover_ms);
    chain.request.reset();
    reply(answer);
  }
  end_trial(chain, previous);
}

void Supervisor::remove(uint64_t request, const std::string& name) {
  ChainState* chain = find_chain(name);
  if (chain == nullptr) {
    // Known only to the pool, from a time before: its flows are given back all the same.
    if (Result<void> dropped = pool_->drop_chain(name); !dropped)
      return reply_error(request, dropped.error());
    node::internal::Reply answer;
    answer.set_id(request);
    answer.mutable_removed();
    return reply(answer);
  }
  if (chain->next || chain->removing) {
    return reply_error(request, unavailable("metadata.name",
                                            "chain \"" + name + "\" is being changed; try again"));
  }
  chain->removing = true;
  chain->request = request;
  header_.chains[chain->index].active.store(0);
  tell_switch(
      {.command = SwitchCommand::kDeactivate, .chain = chain->index, .slot = 0, .owner = {}});
  set_tick(1);
}

// Deactivated: nothing new comes. What is inside is finished, then the workers end.
void Supervisor::continue_removal(ChainState& chain) {
  if (!mailbox_idle() || chain.name.empty()) return;
  for (const uint8_t slot : chain.slots) {
    const bool empty = rte_ring_empty(arena_.inbox(slot)) && rte_ring_empty(arena_.outbox(slot));
    if (!empty && header_.slots[slot].process.load() >= 0) return;
  }
  for (const uint8_t slot : chain.slots) {
    const int process = header_.slots[slot].process.load();
    if (process >= 0) end_worker(static_cast<uint32_t>(process));
    recover_slot(arena_, *pool_, slot);
    tell_switch(
        {.command = SwitchCommand::kDiscardSlot, .chain = chain.index, .slot = slot, .owner = {}});
  }
  chain.slots.clear();
  retire_revision(chain, chain.zygote);
  forget_history(config_.state_dir, chain.name);
  give_up(chain, 0, "");
  header_.chains[chain.index].trouble.set("");
  const Result<void> dropped = pool_->drop_chain(chain.name);
  event("chain_removed", chain.name,
        dropped ? "its flow records are free again" : dropped.error().text());
  if (chain.request) {
    node::internal::Reply answer;
    answer.set_id(*chain.request);
    answer.mutable_removed();
    reply(answer);
  }
  chain.request.reset();
  chain.name.clear();
}

// A node starts again with what it last ran, whether or not its controller is there.
void Supervisor::restore_chains() {
  std::vector<std::string> problems;
  for (const node::v1::ChainRevision& revision : load_revisions(config_.state_dir, problems)) {
    const node::internal::ChainHistory history = load_history(config_.state_dir, revision.chain());
    apply(0, revision_to_run(revision, history));
    ChainState* chain = find_chain(revision.chain());
    if (chain == nullptr) continue;
    chain->request.reset();
    chain->restored = history;
  }
  for (const std::string& problem : problems) event("revision_unreadable", "", problem);
}

void Supervisor::reply(const node::internal::Reply& answer) {
  if (answer.id() != 0 && agent_socket_ >= 0) send_frame(agent_socket_, answer.SerializeAsString());
}

void Supervisor::reply_error(uint64_t request, const Error& error) {
  if (request == 0) event("chain_refused", "", error.text());
  node::internal::Reply answer;
  answer.set_id(request);
  answer.set_failed(true);
  answer.set_error_kind(static_cast<int32_t>(error.kind));
  answer.set_error_field(error.field);
  answer.set_error_message(error.message);
  reply(answer);
}

}  // namespace flowkeep
