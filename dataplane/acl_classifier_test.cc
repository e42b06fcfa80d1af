// AclClassifier against the linear search, on random rules and tuples.
#include "dataplane/acl_classifier.h"

#include <gtest/gtest.h>
#include <rte_malloc.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <fstream>
#include <random>
#include <string>

#include "nfs/firewall/linear_classifier.h"

namespace flowkeep {
namespace {

// Few distinct values, so that rules overlap and tuples hit them.
AddressBytes random_address(std::mt19937& random, AddressFamily family) {
  AddressBytes address = address_bytes(Be32::from_host(0x20010000U | (random() & 0x00030303U)));
  if (family == AddressFamily::kIpv6) {
    address[7] = static_cast<uint8_t>(random() & 3);
    address[15] = static_cast<uint8_t>(random() & 3);
  }
  return address;
}

AddressFamily random_family(std::mt19937& random) {
  return random() % 2 == 0 ? AddressFamily::kIpv4 : AddressFamily::kIpv6;
}

void mask(AddressBytes& address, uint8_t bits) {
  for (size_t bit = bits; bit < 128; ++bit)
    address[bit / 8] = static_cast<uint8_t>(address[bit / 8] & ~(0x80 >> bit % 8));
}

void mask_host_bits(ClassifierRule& rule) {
  mask(rule.src, rule.src_bits);
  mask(rule.dst, rule.dst_bits);
}

ClassifierRule random_rule(std::mt19937& random, uint32_t index) {
  ClassifierRule rule;
  rule.family = random_family(random);
  rule.src = random_address(random, rule.family);
  rule.dst = random_address(random, rule.family);
  const uint32_t most = rule.family == AddressFamily::kIpv4 ? 33 : 129;
  rule.src_bits = static_cast<uint8_t>(random() % most);
  rule.dst_bits = static_cast<uint8_t>(random() % most);
  mask_host_bits(rule);
  rule.any_protocol = random() % 4 == 0;
  rule.protocol =
      rule.any_protocol ? uint8_t{0} : std::array<uint8_t, 4>{0, 1, 6, 17}[random() % 4];
  rule.direction = static_cast<RuleDirection>(random() % 3);
  if (random() % 2 == 0) {
    rule.dst_port_first = static_cast<uint16_t>(random() % 1024);
    rule.dst_port_last = static_cast<uint16_t>(rule.dst_port_first + random() % 512);
  }
  if (random() % 4 == 0) {
    rule.tcp_flags_mask = static_cast<uint8_t>(random());
    rule.tcp_flags = static_cast<uint8_t>(rule.tcp_flags_mask & random());
  }
  rule.rule = index;
  return rule;
}

HeaderTuple random_tuple(std::mt19937& random) {
  HeaderTuple tuple;
  tuple.family = random_family(random);
  tuple.src = random_address(random, tuple.family);
  tuple.dst = random_address(random, tuple.family);
  tuple.src_port = static_cast<uint16_t>(random() % 65536);
  tuple.dst_port = static_cast<uint16_t>(random() % 1600);
  tuple.protocol = std::array<uint8_t, 4>{0, 1, 6, 17}[random() % 4];
  tuple.tcp_flags = static_cast<uint8_t>(random());
  tuple.side = random() % 2 == 0 ? Side::kInside : Side::kOutside;
  return tuple;
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
    std::vector<HeaderTuple> tuples;
    for (int i = 0; i < 20'000; ++i) tuples.push_back(random_tuple(random));
    std::vector<uint32_t> found(tuples.size()), expected(tuples.size());
    acl.classify(tuples, found);
    linear.classify(tuples, expected);
    EXPECT_EQ(found, expected) << rule_count << " rules";
  }
}

// Prefixes and ranges that are all different in each dimension: their product explodes.
TEST(AclClassifier, WhatTakesTooMuchIsRefusedWithItsReason) {
  std::mt19937 random(1);
  std::vector<ClassifierRule> rules;
  for (uint32_t i = 0; i < 60'000; ++i) {
    ClassifierRule rule;
    rule.family = AddressFamily::kIpv6;
    for (size_t byte = 0; byte < 16; ++byte) {
      rule.src[byte] = static_cast<uint8_t>(random() & 1);
      rule.dst[byte] = static_cast<uint8_t>(random() & 1);
    }
    rule.src_bits = static_cast<uint8_t>(random() % 129);
    rule.dst_bits = static_cast<uint8_t>(random() % 129);
    mask_host_bits(rule);
    rule.src_port_first = static_cast<uint16_t>(random() % 65536);
    rule.src_port_last = static_cast<uint16_t>(rule.src_port_first | random() % 65536);
    rule.dst_port_first = static_cast<uint16_t>(random() % 65536);
    rule.dst_port_last = static_cast<uint16_t>(rule.dst_port_first | random() % 65536);
    rule.rule = i;
    rules.push_back(rule);
  }
  AclClassifier acl;
  const auto built = acl.build(rules);
  ASSERT_FALSE(built.ok());
  EXPECT_NE(built.error().text().find("IPv6 table of 60000 rule entries would take more than"),
            std::string::npos)
      << built.error().text();
  const HeaderTuple tuple;
  uint32_t found = 0;
  acl.classify({&tuple, 1}, {&found, 1});
  EXPECT_EQ(found, kNoRule);
}

std::vector<ClassifierRule> host_rules(uint32_t count) {
  std::vector<ClassifierRule> rules;
  for (uint32_t i = 0; i < count; ++i) {
    ClassifierRule rule;
    rule.family = AddressFamily::kIpv4;
    rule.src = address_bytes(Be32::from_host(0x0a000000U + i));
    rule.src_bits = 32;
    rule.any_protocol = true;
    rule.rule = i;
    rules.push_back(rule);
  }
  return rules;
}

// A trial, too, whose end is that of its process.
TEST(AclClassifier, NothingIsLeftInMemoryWhenATableIsGone) {
  const std::vector<ClassifierRule> rules = host_rules(2'000);
  ASSERT_TRUE(AclClassifier().build({rules.front()}).ok());  // EAL is up
  const auto allocated = [] {
    rte_malloc_socket_stats stats{};
    EXPECT_EQ(rte_malloc_get_socket_stats(0, &stats), 0);
    return stats.heap_allocsz_bytes;
  };
  const size_t before = allocated();
  {
    AclClassifier acl;
    ASSERT_TRUE(acl.build(rules).ok());
    EXPECT_GT(allocated(), before);
  }
  EXPECT_EQ(allocated(), before);
}

// The first child of a process; 0 if it has none.
pid_t child_of(pid_t parent) {
  const std::string id = std::to_string(parent);
  std::ifstream children("/proc/" + id + "/task/" + id + "/children");
  pid_t child = 0;
  children >> child;
  return child;
}

TEST(AclClassifier, ATrialEndsWithItsParent) {
  const std::vector<ClassifierRule> rules = host_rules(20'000);
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);  // the trial becomes our child
  const pid_t builder = fork();
  if (builder == 0) {
    AclClassifier acl;
    _exit(acl.build(rules).ok() ? 0 : 1);
  }
  pid_t trial = 0;
  while ((trial = child_of(builder)) == 0 && waitpid(builder, nullptr, WNOHANG) == 0) {
  }
  ASSERT_NE(trial, 0);
  kill(trial, SIGSTOP);  // it does not get done before its parent dies
  kill(builder, SIGKILL);
  ASSERT_EQ(waitpid(builder, nullptr, 0), builder);
  kill(trial, SIGCONT);
  int status = 0;
  ASSERT_EQ(waitpid(trial, &status, 0), trial);
  EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

TEST(AclClassifier, WithoutRulesNothingMatches) {
  AclClassifier acl;
  ASSERT_TRUE(acl.build({}).ok());
  const HeaderTuple key{};
  uint32_t found = 0;
  acl.classify({&key, 1}, {&found, 1});
  EXPECT_EQ(found, kNoRule);
}

}  // namespace
}  // namespace flowkeep
