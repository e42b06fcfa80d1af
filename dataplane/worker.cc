#include "dataplane/worker.h"

#include <rte_cycles.h>
#include <rte_mbuf.h>
#include <rte_prefetch.h>
#include <rte_ring_peek_zc.h>
#include <sched.h>

#include <algorithm>
#include <cstring>

#include "nfs/burst_end.h"

namespace flowkeep {
namespace {

constexpr uint32_t kSleepMs = 1000;    // between looks for expired flows when no packet comes
constexpr uint32_t kSweepBuckets = 4;  // looked at after some bursts
constexpr uint32_t kIdleSweepBuckets = 256;
constexpr uint32_t kSweepRecords = 8;  // of each bucket, a time
constexpr uint64_t kSweepEveryBursts = 16;
constexpr int kPiecesAtOnce = 4;  // that a standby maps before it looks for its slot
constexpr double kSpinUs = 20;    // before sleeping; longer starves others on a small machine

Packet packet_of(void* object) {
  auto* mbuf = static_cast<rte_mbuf*>(object);
  return {rte_pktmbuf_mtod(mbuf, uint8_t*), static_cast<PacketMeta*>(rte_mbuf_to_priv(mbuf)),
          reinterpret_cast<uint64_t>(mbuf)};
}

// The i-th slot of a zero-copy ring reservation.
void*& at(const rte_ring_zc_data& reserved, unsigned i) {
  void* base = i < reserved.n1 ? reserved.ptr1 : reserved.ptr2;
  return static_cast<void**>(base)[i < reserved.n1 ? i : i - reserved.n1];
}

}  // namespace

Worker::Worker(const Arena& arena, Pool& pool, const Chain& chain, size_t process,
               uint32_t chain_index, uint32_t first_burst)
    : arena_(arena),
      process_(arena.header().processes[process]),
      birth_(process_.births.load()),
      chain_(arena.header().chains[chain_index]),
      table_(pool, chain_.pool_index, FlowTable::kNoLog),
      runtime_(chain, table_, process_.revision.load(),
               static_cast<uint32_t>(arena.header().started_at_s)),
      memory_(arena, pool),
      burst_limit_(first_burst) {}

bool Worker::leave_asked() const {
  return process_.leave.load(std::memory_order_relaxed) != 0;
}

bool Worker::is_wanted() const {
  return process_.slot.load(std::memory_order_acquire) >= 0 || leave_asked();
}

void Worker::prepare() {
  if (!is_wanted()) memory_.map_essentials();
  process_.state.store(ProcessState::kStandby);
  const sched_param none{};
  sched_setscheduler(0, SCHED_BATCH, &none);
  while (!is_wanted() && memory_.read_more()) {
  }
  sched_setscheduler(0, SCHED_IDLE, &none);
  while (!is_wanted() && memory_.map_more()) {
  }
  sched_setscheduler(0, SCHED_OTHER, &none);
  // The supervisor has raised the priority of whom it gave a slot to, perhaps before this.
  const sched_param urgent{.sched_priority = kUrgentPriority};
  if (is_wanted()) sched_setscheduler(0, SCHED_RR, &urgent);
}

void Worker::run() {
  process_.state.store(ProcessState::kStandby);
  while (!is_wanted()) {
    sleep_on(process_.assigned, kSleepMs, [this] { return is_wanted(); });
    for (int pieces = 0; pieces < kPiecesAtOnce && !is_wanted() && memory_.map_more(); ++pieces) {
    }
  }
  if (leave_asked() || process_.births.load() != birth_) return;
  adopt(static_cast<size_t>(process_.slot.load()));
  const auto spin_cycles =
      static_cast<uint64_t>(kSpinUs * static_cast<double>(arena_.header().tsc_hz) / 1e6);
  spin_until_tsc_ = rte_rdtsc() + spin_cycles;
  while (!leave_asked()) {
    if (burst() > 0) {
      spin_until_tsc_ = rte_rdtsc() + spin_cycles;
    } else if (rte_rdtsc() > spin_until_tsc_) {
      idle();
      spin_until_tsc_ = rte_rdtsc() + spin_cycles;
    } else {
      rte_pause();
    }
  }
}

void Worker::adopt(size_t slot) {
  slot_number_ = slot;
  slot_ = &arena_.header().slots[slot];
  inbox_ = arena_.inbox(slot);
  outbox_ = arena_.outbox(slot);
  table_.adopt_log(static_cast<uint32_t>(slot));
  process_.state.store(ProcessState::kServing, std::memory_order_release);
}

size_t Worker::burst() {
  rte_ring_zc_data in{};
  const unsigned careful = slot_->burst_limit.load(std::memory_order_relaxed);
  const unsigned limit = std::min(careful, burst_limit_);
  const unsigned room = std::min<unsigned>(limit, rte_ring_free_count(outbox_));
  const unsigned count = rte_ring_dequeue_zc_burst_start(inbox_, room, &in, nullptr);
  if (count == 0) return 0;
  look_whether_to_stop();
  reached(BurstStep::kPeeked);

  Packet packets[kBurst];
  for (unsigned i = 0; i < count; ++i) {
    packets[i] = packet_of(at(in, i));
    rte_prefetch0(packets[i].meta);
    rte_prefetch0(packets[i].frame);
  }
  const uint64_t opened_before = runtime_.counters().opened;
  const size_t done = runtime_.run({packets, count}, arena_.now_s(), slot_->undo);
  stage_events();
  reached(BurstStep::kRun);

  rte_ring_zc_data out{};
  rte_ring_enqueue_zc_burst_start(outbox_, static_cast<unsigned>(done), &out, nullptr);
  for (unsigned i = 0; i < done; ++i) at(out, i) = reinterpret_cast<void*>(packets[i].handle);
  reached(BurstStep::kStaged);

  const auto processed = static_cast<uint32_t>(done);
  const BurstPositions after{inbox_->cons.tail + processed, outbox_->prod.tail + processed};
  const auto publish = [&] {
    rte_ring_enqueue_zc_finish(outbox_, processed);
    slot_->events.publish();
    reached(BurstStep::kPublished);
  };
  end_burst([&] { commit(after); }, publish, [&] { apply_and_release(processed); });
  reached(BurstStep::kReleased);
  if (careful != kBurst) [[unlikely]]
    end_caution();
  if (!first_burst_ended_) [[unlikely]]
    end_takeover();
  burst_limit_ = std::min<uint32_t>(4 * burst_limit_, kBurst);

  bump(slot_->bursts);
  bump(slot_->packets, processed);
  bump(slot_->opened_flows, runtime_.counters().opened - opened_before);
  if (slot_->bursts.load(std::memory_order_relaxed) % kSweepEveryBursts == 0) sweep(kSweepBuckets);
  return done;
}

void Worker::stage_events() {
  slot_->events.stage(runtime_.events(), process_.revision.load(std::memory_order_relaxed));
  runtime_.forget_events();
}

void Worker::commit(BurstPositions after) {
  if (table_.dirty()) {
    last_sequence_ = table_.commit(after);
    bump(slot_->commits);
  }
  reached(BurstStep::kCommitted);
  slot_->committed.store(pack(after), std::memory_order_release);
  reached(BurstStep::kMarked);
}

void Worker::apply_and_release(uint32_t packets) {
  const bool changed = table_.dirty();
  if (changed) table_.apply();
  reached(BurstStep::kApplied);
  if (changed) slot_->done_sequence.store(last_sequence_, std::memory_order_release);
  slot_->undo.forget();
  reached(BurstStep::kUndoForgotten);
  rte_ring_dequeue_zc_finish(inbox_, packets);
}

// Closes expired flows of the buckets that this slot owns and that are not being handed over. The
// switch holds a bucket first and then waits until `sweeping` is 0 before it gives the bucket to
// another slot.
void Worker::sweep(uint32_t buckets) {
  slot_->sweeping.exchange(1, std::memory_order_seq_cst);
  for (uint32_t tried = 0; tried < chain_.buckets && buckets > 0 && table_.has_room(kBurst);
       ++tried) {
    sweep_bucket_ = (sweep_bucket_ + 1) & (chain_.buckets - 1);
    const Steering& steering = chain_.steering[sweep_bucket_];
    if (steering.slot.load() != slot_number_ || steering.held.load() != 0) continue;
    runtime_.sweep({&sweep_bucket_, 1}, kSweepRecords, arena_.now_s());
    --buckets;
  }
  if (table_.dirty()) {
    stage_events();
    look_whether_to_stop();
    last_sequence_ = table_.commit(unpack(slot_->committed.load(std::memory_order_relaxed)));
    bump(slot_->commits);
    reached(BurstStep::kSweepCommitted);
    slot_->events.publish();
    table_.apply();
    reached(BurstStep::kSweepApplied);
    slot_->done_sequence.store(last_sequence_, std::memory_order_release);
  }
  const FlowTable::Damage damage = table_.damage();
  bump(slot_->damage, damage.met + damage.records - damage_told_);
  damage_told_ = damage.met + damage.records;
  slot_->sweeping.store(0, std::memory_order_release);
}

void Worker::idle() {
  sleep_on(slot_->doorbell, kSleepMs,
           [this] { return rte_ring_count(inbox_) != 0 || leave_asked(); });
  if (rte_ring_count(inbox_) == 0 && !leave_asked()) sweep(kIdleSweepBuckets);
}

void Worker::end_takeover() {
  slot_->first_burst_tsc.store(rte_rdtsc());
  first_burst_ended_ = true;
  const sched_param normal{};
  sched_setscheduler(0, SCHED_OTHER, &normal);
}

// A word of the line that the worker's loop reads anyway; asked once a burst, so that a burst stops
// at one step or at none.
void Worker::look_whether_to_stop() {
  stop_at_ = process_.stop_at.load(std::memory_order_relaxed);
}

void Worker::reached(BurstStep step) {
  if (stop_at_ == step) [[unlikely]]
    stay(step);
}

// Until it is killed.
void Worker::stay(BurstStep step) {
  process_.stopped_at.store(step, std::memory_order_release);
  for (;;) rte_pause();
}

// Positions wrap, so the difference decides.
void Worker::end_caution() {
  const uint32_t until = slot_->careful_until.load(std::memory_order_relaxed);
  if (static_cast<int32_t>(inbox_->cons.tail - until) >= 0)
    slot_->burst_limit.store(kBurst, std::memory_order_relaxed);
}

namespace {

void set_position(rte_ring_headtail& end, uint32_t position) {
  end.head = position;
  std::atomic_ref<uint32_t>(const_cast<uint32_t&>(reinterpret_cast<volatile uint32_t&>(end.tail)))
      .store(position, std::memory_order_release);
}

void restore(const UndoLog& undo) {
  for (uint32_t i = 0; i < undo.count; ++i) {
    const UndoEntry& entry = undo.entries[i];
    auto* mbuf = reinterpret_cast<rte_mbuf*>(entry.packet);
    std::memcpy(rte_pktmbuf_mtod(mbuf, void*), entry.bytes, entry.length);
  }
}

}  // namespace

SlotRecovery recover_slot(const Arena& arena, Pool& pool, size_t slot_number) {
  WorkerSlot& slot = arena.header().slots[slot_number];
  rte_ring* inbox = arena.inbox(slot_number);
  rte_ring* outbox = arena.outbox(slot_number);
  SlotRecovery report;
  report.first_burst_tsc = slot.first_burst_tsc.load();

  RedoLog log(pool, static_cast<uint32_t>(slot_number));
  const RedoLog::Newest newest = log.newest();
  if (newest.valid && newest.sequence > slot.done_sequence.load()) {
    log.apply_newest();
    slot.committed.store(pack(newest.after));
    slot.events.publish();
    slot.done_sequence.store(newest.sequence);
    report.redo_applied = true;
  }

  const BurstPositions released{inbox->cons.tail, outbox->prod.tail};
  const BurstPositions committed = unpack(slot.committed.load());
  if (committed.inbox != released.inbox) {
    report.burst_completed = true;
    slot.events.publish();
    report.open_begin = report.open_end = committed.inbox;
  } else {
    report.open_begin = released.inbox;
    report.open_end = inbox->cons.head;
    report.burst_undone = slot.undo.count > 0;
    restore(slot.undo);
    restore_soft(slot.undo, pool);
    slot.events.discard();
  }
  log.reclaim_pages();  // whose pages may be another bucket's from now on
  slot.undo.forget();
  slot.sweeping.store(0);
  set_position(outbox->prod, committed.outbox);
  set_position(inbox->cons, committed.inbox);
  report.waiting = rte_ring_count(inbox);
  return report;
}

void be_careful_until(WorkerSlot& slot, uint32_t position) {
  slot.careful_until.store(position, std::memory_order_relaxed);
  slot.burst_limit.store(1, std::memory_order_release);
}

rte_mbuf* first_packet(const Arena& arena, size_t slot) {
  rte_ring* inbox = arena.inbox(slot);
  if (rte_ring_empty(inbox)) return nullptr;
  return static_cast<rte_mbuf*>(
      reinterpret_cast<void**>(inbox + 1)[inbox->cons.tail & inbox->mask]);
}

// As a worker would: staged, committed, published, released. Death of the supervisor in between is
// the node's, and a second recovery would complete it.
bool drop_first_packet(const Arena& arena, size_t slot_number, DropReason reason) {
  WorkerSlot& slot = arena.header().slots[slot_number];
  rte_ring* inbox = arena.inbox(slot_number);
  rte_ring* outbox = arena.outbox(slot_number);
  rte_mbuf* mbuf = first_packet(arena, slot_number);
  if (mbuf == nullptr || rte_ring_free_count(outbox) == 0) return false;
  auto* meta = static_cast<PacketMeta*>(rte_mbuf_to_priv(mbuf));
  meta->verdict = Verdict::kDrop;
  meta->reason = reason;
  const BurstPositions after{inbox->cons.tail + 1, outbox->prod.tail + 1};
  reinterpret_cast<void**>(outbox + 1)[outbox->prod.tail & outbox->mask] = mbuf;
  slot.committed.store(pack(after), std::memory_order_release);
  set_position(outbox->prod, after.outbox);
  set_position(inbox->cons, after.inbox);
  return true;
}

}  // namespace flowkeep
