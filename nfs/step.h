// The adapter between a function's plain class and a chain: typed inside, virtual at the
// granularity of a burst. AnyFunction is a built function, shared by all workers of a revision;
// AnyStep is one worker's use of it, with that worker's soft state.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "nfs/function.h"

namespace flowkeep {

class AnyStep {
 public:
  virtual ~AnyStep() = default;
  virtual Decision open(OpeningFlow& flow) = 0;
  // Of a flow of another revision. `hard`: all functions' hard state, where this chain keeps it.
  virtual bool still_allowed(const FlowRecord& record, const uint8_t* hard) = 0;
  // Puts this function's state of a flow of another revision into `hard`. `from`: where that
  // revision kept it; null: it did not have this function. False: the flow cannot go on.
  virtual bool carry_over(const FlowRecord& record, const FunctionLayout* from, uint8_t* hard) = 0;
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
  virtual bool translates() const = 0;
  virtual std::span<const Be32> external_addresses() const = 0;
  // `hard`: this function's hard state. Only of functions that translate.
  virtual FlowKey outside_key(const FlowKey& inside, const uint8_t* hard) const = 0;
  // The function must outlive the step.
  virtual std::unique_ptr<AnyStep> make_step(size_t hard_offset) const = 0;
};

template <typename F>
concept Processes = requires(const F& function, Burst<F>& burst, typename F::Soft& soft) {
  function.process(burst, soft);
};

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
  Step(const F& function, size_t hard_offset)
      : function_(function), soft_(function.make_soft()), hard_offset_(hard_offset) {}

  Decision open(OpeningFlow& flow) override {
    if (passes_by(flow.inside_key)) return Decision::accept();
    NewFlow<F> typed(flow, hard_offset_);
    return function_.open(typed, soft_);
  }
  bool still_allowed(const FlowRecord& record, const uint8_t* hard) override {
    if (passes_by(record.inside_key)) return true;
    const Hard of_flow = typed(hard + hard_offset_);
    if constexpr (requires {
                    function_.still_allowed(record.inside_key, record.addresses, record.initiator,
                                            of_flow, soft_);
                  }) {
      return function_.still_allowed(record.inside_key, record.addresses, record.initiator, of_flow,
                                     soft_);
    } else {
      return function_.still_allowed(record.inside_key, record.initiator, of_flow, soft_);
    }
  }
  bool carry_over(const FlowRecord& record, const FunctionLayout* from, uint8_t* hard) override {
    if (passes_by(record.inside_key)) return true;
    if constexpr (kHasHard) {
      const std::optional<Hard> carried = carried_over(record, from);
      if (!carried) return false;
      std::memcpy(hard + hard_offset_, &*carried, sizeof(Hard));
    }
    return true;
  }
  bool has_process() const override { return Processes<F>; }
  void process(BurstFrame& frame, Side side) override {
    if constexpr (Processes<F>) {
      Burst<F> burst(frame, side, hard_offset_);
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
  size_t hard_offset_;
};

template <typename F>
class Function final : public AnyFunction {
 public:
  static_assert(std::is_trivially_copyable_v<typename F::Hard>);
  static_assert(variable_bytes_of<F>() <= kMaxExtentBytes);
  explicit Function(F function) : function_(std::move(function)) {}

  std::string_view type() const override { return F::kType; }
  Scope scope() const override { return F::kScope; }
  size_t hard_bytes() const override {
    return std::is_empty_v<typename F::Hard> ? 0 : sizeof(typename F::Hard);
  }
  size_t variable_bytes() const override { return variable_bytes_of<F>(); }
  uint32_t state_version() const override { return state_version_of<F>(); }
  bool translates() const override { return Translates<F>; }
  std::span<const Be32> external_addresses() const override {
    if constexpr (Translates<F>) return function_.external_addresses();
    return {};
  }
  FlowKey outside_key(const FlowKey& inside, const uint8_t* hard) const override {
    if constexpr (Translates<F>) {
      typename F::Hard typed;
      std::memcpy(&typed, hard, sizeof(typed));
      return function_.outside_key(inside, typed);
    }
    return inside.reversed();
  }
  std::unique_ptr<AnyStep> make_step(size_t hard_offset) const override {
    return std::make_unique<Step<F>>(function_, hard_offset);
  }

 private:
  F function_;
};

}  // namespace flowkeep
