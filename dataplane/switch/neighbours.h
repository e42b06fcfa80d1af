// Neighbours: the ARP table of one port (RFC 826, RFC 1122 2.3.2). Packets whose next hop is not
// resolved yet wait, a bounded number for each neighbour. Fixed size: nothing is allocated after
// construction.
//
// Pure: what has to be sent is told to the caller. Thread rule: the switch's I/O thread only.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "state/flow_key.h"

namespace flowkeep {

inline constexpr size_t kMaxNeighbours = 4096;       // of one port
inline constexpr uint32_t kMaxWaitingPackets = 512;  // for one neighbour
inline constexpr uint32_t kArpTries = 3;
inline constexpr uint32_t kArpRetryMs =
    1000;  // RFC 1122: at most one request a second for each address
inline constexpr uint32_t kNeighbourFreshMs = 60'000;  // then asked again while still used
inline constexpr uint32_t kNeighbourHoldMs =
    5'000;  // an address that nobody answered for is refused this long

using WaitingPacket = void*;

class Neighbours {
 public:
  struct Mac {
    std::array<uint8_t, 6> bytes{};
  };
  struct Actions {
    std::function<void(Be32 address)> send_request;
    std::function<void(WaitingPacket, const Mac&)> send;  // resolved: send it
    std::function<void(WaitingPacket)> give_up;           // never resolved
  };
  enum class Answer { kResolved, kWaiting, kFull };

  explicit Neighbours(Actions actions);

  void add_static(Be32 address, const Mac& mac);
  // kResolved: `mac` is set and the caller sends. kWaiting: the packet was taken. kFull: it was
  // not.
  Answer resolve(Be32 address, uint64_t now_ms, WaitingPacket packet, Mac& mac);
  // From an ARP packet: updates an entry, or makes one if the packet was for us.
  void learn(Be32 address, const Mac& mac, bool for_us, uint64_t now_ms);
  // Repeats requests and gives up; call every 100 ms or so.
  void tick(uint64_t now_ms);
  size_t waiting() const { return waiting_total_; }

 private:
  enum class State : uint8_t { kEmpty, kIncomplete, kResolved, kStatic, kFailed };
  struct Entry {
    Be32 address;
    State state = State::kEmpty;
    uint8_t tries = 0;
    Mac mac;
    uint64_t since_ms = 0;               // of the state, or of the last request
    std::vector<WaitingPacket> waiting;  // capacity reserved from a shared budget on first use
  };
  Entry* find(Be32 address);
  Entry* claim(Be32 address);
  void ask(Entry& entry, uint64_t now_ms);

  Actions actions_;
  std::vector<Entry> entries_;
  std::vector<uint16_t> live_;
  size_t waiting_total_ = 0;
};

}  // namespace flowkeep
