#include "dataplane/switch/neighbours.h"

#include <algorithm>
#include <cstring>

namespace flowkeep {
namespace {

constexpr size_t kLooksForRoom = 256;  // at entries, for each new address

uint64_t word_of(Be32 address) {
  return address.host();
}
uint64_t word_of(const Ipv6Address& address) {
  uint64_t words[2];
  std::memcpy(words, address.data(), sizeof(words));
  return fold_multiply(words[0] ^ 0x9e3779b97f4a7c15ULL, words[1] ^ 0xd1b54a32d192ed03ULL);
}

}  // namespace

template <typename Address>
NeighbourTable<Address>::NeighbourTable(Actions actions)
    : actions_(std::move(actions)), entries_(kMaxNeighbours), buckets_(2 * kMaxNeighbours, kNone) {}

template <typename Address>
uint16_t& NeighbourTable<Address>::bucket_of(const Address& address) {
  const uint64_t mixed = word_of(address) * 0x9e3779b97f4a7c15ULL >> 32;
  return buckets_[mixed & (buckets_.size() - 1)];
}

template <typename Address>
typename NeighbourTable<Address>::Entry* NeighbourTable<Address>::find(const Address& address) {
  for (uint16_t i = bucket_of(address); i != kNone; i = entries_[i].next) {
    if (entries_[i].address == address) return &entries_[i];
  }
  return nullptr;
}

template <typename Address>
typename NeighbourTable<Address>::Entry* NeighbourTable<Address>::claim(const Address& address,
                                                                        Room room,
                                                                        uint64_t now_ms) {
  if (Entry* known = find(address)) return known;
  Entry* entry = used_ < entries_.size() ? &entries_[used_++] : make_room(room, now_ms);
  if (entry == nullptr) return nullptr;
  entry->address = address;
  entry->state = State::kFailed;
  entry->since_ms = now_ms - kNeighbourHoldMs;
  uint16_t& bucket = bucket_of(address);
  entry->next = bucket;
  bucket = static_cast<uint16_t>(entry - entries_.data());
  return entry;
}

// Looks at a bounded number of entries and goes on there the next time.
template <typename Address>
typename NeighbourTable<Address>::Entry* NeighbourTable<Address>::make_room(Room room,
                                                                            uint64_t now_ms) {
  for (size_t looked = 0; looked < kLooksForRoom; ++looked) {
    Entry& entry = entries_[hand_];
    hand_ = (hand_ + 1) % entries_.size();
    const auto age_ms = static_cast<int64_t>(now_ms - entry.since_ms);  // add_static(): below 0
    const bool failed = entry.state == State::kFailed &&
                        (room == Room::kOfUnresolved || age_ms >= kNeighbourHoldMs);
    const bool unresolved = room == Room::kOfUnresolved && entry.state == State::kIncomplete;
    const bool unused = entry.state == State::kResolved && age_ms > kNeighbourUnusedMs;
    if (!failed && !unresolved && !unused) continue;
    if (unresolved) fail(entry, now_ms);
    unlink(entry);
    return &entry;
  }
  return nullptr;
}

template <typename Address>
void NeighbourTable<Address>::unlink(Entry& entry) {
  uint16_t* link = &bucket_of(entry.address);
  while (&entries_[*link] != &entry) link = &entries_[*link].next;
  *link = entry.next;
  entry.state = State::kFree;
}

template <typename Address>
void NeighbourTable<Address>::add_static(const Address& address, const Mac& mac) {
  if (Entry* entry = claim(address, Room::kOfUnresolved, kNeighbourHoldMs)) {
    entry->state = State::kStatic;
    entry->mac = mac;
  }
}

template <typename Address>
void NeighbourTable<Address>::ask(Entry& entry, uint64_t now_ms) {
  ++entry.tries;
  entry.since_ms = now_ms;
  actions_.send_request(entry.address);
}

template <typename Address>
typename NeighbourTable<Address>::Answer NeighbourTable<Address>::resolve(const Address& address,
                                                                          uint64_t now_ms,
                                                                          WaitingPacket packet,
                                                                          Mac& mac) {
  Entry* entry = claim(address, Room::kOfFailed, now_ms);
  if (entry == nullptr) return Answer::kFull;
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
  if (entry->waiting.size() >= kMaxWaitingPackets || waiting_total_ >= kMaxWaitingInAll)
    return Answer::kFull;
  entry->waiting.push_back(packet);
  ++waiting_total_;
  return Answer::kWaiting;
}

template <typename Address>
void NeighbourTable<Address>::learn(const Address& address, const Mac& mac, bool for_us,
                                    uint64_t now_ms) {
  Entry* entry = for_us ? claim(address, Room::kOfUnresolved, now_ms) : find(address);
  if (entry == nullptr || entry->state == State::kStatic) return;
  entry->state = State::kResolved;
  entry->mac = mac;
  entry->since_ms = now_ms;
  entry->tries = 0;
  waiting_total_ -= entry->waiting.size();
  for (WaitingPacket packet : entry->waiting) actions_.send(packet, mac);
  entry->waiting.clear();
}

template <typename Address>
void NeighbourTable<Address>::confirm(const Address& address, const Mac& mac, uint64_t now_ms) {
  Entry* entry = find(address);
  if (entry == nullptr) return;
  if (entry->state != State::kResolved || entry->mac == mac)
    return learn(address, mac, false, now_ms);
  const uint64_t age_ms = std::max<uint64_t>(now_ms - entry->since_ms, kNeighbourFreshMs);
  entry->since_ms = now_ms - age_ms;  // before the clock began, perhaps: ages are differences
}

template <typename Address>
void NeighbourTable<Address>::fail(Entry& entry, uint64_t now_ms) {
  entry.state = State::kFailed;
  entry.since_ms = now_ms;
  waiting_total_ -= entry.waiting.size();
  for (WaitingPacket packet : entry.waiting) actions_.give_up(packet);
  entry.waiting.clear();
}

template <typename Address>
void NeighbourTable<Address>::tick(uint64_t now_ms) {
  for (size_t i = 0; i < used_; ++i) {
    Entry& entry = entries_[i];
    if (entry.state != State::kIncomplete || now_ms - entry.since_ms < kArpRetryMs) continue;
    if (entry.tries < kArpTries) {
      ask(entry, now_ms);
    } else {
      fail(entry, now_ms);
    }
  }
}

template class NeighbourTable<Be32>;
template class NeighbourTable<Ipv6Address>;

}  // namespace flowkeep
