#include "dataplane/switch/neighbours.h"

namespace flowkeep {

Neighbours::Neighbours(Actions actions)
    : actions_(std::move(actions)), entries_(2 * kMaxNeighbours) {
  live_.reserve(kMaxNeighbours);
}

Neighbours::Entry* Neighbours::find(Be32 address) {
  const size_t mask = entries_.size() - 1;
  for (size_t i = (address.host() * 2654435761U) & mask;; i = (i + 1) & mask) {
    if (entries_[i].state == State::kEmpty) return nullptr;
    if (entries_[i].address == address) return &entries_[i];
  }
}

// Entries are never removed, only reused by the same address: the table holds at most
// kMaxNeighbours.
Neighbours::Entry* Neighbours::claim(Be32 address) {
  if (Entry* known = find(address)) return known;
  if (live_.size() == kMaxNeighbours) return nullptr;
  const size_t mask = entries_.size() - 1;
  size_t i = (address.host() * 2654435761U) & mask;
  while (entries_[i].state != State::kEmpty) i = (i + 1) & mask;
  entries_[i].address = address;
  entries_[i].state = State::kFailed;
  live_.push_back(static_cast<uint16_t>(i));
  return &entries_[i];
}

void Neighbours::add_static(Be32 address, const Mac& mac) {
  if (Entry* entry = claim(address)) {
    entry->state = State::kStatic;
    entry->mac = mac;
  }
}

void Neighbours::ask(Entry& entry, uint64_t now_ms) {
  ++entry.tries;
  entry.since_ms = now_ms;
  actions_.send_request(entry.address);
}

Neighbours::Answer Neighbours::resolve(Be32 address, uint64_t now_ms, WaitingPacket packet,
                                       Mac& mac) {
  Entry* entry = find(address);
  if (entry == nullptr) {
    entry = claim(address);
    if (entry == nullptr) return Answer::kFull;
    entry->since_ms = now_ms - kNeighbourHoldMs;
  }
  switch (entry->state) {
    case State::kResolved:
      if (now_ms - entry->since_ms > kNeighbourFreshMs) {
        actions_.send_request(address);  // still trusted; asked again at most once a second
        entry->since_ms = now_ms - kNeighbourFreshMs + kArpRetryMs;
      }
      [[fallthrough]];
    case State::kStatic:
      mac = entry->mac;
      return Answer::kResolved;
    case State::kFailed:
      if (now_ms - entry->since_ms < kNeighbourHoldMs) return Answer::kFull;
      entry->state = State::kIncomplete;
      entry->tries = 0;
      ask(*entry, now_ms);
      break;
    default:
      break;
  }
  if (entry->waiting.size() >= kMaxWaitingPackets) return Answer::kFull;
  entry->waiting.push_back(packet);
  ++waiting_total_;
  return Answer::kWaiting;
}

void Neighbours::learn(Be32 address, const Mac& mac, bool for_us, uint64_t now_ms) {
  Entry* entry = for_us ? claim(address) : find(address);
  if (entry == nullptr || entry->state == State::kStatic) return;
  entry->state = State::kResolved;
  entry->mac = mac;
  entry->since_ms = now_ms;
  entry->tries = 0;
  waiting_total_ -= entry->waiting.size();
  for (WaitingPacket packet : entry->waiting) actions_.send(packet, mac);
  entry->waiting.clear();
}

void Neighbours::tick(uint64_t now_ms) {
  for (const uint16_t index : live_) {
    Entry& entry = entries_[index];
    if (entry.state != State::kIncomplete || now_ms - entry.since_ms < kArpRetryMs) continue;
    if (entry.tries < kArpTries) {
      ask(entry, now_ms);
      continue;
    }
    entry.state = State::kFailed;
    entry.since_ms = now_ms;
    waiting_total_ -= entry.waiting.size();
    for (WaitingPacket packet : entry.waiting) actions_.give_up(packet);
    entry.waiting.clear();
  }
}

}  // namespace flowkeep
