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
//                                                  // or with a FlowRecord for key and initiator,
//                                                  // and with a const KeyedState& before Soft.
//                                                  // With kMapsEndpoints also asked of a mapping,
//                                                  // with zero Hard: the record's keys must do
// and, to hear of a flow's end (one that opened with F, or migrated to it),
//   void close(EndingFlow<F>&, Soft&) const;       // also when another function refuses the flow
// or only that one which open() has accepted does not open, because another function refuses it,
//   void not_opened(NewFlow<F>&, Soft&) const;     // may take back what open() did to Soft
// and, if it keeps state beside the flows (nfs/keyed_state.h) or changes Hard later,
//   uint32_t keyed_changes() const;    // keys that one open() or close() touches at most
//   uint32_t process_changes() const;  // the same of process() for a packet, Hard counted as one
// and, where it has to see more than first packets,
//   void process(Burst<F>&, Soft&) const;          // every packet, the first included
// and, where it may answer a packet that neither belongs to a flow nor opens one,
//   Decision stray(NewFlow<F>&, Soft&) const;      // refuse, or accept: it has nothing to say
// and, where a packet of a flow may be refused, or pass without an effect on the flow,
//   Inspection inspect(InspectedPacket<F>&, Soft&) const;  // before the runtime follows it
//   bool inspects() const;                         // if only some configurations do
// and, for what users shall see,
//   std::vector<std::string> counter_names() const;  // see NewFlow::count()
//   uint32_t most_counts() const;                    // of one packet; 1 if it is not there
// and, if it translates (IPv4 alone: it does not see flows of IPv6, which pass as they are),
//   FlowKey outside_key(const FlowKey& inside, const Hard&) const;   // of packets from outside
//   std::span<const Be32> external_addresses() const;
//   static constexpr bool kMapsEndpoints = true;   // an endpoint's flows share one name outside;
//                                                  // open() then asks NewFlow::mapping() for it
//   std::span<const Forward> forwards() const;     // nfs/forward.h
//   bool passes_untranslated() const;              // some flows: see NewFlow::keeps_its_name()
//   void sweep(SweptBucket&, Soft&) const;         // now and then: gives leases of ports back
// and, if its scope depends on its configuration,
//   Scope scope() const;
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
// Hard state is const to a function; it is written by commit() and commit_variable(), and beside
// the flows by KeyedState, alone. There is no clock, lock, allocation or I/O after make_soft():
// time comes in with the burst. nfs/step.h turns F into a step of a chain.
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
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "nfs/flow_phase.h"
#include "nfs/forward.h"
#include "nfs/function_event.h"
#include "nfs/headers.h"
#include "nfs/keyed_state.h"
#include "nfs/packet.h"
#include "nfs/soft_undo.h"
#include "state/flow_table.h"
#include "state/index_keys.h"
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
  Timeouts timeouts = {};  // of the chain
};

struct Decision {
  DropReason refused = DropReason::kNone;  // kNone: accepted
  bool answered = false;                   // see NewFlow::edit_answer()
  static Decision accept() { return {}; }
  static Decision refuse(DropReason reason) { return {reason}; }
  static Decision answer(DropReason reason) { return {reason, true}; }
  bool accepted() const { return refused == DropReason::kNone; }
};

// An endpoint's two names, as keys: the local half counts.
struct EndpointMapping {
  FlowKey inside;
  FlowKey outside;
};

// A flow that is about to open, without its type: what the runtime hands to each step.
struct OpeningFlow {
  FlowKey inside_key;  // from the outside of a chain that translates: as the translator sets it
  Side initiator;
  uint32_t bucket;
  FlowTable& table;
  const Packet& packet;  // its first, as it came
  UndoLog& undo;
  EventStage& events;
  uint32_t now_s;
  const WideAddresses* addresses = nullptr;     // of an IPv6 flow, as the inside key has them
  std::optional<EndpointMapping> mapping = {};  // that its endpoint has already
  bool leased = true;                           // a lease of ports backs the outside name
  bool named_anew = true;                       // by the translator: false: it keeps its name
  uint8_t account = 0;                          // what the translator has counted for the mapping
  alignas(64) std::array<uint8_t, kHardStateBytes> hard{};
};

// Bytes from the start of the frame that functions may change: its headers, and those that it
// quotes.
inline size_t editable_bytes(const PacketMeta& meta) {
  const size_t headers =
      meta.inner_l3_offset != 0 ? kEditableBytes : meta.l4_offset + sizeof(TcpHeader);
  return std::min({headers, kEditableBytes, size_t{meta.length}});
}

// Copies the first `bytes` of a packet to the undo log, before their first change. The entry counts
// only when it is whole, because a worker may die between any two instructions and its successor
// then reads the log.
inline void save_packet(UndoLog& undo, const Packet& packet, size_t bytes) {
  assert(undo.count < kBurstPackets && bytes <= kEditableBytes);
  UndoEntry& entry = undo.entries[undo.count];
  entry.packet = packet.handle;
  entry.length = static_cast<uint32_t>(bytes);
  std::memcpy(entry.bytes, packet.frame, entry.length);
  // x86 keeps the order of stores, and the reader is another process or comes after the writer's
  // death: only the compiler must not reorder.
  __atomic_store_n(&undo.count, undo.count + 1, __ATOMIC_RELEASE);
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

// Lets a packet count at the chain's counter of that number.
inline void count_at(PacketMeta& meta, uint16_t counter) {
  const auto free = std::ranges::find(meta.counts, 0);
  assert(free != std::end(meta.counts));
  if (free != std::end(meta.counts)) *free = static_cast<uint16_t>(counter + 1);
}

// Where in a chain a function's state and counters begin.
struct StatePlace {
  size_t hard_offset = 0;  // in FlowRecord::hard
  uint16_t counters = 0;   // among the chain's
  Be16 owner{};            // of its keyed state
};

// What a packet means for its flow.
struct Inspection {
  enum class Effect : uint8_t {
    kFollow,  // its phase and idle time move on
    kIgnore,  // the packet passes, the flow stays as it is, and as old
    kDrop,    // so does the flow, and the packet goes no further
  };
  Effect effect = Effect::kFollow;
  DropReason reason = DropReason::kNone;
};

// A flow with its next packet, without its type. The record is as it was before the packet.
struct InspectedFlow {
  const Packet& packet;
  UndoLog& undo;
  FlowTable& table;
  RecordId id;
  const FlowRecord& record;
  uint16_t epoch;
  uint32_t now_s;
};

template <typename F>
class InspectedPacket {
 public:
  InspectedPacket(InspectedFlow& flow, StatePlace place) : flow_(flow), place_(place) {}

  const PacketMeta& meta() const { return *flow_.packet.meta; }
  const uint8_t* bytes() const { return flow_.packet.frame; }
  const FlowRecord& flow() const { return flow_.record; }
  uint32_t now_s() const { return flow_.now_s; }
  HashSecret hash_secret() const { return flow_.table.hash_secret(); }
  void count(size_t counter) {
    count_at(*flow_.packet.meta, static_cast<uint16_t>(place_.counters + counter));
  }
  // The flow's soft state, which survives the worker. Zero in a new flow; it is of this node's life
  // if it has this life's epoch, which is never 0, and anything at all if not.
  uint16_t epoch() const { return flow_.epoch; }
  template <typename Track>
  Track soft() const {
    static_assert(std::is_trivially_copyable_v<Track> && sizeof(Track) == kSoftStateBytes);
    Track track;
    std::memcpy(&track, flow_.table.soft(flow_.id).data(), sizeof(track));
    return track;
  }
  template <typename Track>
  void store_soft(const Track& track) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(&track);
    if (std::memcmp(bytes, flow_.table.soft(flow_.id).data(), sizeof(track)) == 0) return;
    save_soft(flow_.undo, flow_.table, flow_.id);
    flow_.table.store_soft(flow_.id, 0, {bytes, sizeof(track)});
  }

 private:
  InspectedFlow& flow_;
  StatePlace place_;
};

// A flow that is about to open, as a function sees it, without the function's type.
class AnyNewFlow {
 public:
  AnyNewFlow(OpeningFlow& flow, StatePlace place) : flow_(flow), place_(place) {}

  // Its first packet, as it came from the wire.
  const PacketMeta& meta() const { return *flow_.packet.meta; }
  const uint8_t* bytes() const { return flow_.packet.frame; }
  HashSecret hash_secret() const { return flow_.table.hash_secret(); }
  // To turn the packet into the answer to its sender: the first kEditableBytes of its buffer. Then
  // set_answer_bytes(), and Decision::answer().
  uint8_t* edit_answer() {
    save_packet(flow_.undo, flow_.packet, std::min<size_t>(kEditableBytes, meta().length));
    return flow_.packet.frame;
  }
  void set_answer_bytes(size_t frame_bytes) {
    flow_.packet.meta->reply_length = static_cast<uint16_t>(frame_bytes);
  }
  // The packet counts once more at counter_names()[counter].
  void count(size_t counter) {
    count_at(*flow_.packet.meta, static_cast<uint16_t>(place_.counters + counter));
  }
  // An event for the users, under the name of that counter.
  void log(size_t counter) {
    flow_.events.add(static_cast<uint16_t>(place_.counters + counter), flow_.now_s, flow_.packet);
  }

  // An event that is not about the packet.
  void tell(size_t counter, const FlowKey& key, std::initializer_list<uint64_t> values);

  const FlowKey& inside_key() const { return flow_.inside_key; }
  // IPv6: as inside_key() has them. IPv4: null.
  const WideAddresses* inside_addresses() const { return flow_.addresses; }
  Side initiator() const { return flow_.initiator; }
  uint32_t bucket() const { return flow_.bucket; }
  uint32_t now_s() const { return flow_.now_s; }
  KeyedState keyed() { return {flow_.table, flow_.bucket, place_.owner}; }
  // Of the endpoint that the flow belongs to: a flow from the inside keeps its outside name, one
  // from the outside belongs to its inside name.
  const std::optional<EndpointMapping>& mapping() const { return flow_.mapping; }
  // For a translator: its outside name is configured, and no lease is needed to find its bucket.
  void needs_no_lease() { flow_.leased = false; }
  // For a translator: up to kMostAccount, says what it has counted for the mapping that begins
  // here. It stays with the mapping, whatever revisions come, and is told at the mapping's end.
  void set_mapping_account(uint8_t account) {
    assert(account <= kMostAccount);
    flow_.account = account;
  }
  // For a translator: this flow is not translated.
  void keeps_its_name() { flow_.named_anew = false; }
  // Whose flow from the outside this is.
  void set_inside_endpoint(Be32 address, Be16 port) {
    flow_.inside_key.src = address;
    flow_.inside_key.src_port = port;
  }
  // Keyed, so that nobody outside can choose where a flow's hash falls.
  uint64_t hash_inside_endpoint() const {
    const FlowKey& key = flow_.inside_key;
    return hash_endpoint(key.src, key.src_port, key.protocol, flow_.table.hash_secret());
  }
  uint64_t hash_inside_host() const {
    return hash_endpoint(flow_.inside_key.src, Be16{}, 0, flow_.table.hash_secret());
  }
  // Has no endpoint of this bucket the outside name that this key has?
  bool outside_endpoint_free(const FlowKey& outside) const {
    const FlowKey endpoint = endpoint_key(outside);
    return flow_.table.find_indexed(flow_.bucket, endpoint,
                                    hash_key(endpoint, flow_.table.hash_secret())) == 0;
  }
  // External port blocks, leased to buckets: the bucket that holds one, or -1.
  int32_t lease_owner(uint32_t address_index, uint32_t block) const {
    return flow_.table.lease_owner(address_index, block);
  }
  bool lease_acquire(uint32_t address_index, uint32_t block) {
    return flow_.table.lease_acquire(address_index, block, flow_.bucket);
  }

 protected:
  OpeningFlow& flow_;
  StatePlace place_;
};

template <typename F>
class NewFlow : public AnyNewFlow {
 public:
  using AnyNewFlow::AnyNewFlow;
  void commit(const typename F::Hard& hard) {
    std::memcpy(flow_.hard.data() + place_.hard_offset, &hard, sizeof(hard));
  }
};

// An event that is about no packet: `key` says what it is about.
inline void tell(EventStage& events, uint16_t counter, uint32_t now_s, const FlowKey& key,
                 std::initializer_list<uint64_t> values) {
  FunctionEvent event;
  event.key = key;
  event.at_s = now_s;
  event.counter = counter;
  assert(values.size() <= std::size(event.values));
  std::ranges::copy(values, event.values);
  events.add(event);
}
inline void AnyNewFlow::tell(size_t counter, const FlowKey& key,
                             std::initializer_list<uint64_t> values) {
  flowkeep::tell(flow_.events, static_cast<uint16_t>(place_.counters + counter), flow_.now_s, key,
                 values);
}

// A flow that ends, without its type.
struct FlowEnd {
  FlowKey inside_key;
  Side initiator;
  FlowPhase phase;
  uint32_t bucket;
  FlowTable& table;
  EventStage& events;
  uint32_t now_s;
  bool ends_mapping;
  uint8_t account;  // of the mapping
};

template <typename F>
class EndingFlow {
 public:
  EndingFlow(const FlowEnd& flow, const typename F::Hard& hard, StatePlace place)
      : flow_(flow), hard_(hard), place_(place) {}

  const FlowKey& inside_key() const { return flow_.inside_key; }
  Side initiator() const { return flow_.initiator; }
  FlowPhase phase() const { return flow_.phase; }  // kOpening also if it was refused at last
  const typename F::Hard& hard() const { return hard_; }
  // As NewFlow's.
  void tell(size_t counter, const FlowKey& key, std::initializer_list<uint64_t> values) {
    flowkeep::tell(flow_.events, static_cast<uint16_t>(place_.counters + counter), flow_.now_s, key,
                   values);
  }
  // Was it the last that used its endpoint's mapping?
  bool ends_mapping() const { return flow_.ends_mapping; }
  // As NewFlow::set_mapping_account() was told when the mapping began.
  uint8_t mapping_account() const { return flow_.account; }
  uint32_t now_s() const { return flow_.now_s; }
  KeyedState keyed() { return {flow_.table, flow_.bucket, place_.owner}; }

 private:
  const FlowEnd& flow_;
  const typename F::Hard& hard_;
  StatePlace place_;
};

// A bucket between bursts, for a function that gives back what it leases. Looks at a few leases a
// time, and goes on where it stopped.
class SweptBucket {
 public:
  static constexpr uint32_t kStepsForALook = 256;

  SweptBucket(FlowTable& table, uint32_t bucket, Be16 owner, uint32_t looks, uint32_t& place)
      : table_(table), bucket_(bucket), owner_(owner), looks_(looks), place_(place) {}

  uint32_t bucket() const { return bucket_; }
  KeyedState keyed() { return {table_, bucket_, owner_}; }
  // Places from 0 to `places` - 1, one after the other.
  uint32_t next_place(uint32_t places) {
    --steps_;
    return place_ = (place_ + 1) % places;
  }
  bool may_look_further() const { return looks_ != 0 && steps_ != 0; }
  void looked_at_one() { --looks_; }
  int32_t lease_owner(uint32_t address_index, uint32_t block) const {
    return table_.lease_owner(address_index, block);
  }
  void lease_release(uint32_t address_index, uint32_t block) {
    table_.lease_release(address_index, block, bucket_);
  }
  bool outside_endpoint_free(const FlowKey& outside) const {
    const FlowKey endpoint = endpoint_key(outside);
    return table_.find_indexed(bucket_, endpoint, hash_key(endpoint, table_.hash_secret())) == 0;
  }

 private:
  FlowTable& table_;
  uint32_t bucket_;
  Be16 owner_;
  uint32_t looks_;
  uint32_t steps_ = looks_ * kStepsForALook;
  uint32_t& place_;
};

// A burst on its way through the steps. Arrays are parallel, one element for each packet.
struct BurstFrame {
  std::span<Packet> packets;
  FlowTable& table;
  std::span<const RecordId> flows;                       // 0: dropped before it had a flow
  std::array<const FlowRecord*, kBurstPackets> records;  // nullptr: dropped before it had a flow
  UndoLog& undo;
  EventStage& events;
  uint64_t saved = 0;  // bit i: packet i is in the undo log
  uint32_t now_s;

  // Saves the packet's headers before their first change.
  void save(size_t i) {
    if (saved >> i & 1) return;
    save_packet(undo, packets[i], editable_bytes(*packets[i].meta));
    saved |= uint64_t{1} << i;
  }
};

// One packet of a burst with its flow, as function F sees it.
template <typename F>
class FlowPacket {
 public:
  FlowPacket(BurstFrame& frame, size_t index, StatePlace place)
      : frame_(frame), index_(index), place_(place) {}

  const PacketMeta& meta() const { return *frame_.packets[index_].meta; }
  const uint8_t* bytes() const { return frame_.packets[index_].frame; }
  const FlowKey& inside_key() const { return frame_.records[index_]->inside_key; }
  // IPv6: as inside_key() has them. IPv4: anything.
  const WideAddresses& inside_addresses() const { return frame_.records[index_]->addresses; }
  // A copy: it is a few bytes, and a reference into the pool would need an alignment of Hard's own.
  typename F::Hard hard() const {
    typename F::Hard hard;
    std::memcpy(&hard, frame_.records[index_]->hard + place_.hard_offset, sizeof(hard));
    return hard;
  }
  void commit(const typename F::Hard& hard) {
    FlowRecord& staged = frame_.table.stage(frame_.flows[index_]);
    std::memcpy(staged.hard + place_.hard_offset, &hard, sizeof(hard));
    for (size_t i = 0; i < frame_.packets.size(); ++i) {
      if (frame_.flows[i] == frame_.flows[index_]) frame_.records[i] = &staged;
    }
  }
  KeyedState keyed() { return {frame_.table, meta().bucket, place_.owner}; }
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
  // As NewFlow's.
  void count(size_t counter) {
    count_at(*frame_.packets[index_].meta, static_cast<uint16_t>(place_.counters + counter));
  }
  void log(size_t counter) {
    frame_.events.add(static_cast<uint16_t>(place_.counters + counter), frame_.now_s,
                      frame_.packets[index_]);
  }

 private:
  BurstFrame& frame_;
  size_t index_;
  StatePlace place_;
};

template <typename F>
concept Translates = requires(const F& function, const FlowKey& key, const typename F::Hard& hard) {
  { function.outside_key(key, hard) } -> std::same_as<FlowKey>;
};

// The packets of a burst that entered by one side, in order, less those that were dropped.
template <typename F>
class Burst {
 public:
  Burst(BurstFrame& frame, Side side, StatePlace place)
      : frame_(frame), side_(side), place_(place) {}

  Side side() const { return side_; }
  uint32_t now_s() const { return frame_.now_s; }

  template <typename Visit>
  void for_each(Visit&& visit) {
    for (size_t i = 0; i < frame_.packets.size(); ++i) {
      const PacketMeta& meta = *frame_.packets[i].meta;
      if (meta.side != side_ || meta.verdict != Verdict::kForward) continue;
      if constexpr (Translates<F>) {
        if (meta.is_wide()) continue;
      }
      FlowPacket<F> packet(frame_, i, place_);
      visit(packet);
    }
  }

 private:
  BurstFrame& frame_;
  Side side_;
  StatePlace place_;
};

}  // namespace flowkeep
