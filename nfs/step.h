// The adapter between a function's plain class and a chain: typed inside, virtual at the
// granularity of a burst. AnyFunction is a built function, shared by all workers of a revision;
// AnyStep is one worker's use of it, with that worker's soft state.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "nfs/function.h"

namespace flowkeep {

class AnyStep {
 public:
  virtual ~AnyStep() = default;
  virtual Decision open(OpeningFlow& flow) = 0;
  virtual bool still_allowed(const FlowRecord& record) = 0;
  virtual bool has_process() const = 0;
  virtual void process(BurstFrame& frame, Side side) = 0;
};

class AnyFunction {
 public:
  virtual ~AnyFunction() = default;
  virtual std::string_view type() const = 0;
  virtual Scope scope() const = 0;
  virtual size_t hard_bytes() const = 0;
  virtual bool translates() const = 0;
  virtual std::span<const Be32> external_addresses() const = 0;
  // `hard`: this function's hard state. Only of functions that translate.
  virtual FlowKey outside_key(const FlowKey& inside, const uint8_t* hard) const = 0;
  // The function must outlive the step.
  virtual std::unique_ptr<AnyStep> make_step(size_t hard_offset) const = 0;
};

template <typename F>
concept Translates = requires(const F& function, const FlowKey& key, const typename F::Hard& hard) {
  { function.outside_key(key, hard) } -> std::same_as<FlowKey>;
};

template <typename F>
concept Processes = requires(const F& function, Burst<F>& burst, typename F::Soft& soft) {
  function.process(burst, soft);
};

template <typename F>
class Step final : public AnyStep {
 public:
  Step(const F& function, size_t hard_offset)
      : function_(function), soft_(function.make_soft()), hard_offset_(hard_offset) {}

  Decision open(OpeningFlow& flow) override {
    NewFlow<F> typed(flow, hard_offset_);
    return function_.open(typed, soft_);
  }
  bool still_allowed(const FlowRecord& record) override {
    typename F::Hard hard;
    if constexpr (!std::is_empty_v<typename F::Hard>) {
      std::memcpy(&hard, record.hard + hard_offset_, sizeof(hard));
    }
    return function_.still_allowed(record.inside_key, record.initiator, hard, soft_);
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
  const F& function_;
  typename F::Soft soft_;
  size_t hard_offset_;
};

template <typename F>
class Function final : public AnyFunction {
 public:
  static_assert(std::is_trivially_copyable_v<typename F::Hard>);
  explicit Function(F function) : function_(std::move(function)) {}

  std::string_view type() const override { return F::kType; }
  Scope scope() const override { return F::kScope; }
  size_t hard_bytes() const override {
    return std::is_empty_v<typename F::Hard> ? 0 : sizeof(typename F::Hard);
  }
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
