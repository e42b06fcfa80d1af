// Neighbours: the link-layer addresses that one port knows; of IPv4 neighbours by ARP (RFC 826,
// RFC 1122 2.3.2), of IPv6 neighbours by neighbour discovery (RFC 4861 section 7). Packets whose
// next hop is not resolved yet wait, a bounded number for each neighbour and in all. Fixed size:
// nothing is allocated after construction but the waiting lists, up to their bound.
//
// A full table makes room at the cost of addresses that nobody answers for or that nobody has sent
// to for a while, so that neither a scan of a subnet nor neighbours that are gone keep others out
// for long (RFC 6583).
//
// Pure: what has to be sent is told to the caller. Thread rule: the switch's I/O thread only.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "dataplane/ipv6_address.h"
#include "state/flow_key.h"

namespace flowkeep {

inline constexpr size_t kMaxNeighbours = 4096;       // of one port
inline constexpr uint32_t kMaxWaitingPackets = 512;  // for one neighbour
inline constexpr uint32_t kMaxWaitingInAll = 4096;
inline constexpr uint32_t kArpTries = 3;  // RFC 4861: MAX_MULTICAST_SOLICIT
inline constexpr uint32_t kArpRetryMs =
    1000;  // RFC 1122: at most one request a second for each address; RFC 4861: RetransTimer
inline constexpr uint32_t kNeighbourFreshMs = 60'000;  // then asked again while still used
// A neighbour that is in use is asked again before this.
inline constexpr uint32_t kNeighbourUnusedMs = 2 * kNeighbourFreshMs;
inline constexpr uint32_t kNeighbourHoldMs =
    5'000;  // an address that nobody answered for is refused this long

using WaitingPacket = void*;

struct Mac {
  std::array<uint8_t, 6> bytes{};
  friend bool operator==(const Mac&, const Mac&) = default;
};

template <typename Address>
class NeighbourTable {
 public:
  struct Actions {
    std::function<void(const Address&)> send_request;
    std::function<void(WaitingPacket, const Mac&)> send;  // resolved: send it
    std::function<void(WaitingPacket)> give_up;           // never resolved
  };
  enum class Answer { kResolved, kWaiting, kFull };

  explicit NeighbourTable(Actions actions);

  void add_static(const Address& address, const Mac& mac);
  // kResolved: `mac` is set and the caller sends. kWaiting: the packet was taken. kFull: it was
  // not.
  Answer resolve(const Address& address, uint64_t now_ms, WaitingPacket packet, Mac& mac);
  // From what a neighbour says: updates an entry, or makes one if it was said to us.
  void learn(const Address& address, const Mac& mac, bool for_us, uint64_t now_ms);
  // An advertisement without the override flag: answers what is asked for, and casts doubt on what
  // is known otherwise (RFC 4861 section 7.2.5).
  void confirm(const Address& address, const Mac& mac, uint64_t now_ms);
  // Repeats requests and gives up; call every 100 ms or so.
  void tick(uint64_t now_ms);
  size_t waiting() const { return waiting_total_; }

 private:
  static constexpr uint16_t kNone = UINT16_MAX;
  enum class State : uint8_t { kFree, kIncomplete, kResolved, kStatic, kFailed };
  enum class Room { kOfFailed, kOfUnresolved };
  struct Entry {
    Address address{};
    State state = State::kFree;
    uint8_t tries = 0;
    Mac mac;
    uint16_t next = kNone;               // in its bucket
    uint64_t since_ms = 0;               // of the state, or of the last request
    std::vector<WaitingPacket> waiting;  // keeps its capacity
  };
  uint16_t& bucket_of(const Address& address);
  Entry* find(const Address& address);
  Entry* claim(const Address& address, Room room, uint64_t now_ms);
  Entry* make_room(Room room, uint64_t now_ms);
  void unlink(Entry& entry);
  void ask(Entry& entry, uint64_t now_ms);
  void fail(Entry& entry, uint64_t now_ms);

  Actions actions_;
  std::vector<Entry> entries_;
  std::vector<uint16_t> buckets_;
  size_t used_ = 0;  // entries from the first on
  size_t hand_ = 0;  // where room is looked for next
  size_t waiting_total_ = 0;
};

using Neighbours = NeighbourTable<Be32>;
using Ipv6Neighbours = NeighbourTable<Ipv6Address>;

extern template class NeighbourTable<Be32>;
extern template class NeighbourTable<Ipv6Address>;

}  // namespace flowkeep
