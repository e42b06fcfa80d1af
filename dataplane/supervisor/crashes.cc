// What follows from workers that die by their own fault: the search for a poison packet, back-off,
// and the way back to the last good revision. Policies are in files of their own (poison.h,
// crash_loop.h, revision_health.h); here they meet the node.
#include <rte_cycles.h>
#include <rte_mbuf.h>

#include <algorithm>

#include "dataplane/chain_history.h"
#include "dataplane/supervisor/supervisor.h"
#include "dataplane/worker.h"

namespace flowkeep {
namespace {

std::string milliseconds(uint64_t microseconds) {
  return std::to_string(microseconds / 1000) + " ms";
}

}  // namespace

uint64_t Supervisor::now_us() const {
  return static_cast<uint64_t>(arena_.tsc_to_us(rte_rdtsc() - header_.tsc_base));
}

// With the slot recovered and nobody in it; what costs time comes later (consider_crashes,
// bury_dead_letters).
void Supervisor::examine_death(ChainState& chain, uint8_t slot, const WorkerDeath& death,
                               const SlotRecovery& recovery) {
  SlotCare& care = care_[slot];
  if (death.cause == DeathCause::kOwn) {
    const uint64_t wait_us = blame(chain, death);
    care.start_us = wait_us == 0 ? 0 : now_us() + wait_us;
  }
  care.search.note_death(death.worker, recovery.open_begin, recovery.open_end, death.cause);
  const uint32_t position = recovery.open_begin;
  if (care.search.has_killed_twice(position)) take_out_packet(chain, slot, death);
  const uint32_t next = arena_.inbox(slot)->cons.tail;
  if (care.search.suspects_from(next))
    be_careful_until(header_.slots[slot], care.search.suspects_end());
}

// Counts a death against the revision that is to run. Returns the wait before the next start.
uint64_t Supervisor::blame(ChainState& chain, const WorkerDeath& death) {
  const uint32_t wanted = chain.handing_over ? chain.next->revision() : chain.revision.revision();
  if (death.revision != wanted) return 0;
  chain.last_crash = death.how;
  chain.health.note_death(now_us());
  const uint64_t wait_us = chain.loop.note_death(now_us());
  if (wait_us > 0) set_tick(std::min<uint64_t>(tick_ms_, kStartTickMs));
  return wait_us;
}

void Supervisor::take_out_packet(ChainState& chain, uint8_t slot, const WorkerDeath& death) {
  rte_mbuf* packet = first_packet(arena_, slot);
  if (packet == nullptr) return;
  const auto& meta = *static_cast<const PacketMeta*>(rte_mbuf_to_priv(packet));
  const auto* frame = rte_pktmbuf_mtod(packet, const uint8_t*);
  const double age_us = arena_.tsc_to_us(meta.arrived_tsc - header_.tsc_base);
  DeadLetter letter{.chain = chain.name,
                    .revision = death.revision,
                    .signal = death.how,
                    .flow = meta.key,
                    .port = meta.in_port,
                    .arrived_unix_ns = header_.unix_base_ns + static_cast<uint64_t>(age_us * 1e3),
                    .frame = {frame, frame + packet->data_len}};
  const uint32_t position = arena_.inbox(slot)->cons.tail;
  if (!drop_first_packet(arena_, slot, DropReason::kPoisonPacket)) return;
  care_[slot].search.acquit_neighbours_of(position);
  dead_letters_.push_back(std::move(letter));
}

// When everything that waits for the supervisor has been served: files may take their time.
void Supervisor::bury_dead_letters() {
  for (const DeadLetter& letter : dead_letters_) {
    const Result<std::string> kept = letter_office_.keep(letter);
    event("poison_packet", letter.chain,
          "revision " + std::to_string(letter.revision) + ", " + letter.signal + ", " +
              flow_text(letter.flow) + ": taken out after it had killed two workers; " +
              (kept ? "kept in " + *kept : "not kept: " + kept.error().text()));
  }
  dead_letters_.clear();
}

bool Supervisor::held_back(uint8_t slot) {
  uint64_t& start_us = care_[slot].start_us;
  if (start_us != 0 && start_us <= now_us()) start_us = 0;
  return start_us != 0;
}

// After a death by its own fault, with the slot handed on.
void Supervisor::consider_crashes(ChainState& chain) {
  if (chain.removing) return;
  if (chain.loop.looping(now_us())) {
    const std::string trouble = "crash loop: " + std::to_string(chain.loop.deaths()) +
                                " deaths by their own fault, the last by " + chain.last_crash +
                                "; the next start waits " + milliseconds(chain.loop.wait_us());
    if (!chain.in_crash_loop) event("crash_loop", chain.name, trouble);
    chain.in_crash_loop = true;
    header_.chains[chain.index].trouble.set(trouble);
  }
  if (chain.next || !chain.last_good || !chain.health.hopeless(now_us())) return;
  chain.rollback_reason = std::to_string(chain.health.deaths()) +
                          " workers died by their own fault, the last by " + chain.last_crash;
  chain.next = *chain.last_good;
  if (Result<void> begun = begin_build(chain, *chain.next); !begun) {
    event("rollback_failed", chain.name, begun.error().text());
    chain.next.reset();
    chain.rollback_reason.clear();
  }
}

// On each tick: those that waited start, and what has become healthy is said to be.
void Supervisor::tend_crashes() {
  for (auto& [index, chain] : chains_) {
    if (chain.removing) continue;
    const bool slot_due = std::any_of(chain.slots.begin(), chain.slots.end(), [this](uint8_t slot) {
      return header_.slots[slot].process.load() < 0 && care_[slot].start_us != 0 &&
             !held_back(slot);
    });
    const bool forks_due = chain.fork_after_us != 0 && chain.fork_after_us <= now_us();
    if (forks_due) chain.fork_after_us = 0;
    if (slot_due || forks_due) fill_slots(chain);
    if (forks_due) replenish(chain);
    if (chain.zygote_after_us != 0 && chain.zygote_after_us <= now_us()) rebuild_zygote(chain);
    if (chain.in_crash_loop && !chain.loop.looping(now_us())) {
      chain.in_crash_loop = false;
      header_.chains[index].trouble.set("");
      event("crash_loop_ended", chain.name, "its workers live");
    }
  }
}

bool Supervisor::starts_pending() const {
  return std::any_of(chains_.begin(), chains_.end(), [this](const auto& entry) {
    const ChainState& chain = entry.second;
    return chain.fork_after_us != 0 || chain.zygote_after_us != 0 ||
           std::any_of(chain.slots.begin(), chain.slots.end(),
                       [this](uint8_t slot) { return care_[slot].start_us != 0; });
  });
}

// A zygote that dies, or whose forks fail, is built again with the same back-off as workers.
void Supervisor::rebuild_zygote_later(ChainState& chain, const std::string& why) {
  const uint64_t wait_us = chain.zygote_loop.note_death(now_us());
  event("zygote_restarted", chain.name,
        why + (wait_us == 0 ? "" : "; built again in " + milliseconds(wait_us)));
  if (wait_us == 0) return rebuild_zygote(chain);
  chain.zygote_after_us = now_us() + wait_us;
  set_tick(std::min<uint64_t>(tick_ms_, kStartTickMs));
}

void Supervisor::rebuild_zygote(ChainState& chain) {
  chain.zygote_after_us = 0;
  const bool next_in_the_making = chain.next && !chain.handing_over;
  if (next_in_the_making || (chain.next ? chain.next_zygote : chain.zygote).socket >= 0) return;
  const node::v1::ChainRevision revision = chain.next ? *chain.next : chain.revision;
  if (Result<void> begun = begin_build(chain, revision); !begun) {
    event("zygote_lost", chain.name, begun.error().text());
    chain.zygote_after_us = now_us() + std::max<uint64_t>(chain.zygote_loop.wait_us(), 100'000);
  }
}

// A standby died by its own fault, or a fork failed: the next fork may have to wait.
void Supervisor::fork_later(ChainState& chain, uint64_t wait_us) {
  if (wait_us == 0) return;
  chain.fork_after_us = now_us() + wait_us;
  set_tick(std::min<uint64_t>(tick_ms_, kStartTickMs));
}

// The next revision is about to get the slots: it starts with a clean record.
void Supervisor::begin_trial(ChainState& chain) {
  chain.previous_good = chain.health.good(now_us());
  chain.health = RevisionHealth(now_us());
  chain.loop = CrashLoop();
  chain.fork_after_us = chain.zygote_after_us = 0;
  for (const uint8_t slot : chain.slots) care_[slot].start_us = 0;
  chain.in_crash_loop = false;
  header_.chains[chain.index].trouble.set("");
}

// The revision runs in every slot; `previous` did before (revision 0: none).
void Supervisor::end_trial(ChainState& chain, const node::v1::ChainRevision& previous) {
  if (chain.restored) {
    const uint32_t given_up = chain.restored->given_up_revision();
    if (given_up == 0 && chain.restored->has_last_good())
      chain.last_good = chain.restored->last_good();
    give_up(chain, given_up, chain.restored->given_up_reason());
    chain.restored.reset();
    return;
  }
  if (!chain.rollback_reason.empty()) {
    chain.last_good.reset();
    give_up(chain, previous.revision(), chain.rollback_reason);
    event("rolled_back", chain.name,
          "from revision " + std::to_string(previous.revision()) + " to revision " +
              std::to_string(chain.revision.revision()) + ": " + chain.rollback_reason);
    chain.rollback_reason.clear();
  } else {
    give_up(chain, 0, "");
    if (previous.revision() != 0 && (chain.previous_good || !chain.last_good))
      chain.last_good = previous;
  }
  remember(chain);
  consider_crashes(chain);
}

void Supervisor::give_up(ChainState& chain, uint32_t revision, const std::string& reason) {
  ChainBlock& block = header_.chains[chain.index];
  block.given_up_revision.store(0);
  block.given_up_reason.set(reason);
  block.given_up_revision.store(revision);
}

void Supervisor::remember(const ChainState& chain) {
  node::internal::ChainHistory history;
  const ChainBlock& block = header_.chains[chain.index];
  history.set_given_up_revision(block.given_up_revision.load());
  history.set_given_up_reason(block.given_up_reason.get());
  if (history.given_up_revision() != 0) {
    *history.mutable_last_good() = chain.revision;
  } else if (chain.last_good) {
    *history.mutable_last_good() = *chain.last_good;
  }
  if (Result<void> saved = save_history(config_.state_dir, chain.name, history); !saved)
    event("history_not_kept", chain.name, saved.error().text());
}

}  // namespace flowkeep
