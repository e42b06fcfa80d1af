// AclClassifier against the linear search, on random rules and tuples.
#include "dataplane/acl_classifier.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <random>

#include "nfs/firewall/linear_classifier.h"

namespace flowkeep {
namespace {

// Few distinct values, so that rules overlap and tuples hit them.
Be32 random_address(std::mt19937& random) {
  return Be32::from_host(0x0a000000U | (random() & 0x00030303U));
}

ClassifierRule random_rule(std::mt19937& random, uint32_t index) {
  ClassifierRule rule;
  rule.src = random_address(random);
  rule.dst = random_address(random);
  rule.src_bits = static_cast<uint8_t>(random() % 33);
  rule.dst_bits = static_cast<uint8_t>(random() % 33);
  rule.protocol = std::array<uint8_t, 4>{0, 1, 6, 17}[random() % 4];
  rule.direction = static_cast<RuleDirection>(random() % 3);
  if (random() % 2 == 0) {
    rule.dst_port_first = static_cast<uint16_t>(random() % 1024);
    rule.dst_port_last = static_cast<uint16_t>(rule.dst_port_first + random() % 512);
  }
  rule.rule = index;
  return rule;
}

FlowKey random_tuple(std::mt19937& random) {
  FlowKey key;
  key.src = random_address(random);
  key.dst = random_address(random);
  key.src_port = Be16::from_host(static_cast<uint16_t>(random() % 65536));
  key.dst_port = Be16::from_host(static_cast<uint16_t>(random() % 1600));
  key.protocol = std::array<uint8_t, 3>{1, 6, 17}[random() % 3];
  key.side = random() % 2 == 0 ? Side::kInside : Side::kOutside;
  return key;
}

TEST(AclClassifier, AgreesWithTheLinearSearch) {
  const uint32_t seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  for (const uint32_t rule_count : {1U, 10U, 300U}) {
    std::vector<ClassifierRule> rules;
    for (uint32_t i = 0; i < rule_count; ++i) rules.push_back(random_rule(random, i));
    AclClassifier acl;
    LinearClassifier linear;
    ASSERT_TRUE(acl.build(rules).ok());
    ASSERT_TRUE(linear.build(rules).ok());
    std::vector<FlowKey> tuples;
    for (int i = 0; i < 20'000; ++i) tuples.push_back(random_tuple(random));
    std::vector<uint32_t> found(tuples.size()), expected(tuples.size());
    acl.classify(tuples, found);
    linear.classify(tuples, expected);
    EXPECT_EQ(found, expected) << rule_count << " rules";
  }
}

TEST(AclClassifier, WithoutRulesNothingMatches) {
  AclClassifier acl;
  ASSERT_TRUE(acl.build({}).ok());
  const FlowKey key{};
  uint32_t found = 0;
  acl.classify({&key, 1}, {&found, 1});
  EXPECT_EQ(found, kNoRule);
}

}  // namespace
}  // namespace flowkeep
