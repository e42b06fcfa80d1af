// Shadowed and redundant rules: tables, and whatever is found against a search that leaves the rule
// out.
#include "nfs/firewall/rule_check.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <random>

#include "nfs/firewall/linear_classifier.h"
#include "nfs/firewall/rules.h"
#include "nfs/json_config.h"

namespace flowkeep {
namespace {

nfs::FirewallConfig config_of(const std::string& rules) {
  nfs::FirewallConfig config;
  const auto read = read_json_config("{\"rules\":[" + rules + "]}", "config", config);
  EXPECT_TRUE(read.ok()) << (read.ok() ? "" : read.error().text());
  return config;
}

std::vector<std::string> findings_of(const std::string& rules) {
  const nfs::FirewallConfig config = config_of(rules);
  const auto findings = check_rules(config, "config");
  EXPECT_TRUE(findings.ok());
  std::vector<std::string> texts;
  for (const RuleFinding& finding : *findings) texts.push_back(finding_text(config, finding));
  return texts;
}

using Texts = std::vector<std::string>;

TEST(RuleCheck, NamesWhatShadows) {
  EXPECT_EQ(
      findings_of(R"({"name":"net","action":"accept","source":["10.0.0.0/8"]},
                           {"name":"host","action":"drop","source":["10.1.2.3"]})"),
      Texts{R"(rule "host" is never reached: rule "net" before it matches all that it does)"});
  EXPECT_EQ(
      findings_of(R"({"name":"a","action":"drop","protocol":"tcp","destination_ports":["80"]},
                           {"name":"b","action":"drop","protocol":"tcp","destination_ports":["443"]},
                           {"name":"web","action":"accept","protocol":"tcp",
                            "destination_ports":["443","80"]})"),
      Texts{R"(rule "web" is never reached: rules "b", "a" before it match all that it does)"});
}

TEST(RuleCheck, NamesWhatMakesARuleRedundant) {
  EXPECT_EQ(
      findings_of(R"({"name":"web","action":"accept","protocol":"tcp",
                            "destination_ports":["1-100"]},
                           {"name":"http","action":"accept","protocol":"tcp",
                            "destination_ports":["80"]})"),
      Texts{
          R"(rule "http" is redundant: rule "web" before it does the same with all that it matches)"});
  EXPECT_EQ(
      findings_of(R"({"name":"host","action":"drop","source":["10.1.2.3"]},
                           {"name":"other","action":"accept","source":["10.9.0.0/16"]},
                           {"name":"net","action":"drop","source":["10.0.0.0/8"]})"),
      Texts{
          R"(rule "host" is redundant: rule "net" after it does the same with all that it matches)"});
}

TEST(RuleCheck, SaysNothingOfRulesThatMatter) {
  EXPECT_EQ(findings_of(R"({"name":"host","action":"drop","source":["10.1.2.3"]},
                           {"name":"part","action":"accept","source":["10.1.2.0/24"]},
                           {"name":"net","action":"drop","source":["10.0.0.0/8"]},
                           {"name":"in","action":"accept","direction":"from_inside"},
                           {"name":"rest","action":"drop"})"),
            Texts{});
  EXPECT_EQ(findings_of(R"({"name":"syn","action":"drop","protocol":"tcp","tcp_flags_set":["syn"]},
                           {"name":"tcp","action":"accept","protocol":"tcp"},
                           {"name":"v6","action":"accept","family":"ipv6"},
                           {"name":"v4","action":"drop","family":"ipv4"})"),
            Texts{});
  EXPECT_EQ(findings_of(R"({"name":"few","action":"accept","protocol":"udp",
                            "rate_limit":{"per_second":5}},
                           {"name":"all","action":"accept"})"),
            Texts{})
      << "a limit is something else than none";
}

// Without a redundant rule every verdict is as it was; a shadowed one decides nothing.
TEST(RuleCheck, IsRight) {
  const uint32_t seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  uint32_t found = 0;
  for (int round = 0; round < 60; ++round) {
    std::string rules;
    for (int i = 0; i < 12; ++i) {
      const auto some = [&random](uint32_t below) {
        return static_cast<uint32_t>(random() % below);
      };
      const uint32_t bits = 29 + some(4);
      const uint32_t host = some(8) >> (32 - bits) << (32 - bits);
      rules += std::string(i == 0 ? "" : ",") + R"({"name":"r)" + std::to_string(i) +
               R"(","action":")" + (some(2) == 0 ? "accept" : "drop") + R"(","protocol":")" +
               (some(2) == 0 ? "tcp" : "udp") + R"(","destination_ports":[")" +
               std::to_string(some(3)) + '-' + std::to_string(3 + some(3)) +
               R"("],"source":["10.0.0.)" + std::to_string(host) + '/' + std::to_string(bits) +
               R"("]})";
    }
    const nfs::FirewallConfig config = config_of(rules);
    const auto findings = check_rules(config, "config");
    ASSERT_TRUE(findings.ok());
    std::vector<ClassifierRule> entries;
    const auto sets = NamedSets::create(config, "config");
    for (int i = 0; i < config.rules_size(); ++i) {
      ASSERT_TRUE(
          add_rule_entries(config.rules(i), *sets, "r", static_cast<uint32_t>(i), 1000, entries)
              .ok());
    }
    for (const RuleFinding& finding : *findings) {
      ++found;
      std::vector<ClassifierRule> without = entries;
      std::erase_if(without,
                    [&](const ClassifierRule& entry) { return entry.rule == finding.rule; });
      LinearClassifier with_it, without_it;
      ASSERT_TRUE(with_it.build(entries).ok() && without_it.build(without).ok());
      for (uint32_t host = 0; host < 8; ++host) {
        for (uint16_t port = 0; port < 8; ++port) {
          for (const uint8_t protocol : std::initializer_list<uint8_t>{6, 17}) {
            HeaderTuple tuple;
            tuple.src = address_bytes(Be32::from_host(0x0a000000 + host));
            tuple.dst_port = port;
            tuple.protocol = protocol;
            uint32_t first = 0, second = 0;
            with_it.classify({&tuple, 1}, {&first, 1});
            without_it.classify({&tuple, 1}, {&second, 1});
            if (finding.kind == RuleFinding::Kind::kShadowed) {
              ASSERT_EQ(first, second);
            }
            const auto action = [&config](uint32_t rule) {
              return rule == kNoRule ? "none" : config.rules(static_cast<int>(rule)).action();
            };
            ASSERT_EQ(action(first), action(second)) << "seed " << seed << ", round " << round;
          }
        }
      }
    }
  }
  EXPECT_GT(found, 50U);
}

}  // namespace
}  // namespace flowkeep
