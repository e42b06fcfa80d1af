// The switch's slow side: the supervisor's commands, buckets on the move, housekeeping, and rest.
#include <rte_cycles.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <sched.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "dataplane/switch/switch.h"
#include "state/flow_table.h"

namespace flowkeep {
namespace {

constexpr uint64_t kHousekeepingMs = 50;
constexpr uint64_t kStallLookUs = 50;
constexpr uint64_t kStallUs = 100;  // doubles with each look in vain, up to
constexpr uint64_t kLongestStallUs = 50'000;
constexpr uint32_t kIcmpErrorsPerSecond = 1000;
constexpr uint32_t kSpinLoops = 32;     // empty loops before yielding
constexpr uint64_t kRestAfterUs = 100;  // without work before sleeping
constexpr long kShortNapNs = 30'000;    // packets are inside workers: look again soon
constexpr long kPollNapNs = 500'000;    // ports that cannot wake us

uint32_t inbox_tail(const rte_ring* ring) {
  return __atomic_load_n(&ring->prod.tail, __ATOMIC_ACQUIRE);
}
uint32_t released(const rte_ring* ring) {
  return __atomic_load_n(&ring->cons.tail, __ATOMIC_ACQUIRE);
}

}  // namespace

void Switch::poll_mailbox() {
  SwitchMailbox& mailbox = header_.mailbox;
  const uint32_t posted = mailbox.posted.load(std::memory_order_acquire);
  if (move_.running) return;  // one thing at a time
  switch (mailbox.command) {
    case SwitchCommand::kActivate:
      activate(mailbox.chain);
      break;
    case SwitchCommand::kDeactivate:
      deactivate(mailbox.chain);
      break;
    case SwitchCommand::kMoveBuckets:
      begin_move(mailbox.chain, mailbox.owner);
      answered_ = posted;
      return;  // answered when the last bucket has moved
    case SwitchCommand::kDiscardSlot:
      discard_slot(mailbox.slot);
      break;
    case SwitchCommand::kStop:
      stopping_ = true;
      break;
    case SwitchCommand::kNone:
      break;
  }
  answered_ = posted;
  mailbox.answered.store(posted, std::memory_order_release);
}

void Switch::activate(uint32_t chain_index) {
  const ChainBlock& chain = header_.chains[chain_index];
  active_slots_.clear();
  for (uint8_t slot = 0; slot < kMaxWorkerSlots; ++slot) {
    if (header_.slots[slot].in_use.load() != 0) active_slots_.push_back(slot);
  }
  ports_[chain.inside_port].chain = static_cast<int>(chain_index);
  ports_[chain.outside_port].chain = static_cast<int>(chain_index);
}

void Switch::deactivate(uint32_t chain_index) {
  for (PortState& state : ports_) {
    if (state.chain == static_cast<int>(chain_index)) state.chain = -1;
  }
}

void Switch::begin_move(uint32_t chain_index, const uint8_t* owner) {
  ChainBlock& chain = header_.chains[chain_index];
  activate(chain_index);  // new slots have joined
  move_ = Move{.running = true,
               .chain = chain_index,
               .waits_for = 0,
               .inbox_mark = {},
               .held = std::move(move_.held)};
  for (uint32_t bucket = 0; bucket < chain.buckets; ++bucket) {
    move_target_[bucket] = owner[bucket];
    const uint8_t from = chain.steering[bucket].slot.load();
    if (from == owner[bucket]) continue;
    chain.steering[bucket].held.store(1, std::memory_order_seq_cst);
    move_.waits_for |= 1U << from;
  }
  for (uint8_t slot = 0; slot < kMaxWorkerSlots; ++slot) {
    if ((move_.waits_for >> slot & 1U) != 0)
      move_.inbox_mark[slot] = inbox_tail(arena_.inbox(slot));
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

// A slot is done with its moving buckets when it has released every packet that it had before they
// were held, when none of its answers is left in its outbox, and when it is not looking for expired
// flows (a later look sees that the buckets are held).
void Switch::poll_move() {
  ChainBlock& chain = header_.chains[move_.chain];
  for (uint8_t slot = 0; slot < kMaxWorkerSlots; ++slot) {
    if ((move_.waits_for >> slot & 1U) == 0) continue;
    WorkerSlot& control = header_.slots[slot];
    if (static_cast<int32_t>(released(arena_.inbox(slot)) - move_.inbox_mark[slot]) < 0) return;
    if (control.sweeping.load(std::memory_order_acquire) != 0 ||
        !rte_ring_empty(arena_.outbox(slot)))
      return;
    RedoLog(pool_, slot).retire(control.done_sequence.load());
    move_.waits_for &= ~(1U << slot);
  }
  // Each new owner could get them all. Once the hold queue is full no more come, and owners catch
  // up.
  for (const uint8_t slot : active_slots_) {
    const bool mine = header_.slots[slot].chain.load() == move_.chain;
    if (mine && rte_ring_free_count(arena_.inbox(slot)) < move_.held.size()) return;
  }
  for (uint32_t bucket = 0; bucket < chain.buckets; ++bucket) {
    chain.steering[bucket].slot.store(move_target_[bucket]);
    chain.steering[bucket].held.store(0);
  }
  move_.running = false;
  // In the order of arrival; in chunks that the staging rows hold.
  for (size_t i = 0; i < move_.held.size(); ++i) {
    rte_mbuf* packet = move_.held[i];
    steer(chain, packet, *static_cast<PacketMeta*>(rte_mbuf_to_priv(packet)));
    if (i % kBurst == kBurst - 1) hand_to_workers();
  }
  hand_to_workers();
  move_.held.clear();
  header_.mailbox.answered.store(answered_, std::memory_order_release);
}

// What is left in the rings of a slot whose worker is gone for good.
void Switch::discard_slot(uint32_t slot) {
  while (drain(slot) > 0) {
    for (size_t port = 0; port < ports_.size(); ++port) flush(port);
  }
  void* packet = nullptr;
  while (rte_ring_sc_dequeue(arena_.inbox(slot), &packet) == 0)
    rte_pktmbuf_free(static_cast<rte_mbuf*>(packet));
  while (rte_ring_sc_dequeue(arena_.outbox(slot), &packet) == 0)
    rte_pktmbuf_free(static_cast<rte_mbuf*>(packet));
  std::erase(active_slots_, static_cast<uint8_t>(slot));
  header_.slots[slot].in_use.store(0);  // free for another chain
}

void Switch::housekeeping() {
  next_housekeeping_tsc_ = now_tsc_ + header_.tsc_hz / 1000 * kHousekeepingMs;
  for (size_t port = 0; port < ports_.size(); ++port) {
    PortState& state = ports_[port];
    state.neighbours->tick(now_ms_);
    state.ipv6_neighbours->tick(now_ms_);
    state.port->refresh_link();
    state.icmp_budget = kIcmpErrorsPerSecond * kHousekeepingMs / 1000;
    announce_addresses(port);
  }
  reassembly_.tick(now_ms_);
  header_.switch_block.packets_free.store(pools_.free());
  bump(header_.switch_block.loops);
}

// A worker that does not move though packets wait may have been killed while it waited for a
// processor: it cannot die, and so cannot be known to be dead, before it gets one. The supervisor
// is told to look.
void Switch::look_for_stalls() {
  const uint64_t cycles_per_us = header_.tsc_hz / 1'000'000;
  next_stall_look_tsc_ = now_tsc_ + kStallLookUs * cycles_per_us;
  uint32_t stalled = 0;
  for (const uint8_t slot : active_slots_) {
    const rte_ring* inbox = arena_.inbox(slot);
    Progress& progress = progress_[slot];
    if (rte_ring_empty(inbox) || released(inbox) != progress.released) {
      progress = {released(inbox), now_tsc_, kStallUs * cycles_per_us};
    } else if (now_tsc_ - progress.since_tsc > progress.patience_cycles) {
      stalled |= 1U << slot;
      progress.since_tsc = now_tsc_;
      progress.patience_cycles =
          std::min(2 * progress.patience_cycles, kLongestStallUs * cycles_per_us);
    }
  }
  if (stalled == 0) return;
  header_.switch_block.stalled.fetch_or(stalled);
  const uint64_t one = 1;
  if (write(events_.stall_fd, &one, sizeof(one)) < 0) return;  // full: the supervisor is told
}

bool Switch::packets_inside() const {
  if (move_.running) return true;
  for (const uint8_t slot : active_slots_) {
    if (!rte_ring_empty(arena_.inbox(slot)) || !rte_ring_empty(arena_.outbox(slot))) return true;
  }
  return std::any_of(ports_.begin(), ports_.end(), [](const PortState& state) {
    return state.port->queued() > 0 || state.neighbours->waiting() > 0 ||
           state.ipv6_neighbours->waiting() > 0;
  });
}

// Adaptive polling: spin, then yield the processor (there may be fewer of them than threads), then
// sleep until a port, a worker's answer or the supervisor has something.
void Switch::rest(bool worked) {
  if (worked) {
    empty_loops_ = 0;
    return;
  }
  if (empty_loops_++ == 0) idle_since_tsc_ = now_tsc_;
  if (empty_loops_ < kSpinLoops) return rte_pause();
  if (now_tsc_ - idle_since_tsc_ < header_.tsc_hz / 1'000'000 * kRestAfterUs) {
    sched_yield();
    return;
  }
  sleep();
}

void Switch::sleep() {
  if (packets_inside()) {
    const timespec nap{0, kShortNapNs};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, nullptr);
    return;
  }
  header_.switch_block.packets_free.store(pools_.free());
  if (!all_ports_wake_) {
    const timespec nap{0, kPollNapNs};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, nullptr);
    return;
  }
  epoll_event events[kMaxPorts + 1];
  const int ready =
      epoll_wait(epoll_fd_, events, kMaxPorts + 1, static_cast<int>(kHousekeepingMs * 4));
  for (int i = 0; i < ready; ++i) {
    uint64_t rings = 0;
    if (events[i].data.fd == events_.wake_fd && read(events_.wake_fd, &rings, sizeof(rings)) < 0)
      continue;
  }
}

}  // namespace flowkeep
