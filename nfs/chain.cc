#include "nfs/chain.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "nfs/firewall/linear_classifier.h"

namespace flowkeep {
namespace {

constexpr uint32_t kMostTimeoutSeconds = 30 * 24 * 3600;

std::string function_field(size_t index) {
  return "spec.functions[" + std::to_string(index) + "]";
}

// A translation must be the last step: the functions before it then all see inside keys, and the
// record's outside key is its alone to give.
Result<void> check_translators(std::span<const Chain::Element> elements) {
  for (size_t i = 0; i + 1 < elements.size(); ++i) {
    const AnyFunction& function = *elements[i].function;
    if (!function.translates()) continue;
    return invalid(function_field(i) + ".type",
                   '"' + std::string(function.type()) +
                       "\" translates addresses and must be the last function; accepted: at most "
                       "one translating function, in the last place");
  }
  return {};
}

// A flow has one extent.
Result<void> check_variable_state(std::span<const Chain::Element> elements) {
  bool taken = false;
  for (size_t i = 0; i < elements.size(); ++i) {
    const AnyFunction& function = *elements[i].function;
    if (function.variable_bytes() == 0) continue;
    if (taken) {
      return invalid(function_field(i) + ".type",
                     '"' + std::string(function.type()) +
                         "\" keeps state of variable size, as an earlier function does; accepted: "
                         "one such function in a chain");
    }
    taken = true;
  }
  return {};
}

// The soft state of a flow has room for one.
Result<void> check_inspectors(std::span<const Chain::Element> elements) {
  bool taken = false;
  for (size_t i = 0; i < elements.size(); ++i) {
    if (!elements[i].function->inspects()) continue;
    if (taken) {
      return invalid(function_field(i) + ".type",
                     '"' + std::string(elements[i].function->type()) +
                         "\" tracks connections, as an earlier function does; accepted: one such "
                         "function in a chain");
    }
    taken = true;
  }
  return {};
}

// Keys of keyed state tell functions apart by 16 bits.
Result<void> check_state_owners(std::span<const Chain::Element> elements) {
  for (size_t i = 0; i < elements.size(); ++i) {
    for (size_t other = 0; other < i; ++other) {
      if (!(elements[i].place().owner == elements[other].place().owner)) continue;
      return invalid(function_field(i) + ".type",
                     '"' + std::string(elements[i].function->type()) +
                         "\" cannot stand in one chain with spec.functions[" +
                         std::to_string(other) + "], whose keyed state has the same mark");
    }
  }
  return {};
}

void count_instances(std::span<Chain::Element> elements) {
  for (size_t i = 0; i < elements.size(); ++i) {
    const auto before = elements.first(i);
    elements[i].instance =
        static_cast<uint8_t>(std::ranges::count_if(before, [&](const auto& other) {
          return other.function->type() == elements[i].function->type();
        }));
  }
}

// A translation that is forgotten too early breaks what RFC 5382 REQ-5, RFC 4787 REQ-5 and RFC 5508
// REQ-2 promise; every flow needs some time.
Result<void> check_timeouts(const Timeouts& timeouts, std::span<const Chain::Element> elements) {
  struct Limit {
    const char* name;
    uint32_t value_s;
    uint32_t least_translated_s;
  };
  const bool translated = std::ranges::any_of(
      elements, [](const Chain::Element& element) { return element.function->translates(); });
  for (const Limit& limit :
       {Limit{"tcp_opening_s", timeouts.tcp_opening_s, 240},
        Limit{"tcp_established_s", timeouts.tcp_established_s, 7440},
        Limit{"tcp_closing_s", timeouts.tcp_closing_s, 240},
        Limit{"tcp_closed_s", timeouts.tcp_closed_s, 240},
        Limit{"udp_opening_s", timeouts.udp_opening_s, 120}, Limit{"udp_s", timeouts.udp_s, 120},
        Limit{"icmp_s", timeouts.icmp_s, 60}, Limit{"other_s", timeouts.other_s, 1}}) {
    const uint32_t least = translated ? limit.least_translated_s : 1;
    if (limit.value_s >= least && limit.value_s <= kMostTimeoutSeconds) continue;
    return invalid(std::string("spec.timeouts.") + limit.name,
                   std::to_string(limit.value_s) + " is not accepted; " +
                       (translated ? "a chain that translates needs " : "accepted: ") +
                       std::to_string(least) + " to " + std::to_string(kMostTimeoutSeconds));
  }
  return {};
}

Result<void> place_counters(std::span<Chain::Element> elements) {
  size_t next = 0;
  for (size_t i = 0; i < elements.size(); ++i) {
    elements[i].counters = static_cast<uint16_t>(next);
    next += elements[i].function->counter_names().size();
    if (next <= kMaxChainCounters) continue;
    return invalid(function_field(i), "has more counters than a chain holds; accepted: " +
                                          std::to_string(kMaxChainCounters) + " in all");
  }
  return {};
}

// A packet has room for a few numbers of counters.
Result<void> check_counts(std::span<const Chain::Element> elements) {
  uint32_t counts = 0;
  for (size_t i = 0; i < elements.size(); ++i) {
    const AnyFunction& function = *elements[i].function;
    counts += function.most_counts();
    if (counts <= kPacketCounts) continue;
    return invalid(function_field(i) + ".type",
                   '"' + std::string(function.type()) + "\" and the functions before it count a " +
                       "packet " + std::to_string(counts) + " times; accepted: at most " +
                       std::to_string(kPacketCounts) + " times in a chain");
  }
  return {};
}

FunctionLayout layout_of(const Chain::Element& element) {
  const AnyFunction& function = *element.function;
  FunctionLayout layout = {};
  assert(function.type().size() < sizeof(layout.type));
  std::ranges::copy(function.type(), layout.type);
  layout.version = function.state_version();
  layout.instance = element.instance;
  layout.offset = static_cast<uint8_t>(element.hard_offset);
  layout.bytes = static_cast<uint8_t>(function.hard_bytes());
  layout.has_extent = function.variable_bytes() != 0 ? 1 : 0;
  return layout;
}

}  // namespace

std::optional<std::vector<size_t>> layout_hard_state(std::span<const size_t> bytes) {
  std::vector<size_t> offsets;
  size_t next = 0;
  for (const size_t size : bytes) {
    offsets.push_back(next);
    next += (size + 7) / 8 * 8;
    if (next > kHardStateBytes) return std::nullopt;
  }
  return offsets;
}

Result<std::unique_ptr<Chain>> Chain::build(const ChainSpec& spec, const FunctionContext& context) {
  if (spec.functions.empty()) {
    return invalid("spec.functions", "is empty; accepted: at least one function");
  }
  std::vector<Element> elements;
  std::vector<size_t> sizes;
  FunctionContext of_chain = context;
  of_chain.timeouts = spec.timeouts;
  for (size_t i = 0; i < spec.functions.size(); ++i) {
    auto function = build_function(spec.functions[i], function_field(i), of_chain);
    if (!function.ok()) return function.error();
    sizes.push_back((*function)->hard_bytes());
    elements.push_back({std::move(*function), 0, 0, 0});
  }
  if (const auto checked = check_translators(elements); !checked.ok()) return checked.error();
  if (const auto checked = check_variable_state(elements); !checked.ok()) return checked.error();
  if (const auto checked = check_inspectors(elements); !checked.ok()) return checked.error();
  count_instances(elements);
  if (const auto checked = check_state_owners(elements); !checked.ok()) return checked.error();
  if (const auto checked = check_timeouts(spec.timeouts, elements); !checked.ok())
    return checked.error();
  if (const auto placed = place_counters(elements); !placed.ok()) return placed.error();
  if (const auto checked = check_counts(elements); !checked.ok()) return checked.error();
  const auto offsets = layout_hard_state(sizes);
  if (!offsets) {
    return invalid("spec.functions",
                   "need more state for each flow than a record holds; accepted: " +
                       std::to_string(kHardStateBytes) + " bytes in all");
  }
  for (size_t i = 0; i < elements.size(); ++i) elements[i].hard_offset = (*offsets)[i];
  return std::unique_ptr<Chain>(new Chain(spec, std::move(elements)));
}

Chain::Chain(const ChainSpec& spec, std::vector<Element> elements)
    : name_(spec.name),
      revision_(spec.revision),
      timeouts_(spec.timeouts),
      elements_(std::move(elements)) {
  for (const Element& element : elements_) {
    if (element.function->translates()) translator_ = &element;
    variable_bytes_ = std::max(variable_bytes_, element.function->variable_bytes());
    maps_endpoints_ |= element.function->maps_endpoints();
    keyed_changes_ += element.function->keyed_changes();
    process_changes_ += element.function->process_changes();
    if (element.function->hard_bytes() != 0 || element.function->variable_bytes() != 0) {
      state_layout_.function[state_layout_.functions++] = layout_of(element);
    }
    if (element.function->scope() != Scope::kChain) {
      scope_ = std::max(scope_, element.function->scope());
    }
  }
}

StatePlace Chain::Element::place() const {
  return {hard_offset, counters,
          state_owner(function->type(), instance, function->state_version())};
}

const FunctionLayout* Chain::find_state(const StateLayout& layout, size_t index) const {
  const Element& element = elements_[index];
  for (const FunctionLayout& entry : layout.all()) {
    if (entry.instance == element.instance && element.function->type() == entry.type) return &entry;
  }
  return nullptr;
}

std::vector<std::string> Chain::counter_names() const {
  std::vector<std::string> names;
  for (const Element& element : elements_) {
    std::string prefix(element.function->type());
    if (element.instance > 0) prefix += std::to_string(element.instance + 1);
    for (const std::string& name : element.function->counter_names())
      names.push_back(prefix + '.' + name);
  }
  return names;
}

std::span<const Be32> Chain::external_addresses() const {
  return translator_ == nullptr ? std::span<const Be32>{}
                                : translator_->function->external_addresses();
}

std::span<const Forward> Chain::forwards() const {
  return translator_ == nullptr ? std::span<const Forward>{} : translator_->function->forwards();
}

bool Chain::passes_untranslated() const {
  return translator_ != nullptr && translator_->function->passes_untranslated();
}

FlowKey Chain::outside_key(const FlowKey& inside, const uint8_t* hard) const {
  if (translator_ == nullptr || inside.family == Family::kIpv6) return inside.reversed();
  return translator_->function->outside_key(inside, hard + translator_->hard_offset);
}

Result<void> validate_chain(const ChainSpec& spec) {
  FunctionContext context;
  context.make_classifier = [] { return std::make_unique<LinearClassifier>(); };
  const auto chain = Chain::build(spec, context);
  if (!chain.ok()) return chain.error();
  return {};
}

}  // namespace flowkeep
