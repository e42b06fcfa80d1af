// The adapter between a function's plain class and a chain: typed inside, virtual at the
// granularity of a burst. AnyFunction is a built function, shared by all workers of a revision;
// AnyStep is one worker's use of it, with that worker's soft state.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nfs/function.h"

namespace flowkeep {

class AnyStep {
 public:
  virtual ~AnyStep() = default;
  virtual Decision open(OpeningFlow& flow) = 0;
  virtual Decision stray(OpeningFlow& packet) = 0;
  virtual bool inspects() const = 0;
  virtual Inspection inspect(InspectedFlow& flow) = 0;
  virtual bool hears_ends() const = 0;
  // A flow that open() has accepted does not open after all: another function or the pool refuses.
  virtual void not_opened(OpeningFlow& flow) = 0;
  // Of a flow that open() has accepted. `hard`: all functions' hard state, where this chain keeps
  // it.
  virtual void close(const FlowEnd& flow, const uint8_t* hard) = 0;
  // Of a flow of another revision. `hard`: all functions' hard state, where this chain keeps it.
  virtual bool still_allowed(const FlowRecord& record, const uint8_t* hard, FlowTable& table) = 0;
  // Puts this function's state of a flow of another revision into `hard`. `from`: where that
  // revision kept it; null: it did not have this function. False: the flow cannot go on.
  virtual bool carry_over(const FlowRecord& record, const FunctionLayout* from, uint8_t* hard) = 0;
  // Nothing may be staged. `looks`: how many leases to look at, at most.
  virtual void sweep(FlowTable& table, uint32_t bucket, uint32_t looks) = 0;
  virtual bool has_process() const = 0;
  virtual void process(BurstFrame& frame, Side side) = 0;
};

class AnyFunction {
 public:
  virtual ~AnyFunction() = default;
  virtual std::string_view type() const = 0;
  virtual Scope scope() const = 0;
  virtual size_t hard_bytes() const = 0;
  virtual size_t variable_bytes() const = 0;  // at most; 0: none
  virtual uint32_t state_version() const = 0;
  virtual uint32_t keyed_changes() const = 0;
  virtual uint32_t process_changes() const = 0;
  virtual bool translates() const = 0;
  virtual bool maps_endpoints() const = 0;
  virtual std::span<const Be32> external_addresses() const = 0;
  virtual std::span<const Forward> forwards() const = 0;
  virtual bool passes_untranslated() const = 0;
  // `hard`: this function's hard state. Only of functions that translate.
  virtual FlowKey outside_key(const FlowKey& inside, const uint8_t* hard) const = 0;
  virtual std::vector<std::string> counter_names() const = 0;
  virtual uint32_t most_counts() const = 0;  // of one packet
  virtual bool inspects() const = 0;
  // The function must outlive the step.
  virtual std::unique_ptr<AnyStep> make_step(StatePlace place) const = 0;
};

template <typename F>
concept Processes = requires(const F& function, Burst<F>& burst, typename F::Soft& soft) {
  function.process(burst, soft);
};

template <typename F>
concept Inspects = requires(const F& function, InspectedPacket<F>& packet, typename F::Soft& soft) {
  { function.inspect(packet, soft) } -> std::same_as<Inspection>;
};

template <typename F>
bool inspects_flows(const F& function) {
  if constexpr (requires { function.inspects(); }) return function.inspects();
  return Inspects<F>;
}

template <typename F>
concept HearsEnds = requires(const F& function, EndingFlow<F>& flow, typename F::Soft& soft) {
  function.close(flow, soft);
};

template <typename F>
constexpr bool maps_endpoints_of() {
  if constexpr (requires { F::kMapsEndpoints; }) return F::kMapsEndpoints;
  return false;
}

template <typename F>
constexpr uint32_t state_version_of() {
  if constexpr (requires { F::kStateVersion; }) return F::kStateVersion;
  return 1;
}

template <typename F>
constexpr size_t variable_bytes_of() {
  if constexpr (requires { F::kVariableBytes; }) return F::kVariableBytes;
  return 0;
}

template <typename F>
class Step final : public AnyStep {
 public:
  Step(const F& function, StatePlace place)
      : function_(function), soft_(function.make_soft()), place_(place) {}

  Decision open(OpeningFlow& flow) override {
    if (passes_by(flow.inside_key)) return Decision::accept();
    NewFlow<F> typed(flow, place_);
    return function_.open(typed, soft_);
  }
  Decision stray(OpeningFlow& packet) override {
    NewFlow<F> typed(packet, place_);
    if constexpr (requires { function_.stray(typed, soft_); }) return function_.stray(typed, soft_);
    return Decision::accept();
  }
  bool inspects() const override { return inspects_flows(function_); }
  Inspection inspect(InspectedFlow& flow) override {
    if constexpr (Inspects<F>) {
      InspectedPacket<F> typed(flow, place_);
      return function_.inspect(typed, soft_);
    }
    return {};
  }
  bool hears_ends() const override { return HearsEnds<F>; }
  void not_opened(OpeningFlow& flow) override {
    if constexpr (requires(NewFlow<F> & typed) { function_.not_opened(typed, soft_); }) {
      if (passes_by(flow.inside_key)) return;
      NewFlow<F> typed(flow, place_);
      function_.not_opened(typed, soft_);
    }
  }
  void close(const FlowEnd& flow, const uint8_t* hard) override {
    if (passes_by(flow.inside_key)) return;
    if constexpr (HearsEnds<F>) {
      // Which flows have opened with a function is known by their having its state.
      static_assert(kHasHard);
      const Hard of_flow = typed(hard + place_.hard_offset);
      EndingFlow<F> ending(flow, of_flow, place_);
      function_.close(ending, soft_);
    }
  }
  bool still_allowed(const FlowRecord& record, const uint8_t* hard, FlowTable& table) override {
    if (passes_by(record.inside_key)) return true;
    const Hard of_flow = typed(hard + place_.hard_offset);
    const KeyedState keyed(table, record.bucket, place_.owner);
    if constexpr (requires { function_.still_allowed(record, of_flow, keyed, soft_); })
      return function_.still_allowed(record, of_flow, keyed, soft_);
    else if constexpr (requires { function_.still_allowed(record, of_flow, soft_); })
      return function_.still_allowed(record, of_flow, soft_);
    else
      return function_.still_allowed(record.inside_key, record.initiator, of_flow, soft_);
  }
  bool carry_over(const FlowRecord& record, const FunctionLayout* from, uint8_t* hard) override {
    if (passes_by(record.inside_key)) return true;
    if constexpr (kHasHard) {
      const std::optional<Hard> carried = carried_over(record, from);
      if (!carried) return false;
      std::memcpy(hard + place_.hard_offset, &*carried, sizeof(Hard));
    }
    return true;
  }
  void sweep(FlowTable& table, uint32_t bucket, uint32_t looks) override {
    if constexpr (requires(SweptBucket & swept) { function_.sweep(swept, soft_); }) {
      SweptBucket swept(table, bucket, place_.owner, looks, sweep_places_[bucket]);
      function_.sweep(swept, soft_);
    }
  }
  bool has_process() const override { return Processes<F>; }
  void process(BurstFrame& frame, Side side) override {
    if constexpr (Processes<F>) {
      Burst<F> burst(frame, side, place_);
      function_.process(burst, soft_);
    }
  }
  const typename F::Soft& soft() const { return soft_; }

 private:
  using Hard = typename F::Hard;
  static constexpr bool kHasHard = !std::is_empty_v<Hard>;

  // What translates knows IPv4 only: flows of IPv6 have no state of it.
  static bool passes_by(const FlowKey& inside) {
    return Translates<F> && inside.family == Family::kIpv6;
  }
  static Hard typed(const uint8_t* bytes) {
    Hard hard;
    if constexpr (kHasHard) std::memcpy(&hard, bytes, sizeof(hard));
    return hard;
  }
  std::optional<Hard> carried_over(const FlowRecord& record, const FunctionLayout* from) const {
    if (from == nullptr) {
      if constexpr (requires { function_.adopt(record.inside_key, record.initiator); }) {
        return function_.adopt(record.inside_key, record.initiator);
      }
      return std::nullopt;
    }
    const std::span<const uint8_t> old(record.hard + from->offset, from->bytes);
    if (from->version == state_version_of<F>() && old.size() == sizeof(Hard)) {
      return typed(old.data());
    }
    if constexpr (requires { function_.migrate(from->version, old); }) {
      return function_.migrate(from->version, old);
    }
    return std::nullopt;
  }

  const F& function_;
  typename F::Soft soft_;
  StatePlace place_;
  std::array<uint32_t, kMaxBuckets> sweep_places_{};  // where the next sweep of a bucket goes on
};

template <typename F>
class Function final : public AnyFunction {
 public:
  static_assert(std::is_trivially_copyable_v<typename F::Hard>);
  static_assert(variable_bytes_of<F>() <= kMaxExtentBytes);
  explicit Function(F function) : function_(std::move(function)) {}

  std::string_view type() const override { return F::kType; }
  Scope scope() const override {
    if constexpr (requires { function_.scope(); })
      return function_.scope();
    else
      return F::kScope;
  }
  size_t hard_bytes() const override {
    return std::is_empty_v<typename F::Hard> ? 0 : sizeof(typename F::Hard);
  }
  size_t variable_bytes() const override { return variable_bytes_of<F>(); }
  uint32_t state_version() const override { return state_version_of<F>(); }
  uint32_t keyed_changes() const override {
    if constexpr (requires { function_.keyed_changes(); }) return function_.keyed_changes();
    return 0;
  }
  uint32_t process_changes() const override {
    if constexpr (requires { function_.process_changes(); }) return function_.process_changes();
    return 0;
  }
  bool translates() const override { return Translates<F>; }
  bool maps_endpoints() const override { return maps_endpoints_of<F>(); }
  std::span<const Be32> external_addresses() const override {
    if constexpr (Translates<F>) return function_.external_addresses();
    return {};
  }
  std::span<const Forward> forwards() const override {
    if constexpr (requires { function_.forwards(); }) return function_.forwards();
    return {};
  }
  bool passes_untranslated() const override {
    if constexpr (requires { function_.passes_untranslated(); })
      return function_.passes_untranslated();
    return false;
  }
  FlowKey outside_key(const FlowKey& inside, const uint8_t* hard) const override {
    if constexpr (Translates<F>) {
      typename F::Hard typed;
      std::memcpy(&typed, hard, sizeof(typed));
      return function_.outside_key(inside, typed);
    }
    return inside.reversed();
  }
  std::vector<std::string> counter_names() const override {
    if constexpr (requires { function_.counter_names(); }) return function_.counter_names();
    return {};
  }
  uint32_t most_counts() const override {
    if constexpr (requires { function_.most_counts(); }) return function_.most_counts();
    return counter_names().empty() ? 0 : 1;
  }
  bool inspects() const override { return inspects_flows(function_); }
  std::unique_ptr<AnyStep> make_step(StatePlace place) const override {
    return std::make_unique<Step<F>>(function_, place);
  }

 private:
  F function_;
};

}  // namespace flowkeep
