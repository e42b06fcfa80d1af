// Reassembly: puts the fragments of IPv4 and IPv6 datagrams together, so that everything behind it
// (parse, steering, functions) sees whole packets only (RFC 791, RFC 815, RFC 8200 section 4.5).
//
// Each fragment's payload is copied to its place in one buffer of the datagram's own, so no
// fragment is kept, and the limit on buffers is the limit on memory. DPDK's rte_ip_frag is not
// used: it takes eight fragments of a datagram at most (11,840 bytes of Ethernet), does not notice
// overlaps, and does not say why it drops one.
//
// Fragments of a datagram may not overlap (RFC 5722; for IPv4 it is what attacks do, RFC 1858); one
// that repeats what is there already is ignored. When all entries are in use, the oldest datagram
// gives way: who floods the table delays others' fragments, he does not lock them out.
//
// Pure: buffers and counters are the caller's. Nothing is allocated after construction. Thread
// rule: the switch's I/O thread only.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "dataplane/switch/fragment.h"
#include "nfs/drop_reason.h"
#include "state/flow_key.h"

namespace flowkeep {

inline constexpr size_t kDatagramHeaderRoom = 256;     // in front of the payload, Ethernet included
inline constexpr size_t kDatagramBufferBytes = 65407;  // with a packet's headroom, 64 KiB less one
inline constexpr size_t kDatagramPayloadBytes = kDatagramBufferBytes - kDatagramHeaderRoom;
inline constexpr size_t kDatagramGaps = 16;  // between what has arrived of one datagram

class Reassembly {
 public:
  struct Buffer {
    void* handle = nullptr;  // nullptr: none left
    uint8_t* bytes = nullptr;
  };
  struct Actions {
    std::function<Buffer()> take;
    std::function<void(void* handle)> give_back;
    // That many packets, which had arrived at that port, are lost for that reason.
    std::function<void(uint8_t port, DropReason, uint32_t packets)> lost;
  };
  struct Whole {  // a frame with its buffer, which is the caller's now
    void* handle = nullptr;
    uint32_t begin = 0;  // of the frame within the buffer
    uint32_t bytes = 0;
    uint32_t largest_fragment_bytes = 0;  // as an IP packet: what the path up to here has carried
  };

  Reassembly(size_t datagrams, uint32_t timeout_ms, HashSecret secret, Actions actions);

  // Takes what it needs of the fragment. What completes a datagram returns it.
  std::optional<Whole> add(const Fragment& fragment, uint64_t now_ms);
  // Gives up on datagrams whose time is over; call now and then.
  void tick(uint64_t now_ms);
  size_t pending() const { return pending_; }

 private:
  static constexpr uint16_t kNone = UINT16_MAX;
  struct Range {
    uint32_t begin = 0, end = 0;
  };
  struct Entry {
    DatagramId id;
    Buffer buffer;  // none: a datagram that was discarded, and whose further fragments are too
    uint64_t since_ms = 0;
    uint32_t total = 0;  // payload bytes; 0: not known yet
    uint32_t packets = 0;
    uint32_t largest_bytes = 0;
    uint16_t header_bytes = 0;  // 0: the first fragment is not there yet
    uint8_t next_header = 0;
    uint16_t next_header_at = 0;
    uint16_t range_count = 0;
    std::array<Range, kDatagramGaps + 1> ranges{};  // in order, apart from each other
    uint16_t next_in_bucket = kNone;
    uint16_t older = kNone, younger = kNone;
  };

  uint16_t* bucket_of(const DatagramId& id);
  Entry* find(const DatagramId& id);
  Entry* open(const DatagramId& id, uint64_t now_ms);
  void close(Entry& entry);
  void discard(Entry& entry, DropReason reason);
  void give_up(Entry& entry, DropReason reason);
  DropReason place(Entry& entry, const Fragment& fragment);
  DropReason claim_range(Entry& entry, const Fragment& fragment);
  void copy(Entry& entry, const Fragment& fragment);
  static bool complete(const Entry& entry);
  static Whole finish(const Entry& entry);
  std::optional<Whole> alone(const Fragment& fragment);
  uint16_t index_of(const Entry& entry) const {
    return static_cast<uint16_t>(&entry - entries_.data());
  }

  uint32_t timeout_ms_;
  HashSecret secret_;
  Actions actions_;
  std::vector<Entry> entries_;
  std::vector<uint16_t> buckets_;
  std::vector<uint16_t> free_;
  uint16_t oldest_ = kNone, youngest_ = kNone;
  size_t pending_ = 0;
};

}  // namespace flowkeep
