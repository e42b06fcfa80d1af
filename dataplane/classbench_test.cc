// The firewall's rule search against a linear search that is written anew here, on the rule sets
// and header traces of ClassBench (../shared/data/acl/classbench): IPv4 as they are, IPv6 by
// putting the addresses into the low half of a prefix.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "dataplane/acl_classifier.h"

namespace flowkeep {
namespace {

struct Range {
  uint32_t first, last;
  bool has(uint32_t value) const { return first <= value && value <= last; }
};

// As the files have it. Their last column, of TCP flags, is left out: it is no part of a header
// trace.
struct FilterRule {
  Range src, dst;
  uint8_t src_bits, dst_bits;
  Range src_ports, dst_ports;
  uint32_t protocol, protocol_mask;
};
struct Header {
  uint32_t src, dst;
  uint16_t src_port, dst_port;
  uint8_t protocol;
};

std::ifstream open_input(const std::string& name) {
  const std::string path = std::string(FLOWKEEP_REAL_INPUTS) + "/acl/classbench/" + name;
  std::ifstream file(path);
  EXPECT_TRUE(file) << path
                    << " is missing: the real inputs belong beside the project, in ../shared/data";
  return file;
}

std::vector<FilterRule> read_rules(const std::string& name) {
  std::ifstream file = open_input(name);
  std::vector<FilterRule> rules;
  for (std::string line; std::getline(file, line);) {
    unsigned s[5], d[5], ports[4], protocol, mask;
    const int fields =
        std::sscanf(line.c_str(), "@%u.%u.%u.%u/%u %u.%u.%u.%u/%u %u : %u %u : %u %x/%x", &s[0],
                    &s[1], &s[2], &s[3], &s[4], &d[0], &d[1], &d[2], &d[3], &d[4], &ports[0],
                    &ports[1], &ports[2], &ports[3], &protocol, &mask);
    EXPECT_EQ(fields, 16) << name << ": " << line;
    const auto range = [](const unsigned* part) {
      const uint32_t address = part[0] << 24 | part[1] << 16 | part[2] << 8 | part[3];
      const uint32_t host_bits = part[4] == 0 ? ~0U : (1U << (32 - part[4])) - 1;
      return Range{address & ~host_bits, address | host_bits};
    };
    rules.push_back({range(s),
                     range(d),
                     static_cast<uint8_t>(s[4]),
                     static_cast<uint8_t>(d[4]),
                     {ports[0], ports[1]},
                     {ports[2], ports[3]},
                     protocol,
                     mask});
  }
  return rules;
}

std::vector<Header> read_trace(const std::string& name) {
  std::ifstream file = open_input(name);
  std::vector<Header> headers;
  for (std::string line; std::getline(file, line);) {
    unsigned src, dst, src_port, dst_port, protocol;
    EXPECT_EQ(
        std::sscanf(line.c_str(), "%u %u %u %u %u", &src, &dst, &src_port, &dst_port, &protocol), 5)
        << name << ": " << line;
    headers.push_back({src, dst, static_cast<uint16_t>(src_port), static_cast<uint16_t>(dst_port),
                       static_cast<uint8_t>(protocol)});
  }
  return headers;
}

// Corners of rules, and their neighbours, mixed between two rules: the traces have no header that
// no rule matches.
std::vector<Header> random_headers(const std::vector<FilterRule>& rules, size_t count,
                                   std::mt19937& random) {
  const auto near = [&random](Range range) {
    const uint32_t corner = random() % 2 == 0 ? range.first : range.last;
    return corner + static_cast<uint32_t>(random() % 3) - 1;
  };
  std::vector<Header> headers;
  while (headers.size() < count) {
    const FilterRule& a = rules[random() % rules.size()];
    const FilterRule& b = random() % 4 == 0 ? rules[random() % rules.size()] : a;
    headers.push_back({near(a.src), near(b.dst), static_cast<uint16_t>(near(a.src_ports)),
                       static_cast<uint16_t>(near(b.dst_ports)),
                       static_cast<uint8_t>(random() % 8 == 0 ? random() : a.protocol)});
  }
  return headers;
}

uint32_t first_match(const std::vector<FilterRule>& rules, const Header& header) {
  for (size_t i = 0; i < rules.size(); ++i) {
    const FilterRule& rule = rules[i];
    if (rule.src.has(header.src) && rule.dst.has(header.dst) &&
        rule.src_ports.has(header.src_port) && rule.dst_ports.has(header.dst_port) &&
        (header.protocol & rule.protocol_mask) == rule.protocol) {
      return static_cast<uint32_t>(i);
    }
  }
  return kNoRule;
}

AddressBytes placed(AddressFamily family, uint32_t address) {
  const Be32 wire = Be32::from_host(address);
  if (family == AddressFamily::kIpv4) return address_bytes(wire);
  AddressBytes bytes{0x20, 0x01, 0x0d, 0xb8};
  std::memcpy(bytes.data() + 8, &wire, sizeof(wire));
  return bytes;
}

ClassifierRule entry_of(const FilterRule& rule, AddressFamily family, uint32_t index) {
  const bool wide = family == AddressFamily::kIpv6;
  ClassifierRule entry;
  entry.family = family;
  entry.src = placed(family, rule.src.first);
  entry.dst = placed(family, rule.dst.first);
  entry.src_bits = static_cast<uint8_t>(rule.src_bits + (wide ? 64 : 0));
  entry.dst_bits = static_cast<uint8_t>(rule.dst_bits + (wide ? 64 : 0));
  entry.any_protocol = rule.protocol_mask == 0;
  entry.protocol = static_cast<uint8_t>(rule.protocol);
  entry.src_port_first = static_cast<uint16_t>(rule.src_ports.first);
  entry.src_port_last = static_cast<uint16_t>(rule.src_ports.last);
  entry.dst_port_first = static_cast<uint16_t>(rule.dst_ports.first);
  entry.dst_port_last = static_cast<uint16_t>(rule.dst_ports.last);
  entry.rule = index;
  return entry;
}

HeaderTuple tuple_of(const Header& header, AddressFamily family) {
  HeaderTuple tuple;
  tuple.family = family;
  tuple.src = placed(family, header.src);
  tuple.dst = placed(family, header.dst);
  tuple.src_port = header.src_port;
  tuple.dst_port = header.dst_port;
  tuple.protocol = header.protocol;
  return tuple;
}

struct Set {
  const char* rules;
  const char* trace;  // null: none
};

class ClassBench : public testing::TestWithParam<Set> {
 protected:
  static void compare(AddressFamily family) {
    const uint32_t seed = std::random_device{}();
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const std::vector<FilterRule> rules = read_rules(GetParam().rules);
    ASSERT_GT(rules.size(), 700U);
    std::vector<Header> headers;
    if (GetParam().trace != nullptr) headers = read_trace(GetParam().trace);
    for (const Header& header : random_headers(rules, 20'000, random)) headers.push_back(header);

    std::vector<ClassifierRule> entries;
    for (const FilterRule& rule : rules) {
      entries.push_back(entry_of(rule, family, static_cast<uint32_t>(entries.size())));
    }
    AclClassifier classifier;
    const auto built = classifier.build(entries);
    ASSERT_TRUE(built.ok()) << built.error().text();
    std::vector<HeaderTuple> tuples;
    for (const Header& header : headers) tuples.push_back(tuple_of(header, family));
    std::vector<uint32_t> found(tuples.size());
    classifier.classify(tuples, found);
    size_t misses = 0;
    for (size_t i = 0; i < headers.size(); ++i) {
      const uint32_t expected = first_match(rules, headers[i]);
      misses += expected == kNoRule ? 1 : 0;
      ASSERT_EQ(found[i], expected) << "header " << i;
    }
    std::printf("%s: %zu rules, %zu headers, %zu of them matched by none\n", GetParam().rules,
                rules.size(), headers.size(), misses);
  }
};
INSTANTIATE_TEST_SUITE_P(Sets, ClassBench,
                         testing::Values(Set{"acl1_1k", "acl1_1k_trace"},
                                         Set{"fw1_1k", "fw1_1k_trace"},
                                         Set{"ipc1_1k", "ipc1_1k_trace"}, Set{"acl1_10k", nullptr},
                                         Set{"fw1_10k", "fw1_10k_trace"}),
                         [](const auto& test) { return std::string(test.param.rules); });

TEST_P(ClassBench, EqualsALinearSearch) {
  compare(AddressFamily::kIpv4);
}

TEST_P(ClassBench, EqualsALinearSearchWithIpv6) {
  if (GetParam().rules == std::string_view("fw1_10k")) return;  // the others show it sooner
  compare(AddressFamily::kIpv6);
}

}  // namespace
}  // namespace flowkeep
