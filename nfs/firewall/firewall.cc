#include "nfs/firewall/firewall.h"

#include <unordered_set>
#include <utility>

#include "nfs/firewall/rules.h"

namespace flowkeep {

Result<Firewall> Firewall::create(const Config& config, const FunctionContext& context) {
  std::vector<Rule> rules;
  std::vector<ClassifierRule> entries;
  std::unordered_set<std::string> names;
  for (int i = 0; i < config.rules_size(); ++i) {
    const nfs::FirewallRule& rule = config.rules(i);
    const std::string field = context.field + ".rules[" + std::to_string(i) + "]";
    if (rule.name().empty()) return invalid(field + ".name", "is missing; accepted: any text");
    if (!names.insert(rule.name()).second) {
      return invalid(field + ".name", '"' + rule.name() +
                                          "\" names an earlier rule too; accepted: "
                                          "a name for each rule of its own");
    }
    if (rule.action() != "accept" && rule.action() != "drop") {
      return invalid(field + ".action",
                     "unknown action \"" + rule.action() + "\"; accepted: accept, drop");
    }
    const auto added =
        add_rule_entries(rule, field, static_cast<uint32_t>(i), kMaxEntries, entries);
    if (!added.ok()) return added.error();
    rules.push_back({rule.name(), rule.action() == "accept"});
  }
  std::unique_ptr<Classifier> classifier = context.make_classifier();
  if (const auto built = classifier->build(std::move(entries)); !built.ok()) return built.error();
  return Firewall(std::move(rules), std::move(classifier));
}

Firewall::Firewall(std::vector<Rule> rules, std::unique_ptr<Classifier> classifier)
    : rules_(std::move(rules)), classifier_(std::move(classifier)) {}

Firewall::Soft Firewall::make_soft() const {
  return {std::vector<uint64_t>(rules_.size()), 0};
}

uint32_t Firewall::first_match(const FlowKey& inside, Side initiator) const {
  const FlowKey tuple = initiator == Side::kInside ? inside : inside.reversed();
  uint32_t rule = kNoRule;
  classifier_->classify({&tuple, 1}, {&rule, 1});
  return rule;
}

Decision Firewall::open(NewFlow<Firewall>& flow, Soft& soft) const {
  const uint32_t rule = first_match(flow.inside_key(), flow.initiator());
  if (rule == kNoRule) {
    ++soft.unmatched;
    return Decision::refuse(DropReason::kFirewallDenied);
  }
  ++soft.hits[rule];
  return rules_[rule].accept ? Decision::accept() : Decision::refuse(DropReason::kFirewallDenied);
}

bool Firewall::still_allowed(const FlowKey& inside, Side initiator, const Hard&, Soft&) const {
  const uint32_t rule = first_match(inside, initiator);
  return rule != kNoRule && rules_[rule].accept;
}

}  // namespace flowkeep
