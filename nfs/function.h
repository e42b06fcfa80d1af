// What a network function is to the platform.
//
// A function is a plain class `F` with
//
//   using Config = <protobuf message>;             // validated whole by create()
//   static constexpr std::string_view kType;       // "nat44", as in chain YAML
//   static constexpr Scope kScope;                 // what its hard state belongs to
//   struct Hard { ... };                           // trivially copyable, at most 64 bytes, fixed layout
//   static Result<F> create(const Config&, const FunctionContext&);
//   Decision open(NewFlow<F>&);                    // a flow's first packet: accept with hard state, or refuse
//   void process(Burst<F>&);                       // every packet of every flow, its first included
//   bool still_allowed(const FlowKey& inside, const Hard&) const;   // after a change of revision
//   FlowKey outside_key(const FlowKey& inside, const Hard&) const;  // tuple after this function (only
//                                                  // functions that translate; others: the same key)
//
// Hard state is const to a function; the only way to change it is commit(). There is no clock, lock,
// allocation or I/O after create(): time comes in with the burst. The adapter in nfs/chain.cc turns F
// into a step of a chain.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nfs/packet.h"
#include "state/flow_table.h"
#include "state/result.h"

namespace flowkeep {

// What a function's state belongs to, from fine to coarse. A chain is steered by the coarsest.
enum class Scope : uint8_t { kFlow, kEndpoint, kHost, kChain };

class Classifier;  // nfs/firewall/classifier.h

// What the platform lends a function at creation.
struct FunctionContext {
  std::string field;   // path of the configuration, for errors: "spec.functions[0].config"
  // Makes the rule classifier (rte_acl in a node, a linear search in tests and in the controller's validation).
  std::function<std::unique_ptr<Classifier>()> make_classifier;
};

struct Decision {
  DropReason refused = DropReason::kNone;   // kNone: accepted
  static Decision accept() { return {}; }
  static Decision refuse(DropReason reason) { return {reason}; }
  bool accepted() const { return refused == DropReason::kNone; }
};

// The first packet of a flow. `key` is the flow's inside key as the preceding functions left it.
template <typename F>
class NewFlow {
 public:
  NewFlow(const FlowKey& key, const Packet& packet, uint32_t bucket, FlowTable& table, void* hard)
      : key_(key), packet_(packet), bucket_(bucket), table_(table), hard_(hard) {}
  const FlowKey& inside_key() const { return key_; }
  Side initiated_from() const { return packet_.meta->side; }
  const Packet& packet() const { return packet_; }
  uint32_t bucket() const { return bucket_; }
  // Is no flow of this bucket known by this key to the outside?
  bool outside_key_free(const FlowKey& outside) const {
    return table_.find(bucket_, outside, hash_key(outside, table_.hash_secret())) == 0;
  }
  // External port blocks, leased to buckets.
  int32_t lease_owner(uint32_t address_index, uint32_t block) const {
    return table_.lease_owner(address_index, block);
  }
  bool lease_acquire(uint32_t address_index, uint32_t block) {
    return table_.lease_acquire(address_index, block, bucket_);
  }
  void commit(const typename F::Hard& hard) { std::memcpy(hard_, &hard, sizeof(hard)); }

 private:
  const FlowKey& key_;
  const Packet& packet_;
  uint32_t bucket_;
  FlowTable& table_;
  void* hard_;
};

// The packets of a burst that this function has to see, one direction at a time, each with its flow.
class BurstView {
 public:
  virtual ~BurstView() = default;
};

}  // namespace flowkeep
