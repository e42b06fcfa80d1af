#include "nfs/firewall/sets.h"

#include <algorithm>
#include <functional>

namespace flowkeep {
namespace {

std::string element(const std::string& field, int index) {
  return field + '[' + std::to_string(index) + ']';
}

Result<IpPrefix> prefix_of(const std::string& text, const std::string& field) {
  if (const auto prefix = parse_ip_prefix(text)) return *prefix;
  return invalid(field, quoted(text) +
                            " is no IP prefix; accepted: an address or a prefix without host bits, "
                            "such as 10.0.0.0/8 or 2001:db8::/32");
}

Result<PortRange> ports_of(const std::string& text, const std::string& field) {
  if (const auto range = parse_port_range(text)) return *range;
  return invalid(field, quoted(text) +
                            " is no port or range of ports; accepted: "
                            "0 to 65535, such as 80 or 1000-2000");
}

bool good_name(const std::string& name) {
  return !name.empty() && std::ranges::all_of(name, [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '-';
  });
}

template <typename Member>
using Parse = Result<Member> (*)(const std::string&, const std::string&);
template <typename Member>
using Sets = std::map<std::string, std::vector<Member>, std::less<>>;

template <typename Member>
Result<void> add_set(const std::string& name, const RuleTexts& texts, const std::string& list,
                     const std::string& field, Parse<Member> parse, Sets<Member>& sets) {
  if (!good_name(name)) {
    return invalid(field + ".name", quoted(name) +
                                        " is no name; accepted: letters, digits, _ "
                                        "and -");
  }
  if (sets.contains(name)) {
    return invalid(field + ".name", quoted(name) +
                                        " names an earlier set too; accepted: a name "
                                        "for each set of its own");
  }
  std::vector<Member>& members = sets[name];
  for (int i = 0; i < texts.size(); ++i) {
    const auto member = parse(texts[i], element(field + '.' + list, i));
    if (!member.ok()) return member.error();
    members.push_back(*member);
  }
  return {};
}

template <typename Member>
std::string known_names(const Sets<Member>& sets) {
  std::string names;
  for (const auto& [name, members] : sets) names += (names.empty() ? "@" : ", @") + name;
  return names.empty() ? "no set, as there is none" : names;
}

template <typename Member>
Result<std::vector<Member>> expand(const RuleTexts& texts, const std::string& field,
                                   Parse<Member> parse, const Sets<Member>& sets) {
  std::vector<Member> all;
  for (int i = 0; i < texts.size(); ++i) {
    const std::string& text = texts[i];
    if (text.starts_with('@')) {
      const auto found = sets.find(std::string_view(text).substr(1));
      if (found == sets.end()) {
        return invalid(element(field, i),
                       "unknown set " + quoted(text) + "; accepted: " + known_names(sets));
      }
      all.insert(all.end(), found->second.begin(), found->second.end());
      continue;
    }
    const auto member = parse(text, element(field, i));
    if (!member.ok()) return member.error();
    all.push_back(*member);
  }
  if (all.empty() && !texts.empty()) {
    return invalid(field,
                   "names empty sets only, so the rule would match nothing; accepted: at "
                   "least one member");
  }
  return all;
}

}  // namespace

Result<NamedSets> NamedSets::create(const nfs::FirewallConfig& config, const std::string& field) {
  NamedSets sets;
  for (int i = 0; i < config.address_sets_size(); ++i) {
    const nfs::AddressSet& set = config.address_sets(i);
    const auto added =
        add_set<IpPrefix>(set.name(), set.addresses(), "addresses",
                          element(field + ".address_sets", i), prefix_of, sets.addresses_);
    if (!added.ok()) return added.error();
  }
  for (int i = 0; i < config.port_sets_size(); ++i) {
    const nfs::PortSet& set = config.port_sets(i);
    const auto added = add_set<PortRange>(set.name(), set.ports(), "ports",
                                          element(field + ".port_sets", i), ports_of, sets.ports_);
    if (!added.ok()) return added.error();
  }
  return sets;
}

Result<std::vector<IpPrefix>> NamedSets::prefixes(const RuleTexts& texts,
                                                  const std::string& field) const {
  return expand<IpPrefix>(texts, field, prefix_of, addresses_);
}

Result<std::vector<PortRange>> NamedSets::ports(const RuleTexts& texts,
                                                const std::string& field) const {
  return expand<PortRange>(texts, field, ports_of, ports_);
}

}  // namespace flowkeep
