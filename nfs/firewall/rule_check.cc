#include "nfs/firewall/rule_check.h"

#include <google/protobuf/util/message_differencer.h>
#include <algorithm>
#include <optional>
#include <span>

#include "nfs/firewall/firewall.h"
#include "nfs/firewall/ip_prefix.h"
#include "nfs/firewall/rules.h"

namespace flowkeep {
namespace {

using Entries = std::span<const ClassifierRule>;

bool range_covers(uint16_t first, uint16_t last, uint16_t inner_first, uint16_t inner_last) {
  return first <= inner_first && inner_last <= last;
}

// Does `outer` match everything that `inner` does?
bool covers(const ClassifierRule& outer, const ClassifierRule& inner) {
  return outer.family == inner.family && outer.src_bits <= inner.src_bits &&
         outer.dst_bits <= inner.dst_bits &&
         (outer.any_protocol || (!inner.any_protocol && outer.protocol == inner.protocol)) &&
         (outer.direction == RuleDirection::kAny || outer.direction == inner.direction) &&
         (outer.tcp_flags_mask & ~inner.tcp_flags_mask) == 0 &&
         (inner.tcp_flags & outer.tcp_flags_mask) == outer.tcp_flags &&
         range_covers(outer.src_port_first, outer.src_port_last, inner.src_port_first,
                      inner.src_port_last) &&
         range_covers(outer.dst_port_first, outer.dst_port_last, inner.dst_port_first,
                      inner.dst_port_last) &&
         same_prefix(outer.src, inner.src, outer.src_bits) &&
         same_prefix(outer.dst, inner.dst, outer.dst_bits);
}

// Is there anything that both match?
bool overlap(const ClassifierRule& a, const ClassifierRule& b) {
  const auto ranges_meet = [](uint16_t first, uint16_t last, uint16_t other_first,
                              uint16_t other_last) {
    return first <= other_last && other_first <= last;
  };
  const int both = a.tcp_flags_mask & b.tcp_flags_mask;
  return a.family == b.family && (a.any_protocol || b.any_protocol || a.protocol == b.protocol) &&
         (a.direction == RuleDirection::kAny || b.direction == RuleDirection::kAny ||
          a.direction == b.direction) &&
         (a.tcp_flags & both) == (b.tcp_flags & both) &&
         ranges_meet(a.src_port_first, a.src_port_last, b.src_port_first, b.src_port_last) &&
         ranges_meet(a.dst_port_first, a.dst_port_last, b.dst_port_first, b.dst_port_last) &&
         same_prefix(a.src, b.src, std::min(a.src_bits, b.src_bits)) &&
         same_prefix(a.dst, b.dst, std::min(a.dst_bits, b.dst_bits));
}

bool overlap(Entries a, Entries b) {
  return std::ranges::any_of(a, [b](const ClassifierRule& one) {
    return std::ranges::any_of(b,
                               [&one](const ClassifierRule& other) { return overlap(one, other); });
  });
}

// What the rules do, without what they match.
class Rules {
 public:
  Rules(const nfs::FirewallConfig& config, const std::vector<ClassifierRule>& entries)
      : config_(config), entries_(config.rules_size()) {
    for (size_t begin = 0; begin < entries.size();) {
      size_t end = begin;
      while (end < entries.size() && entries[end].rule == entries[begin].rule) ++end;
      entries_[entries[begin].rule] = Entries(entries).subspan(begin, end - begin);
      begin = end;
    }
  }

  uint32_t count() const { return static_cast<uint32_t>(entries_.size()); }
  Entries of(uint32_t rule) const { return entries_[rule]; }
  // Nobody would see a difference, but for the counters' names.
  bool do_the_same(uint32_t a, uint32_t b) const {
    const nfs::FirewallRule& one = config_.rules(static_cast<int>(a));
    const nfs::FirewallRule& other = config_.rules(static_cast<int>(b));
    const bool plain =
        !one.log() && !other.log() && !one.has_rate_limit() && !other.has_rate_limit();
    return plain && one.action() == other.action();
  }

 private:
  const nfs::FirewallConfig& config_;
  std::vector<Entries> entries_;
};

// The earlier rules that leave nothing to this one; nothing if some of it is left.
std::optional<std::vector<uint32_t>> covered_by_earlier(const Rules& rules, uint32_t rule) {
  std::vector<uint32_t> by;
  for (const ClassifierRule& entry : rules.of(rule)) {
    const auto first = [&]() -> std::optional<uint32_t> {
      for (uint32_t earlier = 0; earlier < rule; ++earlier) {
        for (const ClassifierRule& outer : rules.of(earlier)) {
          if (covers(outer, entry)) return earlier;
        }
      }
      return std::nullopt;
    }();
    if (!first) return std::nullopt;
    if (std::ranges::find(by, *first) == by.end()) by.push_back(*first);
  }
  return by;
}

// A later rule that does the same for all that this one matches.
std::optional<uint32_t> covered_by_later(const Rules& rules, uint32_t rule) {
  for (uint32_t later = rule + 1; later < rules.count(); ++later) {
    const bool same = rules.do_the_same(rule, later);
    const bool whole =
        same && std::ranges::all_of(rules.of(rule), [&](const ClassifierRule& entry) {
          return std::ranges::any_of(rules.of(later), [&entry](const ClassifierRule& outer) {
            return covers(outer, entry);
          });
        });
    if (whole) return later;
    if (!same && overlap(rules.of(rule), rules.of(later))) return std::nullopt;
  }
  return std::nullopt;
}

std::optional<RuleFinding> find(const Rules& rules, uint32_t rule) {
  RuleFinding finding;
  finding.rule = rule;
  if (const auto earlier = covered_by_earlier(rules, rule)) {
    const bool same = std::ranges::all_of(
        *earlier, [&](uint32_t other) { return rules.do_the_same(rule, other); });
    finding.kind = same ? RuleFinding::Kind::kRedundant : RuleFinding::Kind::kShadowed;
    finding.by = *earlier;
    if (finding.by.size() > RuleFinding::kNamed) finding.by.resize(RuleFinding::kNamed);
    return finding;
  }
  const auto later = covered_by_later(rules, rule);
  if (!later) return std::nullopt;
  finding.kind = RuleFinding::Kind::kRedundant;
  finding.by = {*later};
  return finding;
}

}  // namespace

Result<std::vector<RuleFinding>> check_rules(const nfs::FirewallConfig& config,
                                             const std::string& field) {
  const auto sets = NamedSets::create(config, field);
  if (!sets.ok()) return sets.error();
  std::vector<ClassifierRule> entries;
  for (int i = 0; i < config.rules_size(); ++i) {
    const auto added =
        add_rule_entries(config.rules(i), *sets, field + ".rules[" + std::to_string(i) + ']',
                         static_cast<uint32_t>(i), Firewall::kMaxEntries, entries);
    if (!added.ok()) return added.error();
  }
  const Rules rules(config, entries);
  std::vector<RuleFinding> findings;
  for (uint32_t rule = 0; rule < rules.count(); ++rule) {
    if (auto finding = find(rules, rule)) findings.push_back(std::move(*finding));
  }
  return findings;
}

std::string finding_text(const nfs::FirewallConfig& config, const RuleFinding& finding) {
  const auto name_of = [&config](uint32_t rule) {
    return quoted(config.rules(static_cast<int>(rule)).name());
  };
  std::string by;
  for (const uint32_t rule : finding.by) by += (by.empty() ? "" : ", ") + name_of(rule);
  const std::string which = finding.by.size() > 1 ? "rules " : "rule ";
  const std::string subject = "rule " + name_of(finding.rule);
  if (finding.kind == RuleFinding::Kind::kShadowed) {
    return subject + " is never reached: " + which + by + " before it " +
           (finding.by.size() > 1 ? "match" : "matches") + " all that it does";
  }
  const bool later = finding.by.front() > finding.rule;
  return subject + " is redundant: " + which + by + (later ? " after it " : " before it ") +
         (finding.by.size() > 1 ? "do" : "does") + " the same with all that it matches";
}

}  // namespace flowkeep
