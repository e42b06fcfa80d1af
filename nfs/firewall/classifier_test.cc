// The linear classifier against a search that is written anew here.
#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <random>

#include "nfs/firewall/linear_classifier.h"

namespace flowkeep {
namespace {

AddressBytes masked(AddressBytes address, uint8_t bits) {
  for (size_t bit = bits; bit < 128; ++bit)
    address[bit / 8] = static_cast<uint8_t>(address[bit / 8] & ~(0x80 >> bit % 8));
  return address;
}

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  uint32_t below(uint32_t limit) { return static_cast<uint32_t>(engine_() % limit); }

  AddressBytes address(AddressFamily family) {
    AddressBytes bytes{};
    bytes[family == AddressFamily::kIpv4 ? 3 : 15] = static_cast<uint8_t>(below(64));
    return bytes;
  }
  uint8_t bits(AddressFamily family) {
    const uint32_t most = family == AddressFamily::kIpv4 ? 32 : 128;
    return static_cast<uint8_t>(below(3) == 0 ? 0 : most - below(9));
  }
  ClassifierRule rule(uint32_t index) {
    ClassifierRule rule;
    rule.family = below(2) == 0 ? AddressFamily::kIpv4 : AddressFamily::kIpv6;
    rule.src_bits = bits(rule.family);
    rule.dst_bits = bits(rule.family);
    rule.src = masked(address(rule.family), rule.src_bits);
    rule.dst = masked(address(rule.family), rule.dst_bits);
    rule.any_protocol = below(3) == 0;
    rule.protocol = static_cast<uint8_t>(below(2) == 0 ? 6 : 17);
    rule.direction = static_cast<RuleDirection>(below(3));
    rule.dst_port_first = static_cast<uint16_t>(below(8));
    rule.dst_port_last = static_cast<uint16_t>(rule.dst_port_first + below(4));
    if (below(3) == 0) rule.tcp_flags_mask = 0x12, rule.tcp_flags = 0x02;
    rule.rule = index;
    return rule;
  }
  HeaderTuple tuple() {
    HeaderTuple tuple;
    tuple.family = below(2) == 0 ? AddressFamily::kIpv4 : AddressFamily::kIpv6;
    tuple.src = address(tuple.family);
    tuple.dst = address(tuple.family);
    tuple.src_port = static_cast<uint16_t>(below(8));
    tuple.dst_port = static_cast<uint16_t>(below(12));
    tuple.protocol = static_cast<uint8_t>(below(2) == 0 ? 6 : 17);
    tuple.tcp_flags = static_cast<uint8_t>(below(32));
    tuple.side = static_cast<Side>(below(2));
    return tuple;
  }

 private:
  std::mt19937 engine_;
};

bool matches(const ClassifierRule& rule, const HeaderTuple& tuple) {
  if (rule.family != tuple.family) return false;
  if (masked(tuple.src, rule.src_bits) != rule.src) return false;
  if (masked(tuple.dst, rule.dst_bits) != rule.dst) return false;
  if (!rule.any_protocol && rule.protocol != tuple.protocol) return false;
  if (tuple.dst_port < rule.dst_port_first || tuple.dst_port > rule.dst_port_last) return false;
  for (int bit = 0; bit < 8; ++bit) {
    const int flag = 1 << bit;
    if ((rule.tcp_flags_mask & flag) != 0 && (rule.tcp_flags & flag) != (tuple.tcp_flags & flag))
      return false;
  }
  if (rule.direction == RuleDirection::kFromInside) return tuple.side == Side::kInside;
  if (rule.direction == RuleDirection::kFromOutside) return tuple.side == Side::kOutside;
  return true;
}

TEST(LinearClassifier, EqualsANaiveSearch) {
  const uint32_t seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  Random random(seed);
  std::vector<ClassifierRule> rules;
  for (uint32_t i = 0; i < 80; ++i) rules.push_back(random.rule(i / 2));
  LinearClassifier classifier;
  ASSERT_TRUE(classifier.build(rules).ok());
  std::map<uint32_t, uint32_t> seen;
  for (int round = 0; round < 20'000; ++round) {
    const HeaderTuple tuple = random.tuple();
    uint32_t expected = kNoRule;
    for (const ClassifierRule& rule : rules) {
      if (expected == kNoRule && matches(rule, tuple)) expected = rule.rule;
    }
    uint32_t found = 0;
    classifier.classify({&tuple, 1}, {&found, 1});
    ASSERT_EQ(found, expected) << "round " << round;
    ++seen[found];
  }
  EXPECT_GT(seen.size(), 5U);
}

}  // namespace
}  // namespace flowkeep
