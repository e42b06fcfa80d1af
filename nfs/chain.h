// Chain: one revision of a tenant's chain, built: its functions, where each keeps its hard state in
// a flow record, and how the chain is steered.
//
// Thread rule: immutable after build(). A zygote builds it, its workers share it copy-on-write and
// make a ChainRuntime (nfs/chain_runtime.h) each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nfs/flow_phase.h"
#include "nfs/registry.h"
#include "state/state_layout.h"

namespace flowkeep {

struct ChainSpec {
  std::string name;
  uint32_t revision = 0;
  std::vector<FunctionSpec> functions;  // in order from the inside to the outside
  Timeouts timeouts = {};
};

// Offset in FlowRecord::hard of each function's hard state, given their sizes; aligned to 8 bytes.
// Nothing if they need more than kHardStateBytes.
std::optional<std::vector<size_t>> layout_hard_state(std::span<const size_t> bytes);

class Chain {
 public:
  struct Element {
    std::unique_ptr<AnyFunction> function;
    size_t hard_offset = 0;
    uint16_t counters = 0;  // number of its first counter
    uint8_t instance = 0;   // how many functions of the same type come before it
    StatePlace place() const;
  };

  // Errors name the field: "spec.functions[1].config.rules[2].source[0]". context.field is not
  // used.
  static Result<std::unique_ptr<Chain>> build(const ChainSpec& spec,
                                              const FunctionContext& context);

  const std::string& name() const { return name_; }
  uint32_t revision() const { return revision_; }
  std::span<const Element> elements() const { return elements_; }
  const Timeouts& timeouts() const { return timeouts_; }
  // Where the functions keep their hard state; tells workers of other revisions.
  const StateLayout& state_layout() const { return state_layout_; }
  // Entry of a layout, this chain's or another revision's, for element `index` of this chain; null:
  // it has no state there.
  const FunctionLayout* find_state(const StateLayout& layout, size_t index) const;
  // The most that a function of the chain keeps beside the record; 0: none does.
  size_t variable_bytes() const { return variable_bytes_; }
  // Names of all functions' counters, of which a packet's counts are the numbers: "firewall.web".
  std::vector<std::string> counter_names() const;
  // The coarsest scope of the functions that is not kChain.
  Scope steering_scope() const { return scope_; }
  // Do an endpoint's flows share one name outside? Then they are opened and found by it.
  bool maps_endpoints() const { return translator_ != nullptr && maps_endpoints_; }
  // Keys of keyed state that open(), or close(), of all functions touch at most; and what process()
  // changes for a packet.
  uint32_t keyed_changes() const { return keyed_changes_; }
  uint32_t process_changes() const { return process_changes_; }
  // Addresses that the outside sees instead of the inside hosts'. Empty: the chain does not
  // translate. The index into this list is the address index of port leases.
  std::span<const Be32> external_addresses() const;
  // External endpoints that belong to an inside endpoint by configuration.
  std::span<const Forward> forwards() const;
  // Packets from the outside may be to an inside host's own address, too.
  bool passes_untranslated() const;
  // Key by which packets from the outside find the flow. `hard`: FlowRecord::hard.
  FlowKey outside_key(const FlowKey& inside, const uint8_t* hard) const;

 private:
  Chain(const ChainSpec& spec, std::vector<Element> elements);

  std::string name_;
  uint32_t revision_;
  Timeouts timeouts_;
  std::vector<Element> elements_;
  const Element* translator_ = nullptr;  // at most one
  Scope scope_ = Scope::kFlow;
  StateLayout state_layout_;
  size_t variable_bytes_ = 0;
  bool maps_endpoints_ = false;
  uint32_t keyed_changes_ = 0;
  uint32_t process_changes_ = 0;
};

// Would build() accept this chain? With a linear classifier, for whoever has no packets to
// classify.
Result<void> validate_chain(const ChainSpec& spec);

}  // namespace flowkeep
