// What a network function is to the platform.
//
// A function is a plain class `F`, built once for a revision and never changed again, with
//
//   using Config = <protobuf message>;             // the JSON in a chain's YAML
//   static constexpr std::string_view kType;       // "nat44", as in a chain's YAML
//   static constexpr Scope kScope;                 // what its hard state belongs to
//   struct Hard { ... };                           // trivially copyable, fixed layout; empty: none
//   struct Soft { ... };                           // one worker's counters and caches; may be lost
//   static Result<F> create(const Config&, const FunctionContext&);    // validates everything
//   Soft make_soft() const;                                            // allocates everything
//   Decision open(NewFlow<F>&, Soft&) const;       // a flow's first packet: accept, or refuse why
//   bool still_allowed(const FlowKey& inside, Side initiator, const Hard&, Soft&) const;
//                                                  // a flow of another revision: may it go on?
// and, where it has to see more than first packets,
//   void process(Burst<F>&, Soft&) const;          // every packet, the first included
// and, if it judges by IPv6 addresses, instead of the above,
//   bool still_allowed(const FlowKey& inside, const WideAddresses& inside_addresses, Side
//   initiator,
//                      const Hard&, Soft&) const;
// and, if it translates (IPv4 alone: it does not see flows of IPv6, which pass as they are),
//   FlowKey outside_key(const FlowKey& inside, const Hard&) const;   // of packets from outside
//   std::span<const Be32> external_addresses() const;
// and, if it keeps more of a flow than fits into Hard (one function of a chain may),
//   static constexpr size_t kVariableBytes;        // at most; see FlowPacket::commit_variable()
// and, to take over flows from other revisions of the chain,
//   static constexpr uint32_t kStateVersion = 1;   // of the meaning of Hard's and variable bytes
//   std::optional<Hard> migrate(uint32_t from_version, std::span<const uint8_t> hard) const;
//                                                  // state that another version of F has left
//   std::optional<Hard> adopt(const FlowKey& inside, Side initiator) const;
//                                                  // a flow that opened without F
// Without the hook, or if it returns nothing, the flow ends: its packet is judged as a first one.
// The variable state of another version is dropped; so is that of a function that is gone.
//
// Hard state is const to a function; NewFlow::commit() and FlowPacket::commit_variable() are the
// only ways to write it. There is no clock, lock, allocation or I/O after make_soft(): time comes
// in with the burst. nfs/step.h turns F into a step of a chain.
//
// Thread rule: an F is shared by processes that do not change it; a Soft belongs to one worker.
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "nfs/headers.h"
#include "nfs/packet.h"
#include "state/flow_table.h"
#include "state/result.h"

namespace flowkeep {

inline constexpr size_t kBurstPackets = 64;

// What a function's state belongs to, from fine to coarse. A chain is steered by the coarsest that
// is not kChain.
enum class Scope : uint8_t { kFlow, kEndpoint, kHost, kChain };

class Classifier;   // nfs/firewall/classifier.h
class AnyFunction;  // nfs/step.h

// What the platform lends a function at creation.
struct FunctionContext {
  std::string field;  // path of the configuration, for errors: "spec.functions[0].config"
  // Makes the rule classifier: rte_acl in a node, a linear search in tests and in the controller.
  std::function<std::unique_ptr<Classifier>()> make_classifier;
  // Makes a function that is not built in, or nothing if there is no such type. May be empty.
  std::function<std::unique_ptr<AnyFunction>(std::string_view type)> make_function = {};
};

struct Decision {
  DropReason refused = DropReason::kNone;  // kNone: accepted
  static Decision accept() { return {}; }
  static Decision refuse(DropReason reason) { return {reason}; }
  bool accepted() const { return refused == DropReason::kNone; }
};

// A flow that is about to open, without its type: what the runtime hands to each step.
struct OpeningFlow {
  FlowKey inside_key;
  Side initiator;
  uint32_t bucket;
  FlowTable& table;
  const WideAddresses* addresses = nullptr;  // of an IPv6 flow, as the inside key has them
  alignas(64) std::array<uint8_t, kHardStateBytes> hard{};
};

template <typename F>
class NewFlow {
 public:
  NewFlow(OpeningFlow& flow, size_t hard_offset) : flow_(flow), hard_offset_(hard_offset) {}

  const FlowKey& inside_key() const { return flow_.inside_key; }
  // IPv6: as inside_key() has them. IPv4: null.
  const WideAddresses* inside_addresses() const { return flow_.addresses; }
  Side initiator() const { return flow_.initiator; }
  uint32_t bucket() const { return flow_.bucket; }
  // Keyed, so that nobody outside can choose where a flow's hash falls.
  uint64_t hash_inside_endpoint() const {
    const FlowKey& key = flow_.inside_key;
    return hash_endpoint(key.src, key.src_port, key.protocol, flow_.table.hash_secret());
  }
  uint64_t hash_inside_host() const {
    return hash_endpoint(flow_.inside_key.src, Be16{}, 0, flow_.table.hash_secret());
  }
  // Is no flow of this bucket known by this key to the outside?
  bool outside_key_free(const FlowKey& outside) const {
    return flow_.table.find(flow_.bucket, outside, hash_key(outside, flow_.table.hash_secret())) ==
           0;
  }
  // External port blocks, leased to buckets: the bucket that holds one, or -1.
  int32_t lease_owner(uint32_t address_index, uint32_t block) const {
    return flow_.table.lease_owner(address_index, block);
  }
  bool lease_acquire(uint32_t address_index, uint32_t block) {
    return flow_.table.lease_acquire(address_index, block, flow_.bucket);
  }
  void commit(const typename F::Hard& hard) {
    std::memcpy(flow_.hard.data() + hard_offset_, &hard, sizeof(hard));
  }

 private:
  OpeningFlow& flow_;
  size_t hard_offset_;
};

// Bytes from the start of the frame that functions may change: its headers, and those that it
// quotes.
inline size_t editable_bytes(const PacketMeta& meta) {
  const size_t headers =
      meta.inner_l3_offset != 0 ? kEditableBytes : meta.l4_offset + sizeof(TcpHeader);
  return std::min({headers, kEditableBytes, size_t{meta.length}});
}

// A burst on its way through the steps. Arrays are parallel, one element for each packet.
struct BurstFrame {
  std::span<Packet> packets;
  FlowTable& table;
  std::span<const RecordId> flows;                       // 0: dropped before it had a flow
  std::array<const FlowRecord*, kBurstPackets> records;  // nullptr: dropped before it had a flow
  UndoLog& undo;
  uint64_t saved = 0;  // bit i: packet i is in the undo log
  uint32_t now_s;

  // Saves the packet's headers before their first change. The entry counts only when it is whole,
  // because a worker may die between any two instructions and its successor then reads the log.
  void save(size_t i) {
    if (saved >> i & 1) return;
    const Packet& packet = packets[i];
    assert(undo.count < kBurstPackets);
    UndoEntry& entry = undo.entries[undo.count];
    entry.packet = packet.handle;
    entry.length = static_cast<uint32_t>(editable_bytes(*packet.meta));
    std::memcpy(entry.bytes, packet.frame, entry.length);
    // x86 keeps the order of stores, and the reader is another process or comes after the writer's
    // death: only the compiler must not reorder.
    __atomic_store_n(&undo.count, undo.count + 1, __ATOMIC_RELEASE);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    saved |= uint64_t{1} << i;
  }
};

// One packet of a burst with its flow, as function F sees it.
template <typename F>
class FlowPacket {
 public:
  FlowPacket(BurstFrame& frame, size_t index, size_t hard_offset)
      : frame_(frame), index_(index), hard_offset_(hard_offset) {}

  const PacketMeta& meta() const { return *frame_.packets[index_].meta; }
  const uint8_t* bytes() const { return frame_.packets[index_].frame; }
  const FlowKey& inside_key() const { return frame_.records[index_]->inside_key; }
  // IPv6: as inside_key() has them. IPv4: anything.
  const WideAddresses& inside_addresses() const { return frame_.records[index_]->addresses; }
  // Soft state in the flow's record, which one function of a chain may use: see FlowTable::soft().
  std::span<const uint8_t, kSoftStateBytes> soft_of_flow() const {
    return frame_.table.soft(frame_.flows[index_]);
  }
  void store_soft_of_flow(size_t offset, std::span<const uint8_t> state) {
    frame_.table.store_soft(frame_.flows[index_], offset, state);
  }
  // A copy: it is a few bytes, and a reference into the pool would need an alignment of Hard's own.
  typename F::Hard hard() const {
    typename F::Hard hard;
    std::memcpy(&hard, frame_.records[index_]->hard + hard_offset_, sizeof(hard));
    return hard;
  }
  // F's variable state of the flow, as this burst sees it; empty: none yet, or it was damaged and
  // is lost. Valid until the next call for any packet.
  std::span<const std::byte> variable() const { return frame_.table.extent(frame_.flows[index_]); }
  // Replaces it, with at most F::kVariableBytes; nothing frees it. False: the pool is full, and the
  // flow keeps what it had.
  [[nodiscard]] bool commit_variable(std::span<const std::byte> content) {
    assert(content.size() <= F::kVariableBytes);
    const OpenStatus status = frame_.table.set_extent(frame_.flows[index_], content);
    assert(status != OpenStatus::kWriteSetFull);  // the runtime ends the burst before
    return status == OpenStatus::kOk;
  }
  // The frame, to change: its first editable_bytes() only.
  uint8_t* edit() {
    frame_.save(index_);
    return frame_.packets[index_].frame;
  }
  void drop(DropReason reason) {
    frame_.packets[index_].meta->verdict = Verdict::kDrop;
    frame_.packets[index_].meta->reason = reason;
  }

 private:
  BurstFrame& frame_;
  size_t index_;
  size_t hard_offset_;
};

template <typename F>
concept Translates = requires(const F& function, const FlowKey& key, const typename F::Hard& hard) {
  { function.outside_key(key, hard) } -> std::same_as<FlowKey>;
};

// The packets of a burst that entered by one side, in order, less those that were dropped.
template <typename F>
class Burst {
 public:
  Burst(BurstFrame& frame, Side side, size_t hard_offset)
      : frame_(frame), side_(side), hard_offset_(hard_offset) {}

  Side side() const { return side_; }
  uint32_t now_s() const { return frame_.now_s; }

  template <typename Visit>
  void for_each(Visit&& visit) {
    for (size_t i = 0; i < frame_.packets.size(); ++i) {
      const PacketMeta& meta = *frame_.packets[i].meta;
      if (meta.side != side_ || meta.verdict == Verdict::kDrop) continue;
      if constexpr (Translates<F>) {
        if (meta.is_wide()) continue;
      }
      FlowPacket<F> packet(frame_, i, hard_offset_);
      visit(packet);
    }
  }

 private:
  BurstFrame& frame_;
  Side side_;
  size_t hard_offset_;
};

}  // namespace flowkeep
