// Rules: what each field matches, what is refused and why, what becomes of a packet, counters.
#include <gtest/gtest.h>

#include "nfs/chain_harness.h"
#include "nfs/checksum.h"
#include "nfs/firewall/firewall.h"
#include "nfs/firewall/rules.h"
#include "nfs/json_config.h"

namespace flowkeep {
namespace {

Result<Firewall> build(const std::string& json) {
  Firewall::Config config;
  if (const auto read = read_json_config(json, "config", config); !read.ok()) return read.error();
  FunctionContext context;
  context.field = "config";
  context.make_classifier = [] { return std::make_unique<LinearClassifier>(); };
  return Firewall::create(config, context);
}

std::string refusal(const std::string& json) {
  const auto built = build(json);
  return built.ok() ? "accepted" : built.error().text();
}
std::string refusal_of_rule(const std::string& fields) {
  return refusal(R"({"rules":[{"name":"r","action":"accept",)" + fields + "}]}");
}

TEST(FirewallRules, SayWhatIsWrongAndWhatIsAccepted) {
  const auto names = [](const std::string& text, const std::string& field,
                        const std::string& accepted) {
    return text.find(field) != std::string::npos && text.find(accepted) != std::string::npos;
  };
  const std::tuple<std::string, std::string, std::string> cases[] = {
      {R"("source":["10.0.0.1/8"])", "rules[0].source[0]", "without host bits"},
      {R"("source":["2001:db8::1/32"])", "rules[0].source[0]", "2001:db8::/32"},
      {R"("destination":["fe80::/129"])", "rules[0].destination[0]", "prefix"},
      {R"("source":["@nobody"])", "rules[0].source[0]", "as there is none"},
      {R"("source":["10.0.0.0/8"],"destination":["2001:db8::/32"])", "rules[0]",
       "family in common"},
      {R"("protocol":"icmpv6","source":["10.0.0.0/8"])", "rules[0]", "family in common"},
      {R"("protocol":"tcpp")", "rules[0].protocol", "icmpv6, sctp"},
      {R"("protocol":"256")", "rules[0].protocol", "up to 255"},
      {R"("protocol":"icmp","destination_ports":["1"])", "rules[0].destination_ports", "sctp"},
      {R"("protocol":"tcp","source_ports":["9-8"])", "rules[0].source_ports[0]", "1000-2000"},
      {R"("protocol":"udp","tcp_flags_set":["syn"])", "rules[0].tcp_flags_set", "protocol tcp"},
      {R"("protocol":"tcp","tcp_flags_unset":["sym"])", "rules[0].tcp_flags_unset[0]", "fin, syn"},
      {R"("protocol":"tcp","tcp_flags_set":["syn"],"tcp_flags_unset":["syn"])",
       "rules[0].tcp_flags_unset", "one of the two"},
      {R"("protocol":"icmp","icmp_type":"packet-too-big")", "rules[0].icmp_type", "echo-request"},
      {R"("protocol":"icmp","icmp_code":"1")", "rules[0].icmp_code", "with icmp_type"},
      {R"("protocol":"tcp","icmp_type":"8")", "rules[0].icmp_type", "icmp or icmpv6"},
      {R"("family":"ipv5")", "rules[0].family", "ipv4, ipv6, any"},
      {R"("log_every":5)", "rules[0].log_every", "log: true"},
      {R"("rate_limit":{"burst":5})", "rules[0].rate_limit.per_second", "at least 1"},
  };
  for (const auto& [fields, field, accepted] : cases) {
    const std::string text = refusal_of_rule(fields);
    EXPECT_TRUE(names(text, field, accepted)) << fields << ": " << text;
  }
  EXPECT_TRUE(names(refusal(R"({"rules":[{"name":"r","action":"deny"}]})"), "rules[0].action",
                    "accept, drop, reject"));
  EXPECT_TRUE(
      names(refusal(R"({"address_sets":[{"name":"a b"}]})"), "address_sets[0].name", "letters"));
  EXPECT_TRUE(names(refusal(R"({"port_sets":[{"name":"a"},{"name":"a"}]})"), "port_sets[1].name",
                    "of its own"));
  EXPECT_TRUE(names(refusal(R"({"port_sets":[{"name":"a"}],
                                "rules":[{"name":"r","action":"drop","protocol":"tcp",
                                          "source_ports":["@a"]}]})"),
                    "rules[0].source_ports", "empty sets only"));
}

TEST(FirewallRules, OneEntryForEachCombinationWithinAFamily) {
  Firewall::Config config;
  ASSERT_TRUE(read_json_config(R"({
      "address_sets":[{"name":"servers","addresses":["10.0.0.1","10.0.0.2","2001:db8::1"]}],
      "port_sets":[{"name":"web","ports":["80","443","8000-8100"]}],
      "rules":[{"name":"r","action":"accept","protocol":"tcp","source":["192.0.2.0/24","::/0"],
                "destination":["@servers"],"destination_ports":["@web","22"]}]})",
                               "config", config)
                  .ok());
  const auto sets = NamedSets::create(config, "config");
  ASSERT_TRUE(sets.ok());
  std::vector<ClassifierRule> entries;
  ASSERT_TRUE(add_rule_entries(config.rules(0), *sets, "r", 0, 100, entries).ok());
  EXPECT_EQ(entries.size(), 1U * 2 * 4 + 1 * 1 * 4);
  EXPECT_EQ(std::ranges::count(entries, AddressFamily::kIpv6, &ClassifierRule::family), 4);
  EXPECT_FALSE(add_rule_entries(config.rules(0), *sets, "r", 0, 20, entries).ok());
}

// ---- What becomes of a packet.

struct Judged {
  const char* what;
  Side side;
  PacketBuilder packet;
  DropReason reason;
};

class FirewallActions : public testing::TestWithParam<Crash> {
 protected:
  static ChainSpec firewall(const std::string& rules) {
    return {"test", 1, {{"firewall", "{\"rules\":[" + rules + "]}"}}};
  }
  static void expect(const std::string& rules, std::span<const Judged> cases) {
    for (const Judged& test : cases) {
      PoolDirectory directory;
      ChainHarness harness(firewall(rules), directory, GetParam());
      EXPECT_EQ(drop_reason_name(harness.send(test.side, test.packet.build()).reason),
                drop_reason_name(test.reason))
          << test.what;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Crashes, FirewallActions, testing::ValuesIn(kEveryMode));

PacketBuilder syn_to(uint16_t port) {
  return PacketBuilder::tcp("10.0.0.2", 4000, "192.0.2.1", port, kTcpSyn);
}

TEST_P(FirewallActions, FlagsAndTypes) {
  constexpr uint8_t kEce = 0x40;
  expect(R"({"name":"ecn","action":"drop","protocol":"tcp","tcp_flags_set":["ece"]},
            {"name":"plain","action":"accept","protocol":"6","tcp_flags_unset":["ack"]},
            {"name":"ping","action":"accept","protocol":"icmp","icmp_type":"echo-request",
             "icmp_code":"0"})",
         std::to_array<Judged>({
             {"SYN", Side::kInside, syn_to(80), DropReason::kNone},
             {"SYN with ECN", Side::kInside,
              PacketBuilder::tcp("10.0.0.2", 1, "192.0.2.1", 80, kTcpSyn | kEce),
              DropReason::kFirewallDenied},
             {"ping", Side::kInside, PacketBuilder::echo_request("10.0.0.2", "192.0.2.1", 1),
              DropReason::kNone},
             {"UDP", Side::kInside, PacketBuilder::udp("10.0.0.2", 1, "192.0.2.1", 80),
              DropReason::kFirewallDenied},
         }));
  expect(R"({"name":"other","action":"accept","protocol":"icmp","icmp_type":"timestamp-request"})",
         std::to_array<Judged>({
             {"ping", Side::kInside, PacketBuilder::echo_request("10.0.0.2", "192.0.2.1", 1),
              DropReason::kFirewallDenied},
         }));
}

constexpr char kRejectAll[] = R"({"name":"no","action":"reject"})";

// RFC 9293 section 3.10.7.1, the state CLOSED.
TEST_P(FirewallActions, RejectedSegmentsAreResetAsRfc9293Says) {
  PoolDirectory directory;
  ChainHarness harness(firewall(kRejectAll), directory, GetParam());
  struct Case {
    const char* what;
    uint8_t flags;
    size_t payload;
    uint8_t reset_flags;
    uint32_t sequence, acknowledgement;
  };
  // The builder's segments have sequence number 1 and acknowledge 0.
  for (const Case& test :
       std::initializer_list<Case>{{"SYN", kTcpSyn, 0, kTcpRst | kTcpAck, 0, 2},
                                   {"SYN with data", kTcpSyn, 100, kTcpRst | kTcpAck, 0, 2 + 100},
                                   {"FIN", kTcpFin, 7, kTcpRst | kTcpAck, 0, 2 + 7},
                                   {"ACK", kTcpAck, 500, kTcpRst, 0, 0},
                                   {"SYN and ACK", kTcpSyn | kTcpAck, 0, kTcpRst, 0, 0}}) {
    const Bytes segment = PacketBuilder::tcp("10.0.0.2", 4000, "192.0.2.1", 80, test.flags)
                              .tcp_options(2)
                              .payload(test.payload)
                              .build();
    const Departure answer = harness.send(Side::kInside, segment);
    EXPECT_EQ(answer.reason, DropReason::kFirewallRejected) << test.what;
    ASSERT_EQ(answer.frame.size(), 54U) << test.what;
    EXPECT_EQ(checksum_faults(answer.frame), "") << test.what;
    const auto& ip = checked_header<Ipv4Header>(answer.frame.data(), 14);
    EXPECT_EQ(to_string(ip.src.get()) + " > " + to_string(ip.dst.get()), "192.0.2.1 > 10.0.0.2");
    const auto& reset = checked_header<TcpHeader>(answer.frame.data(), 34);
    EXPECT_EQ(reset.src_port.get().host(), 80);
    EXPECT_EQ(reset.dst_port.get().host(), 4000);
    EXPECT_EQ(reset.flags, test.reset_flags) << test.what;
    EXPECT_EQ(reset.sequence.get().host(), test.sequence) << test.what;
    EXPECT_EQ(reset.acknowledgement.get().host(), test.acknowledgement) << test.what;
  }
  const Bytes reset = PacketBuilder::tcp("10.0.0.2", 4000, "192.0.2.1", 80, kTcpRst).build();
  EXPECT_EQ(harness.send(Side::kInside, reset), (Departure{DropReason::kFirewallRejected, {}}));
  EXPECT_EQ(harness.flows(), 0U);
}

// RFC 1812 section 5.2.7.1: administratively prohibited, with the packet's beginning.
TEST_P(FirewallActions, OtherRejectedPacketsAreAnsweredByIcmp) {
  PoolDirectory directory;
  ChainHarness harness(firewall(kRejectAll), directory, GetParam());
  for (const size_t payload : {0U, 5U, 40U, 1400U}) {
    const Bytes packet = PacketBuilder::udp("10.0.0.2", 4000, "192.0.2.1", 53)
                             .ip_options(1)
                             .payload(payload)
                             .build();
    const Departure answer = harness.send(Side::kInside, packet);
    EXPECT_EQ(answer.reason, DropReason::kFirewallRejected);
    EXPECT_LE(answer.frame.size(), kEditableBytes);
    ASSERT_GE(answer.frame.size(), 42 + std::min<size_t>(packet.size() - 14, 148));
    const auto& ip = checked_header<Ipv4Header>(answer.frame.data(), 14);
    EXPECT_EQ(ip.total_length.get().host(), answer.frame.size() - 14);
    EXPECT_EQ(to_string(ip.src.get()) + " > " + to_string(ip.dst.get()), "192.0.2.1 > 10.0.0.2");
    const auto& icmp = checked_header<IcmpHeader>(answer.frame.data(), 34);
    EXPECT_EQ(icmp.type, kIcmpUnreachable);
    EXPECT_EQ(icmp.code, 13);
    EXPECT_EQ(internet_checksum(answer.frame.data() + 34, answer.frame.size() - 34).raw, 0);
    EXPECT_TRUE(std::equal(answer.frame.begin() + 42, answer.frame.end(), packet.begin() + 14));
  }
}

TEST_P(FirewallActions, AnswersAreOfPacketsAsTheyCameThoughTheChainTranslates) {
  PoolDirectory directory;
  ChainSpec spec = firewall(kRejectAll);
  spec.functions.push_back({"nat44", R"({"external_addresses":["203.0.113.10"]})"});
  ChainHarness harness(spec, directory, GetParam());
  const Departure answer = harness.send(Side::kInside, syn_to(80).build());
  EXPECT_EQ(answer.reason, DropReason::kFirewallRejected);
  EXPECT_EQ(checksum_faults(answer.frame), "");
  const auto& ip = checked_header<Ipv4Header>(answer.frame.data(), 14);
  EXPECT_EQ(to_string(ip.src.get()) + " > " + to_string(ip.dst.get()), "192.0.2.1 > 10.0.0.2");
}

TEST_P(FirewallActions, StraySegmentsAreAnsweredOnlyWhereARuleRejects) {
  PoolDirectory directory;
  ChainHarness harness(
      firewall(R"({"name":"telnet","action":"reject","protocol":"tcp","destination_ports":["23"]},
                  {"name":"web","action":"accept","protocol":"tcp","destination_ports":["80"]})"),
      directory, GetParam());
  const auto ack_to = [](uint16_t port) {
    return PacketBuilder::tcp("10.0.0.2", 4000, "192.0.2.1", port, kTcpAck).build();
  };
  EXPECT_EQ(harness.send(Side::kInside, ack_to(23)).reason, DropReason::kFirewallRejected);
  EXPECT_EQ(harness.send(Side::kInside, ack_to(80)), (Departure{DropReason::kNoFlow, {}}));
  EXPECT_EQ(harness.send(Side::kInside, ack_to(22)), (Departure{DropReason::kNoFlow, {}}));
}

TEST_P(FirewallActions, EachRuleCounts) {
  PoolDirectory directory;
  ChainHarness harness(firewall(R"({"name":"web","action":"accept","destination_ports":["80"],
                                    "protocol":"tcp"},
                                   {"name":"telnet","action":"reject","destination_ports":["23"],
                                    "protocol":"tcp"})"),
                       directory, GetParam());
  for (const uint16_t port : std::initializer_list<uint16_t>{80, 80, 23, 22, 22, 22})
    harness.send(Side::kInside, syn_to(port).build());
  const std::map<std::string, uint64_t> expected = {
      {"firewall.web", 1}, {"firewall.telnet", 1}, {"firewall.(no rule)", 3}};
  EXPECT_EQ(harness.counted(), expected) << "the second SYN to port 80 is of a flow";
}

// Soft state: a new worker begins with a full bucket, so not with crashes.
TEST(FirewallRateLimit, DropsWhatIsBeyondItsRule) {
  PoolDirectory directory;
  ChainHarness harness({"test", 1, {{"firewall", R"({"rules":[
                         {"name":"few","action":"accept","protocol":"udp",
                          "rate_limit":{"per_second":2,"burst":3}},
                         {"name":"rest","action":"accept"}]})"}}},
                       directory);
  uint16_t port = 1000;
  const auto passed_of = [&](int flows) {
    int passed = 0;
    for (int i = 0; i < flows; ++i) {
      const Departure departure = harness.send(
          Side::kInside, PacketBuilder::udp("10.0.0.2", port++, "192.0.2.1", 53).build());
      if (departure.reason == DropReason::kNone)
        ++passed;
      else
        EXPECT_EQ(departure.reason, DropReason::kFirewallRateLimited);
    }
    return passed;
  };
  EXPECT_EQ(passed_of(10), 3);
  harness.now_s += 1;
  EXPECT_EQ(passed_of(10), 2);
  harness.now_s += 100;
  EXPECT_EQ(passed_of(1), 1);
  EXPECT_EQ(passed_of(10), 2);
  const Bytes known = PacketBuilder::udp("10.0.0.2", 1000, "192.0.2.1", 53).build();
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(harness.send(Side::kInside, known).reason, DropReason::kNone)
        << "a flow's later packets are not limited";
  }
  EXPECT_EQ(harness.send(Side::kInside, syn_to(80).build()).reason, DropReason::kNone);
}

TEST(TokenBucket, NeverGivesMoreThanTheRateAndTheBurst) {
  TokenBucket bucket(5, 10);
  uint32_t given = 0;
  for (uint32_t second = 0; second < 1000; ++second) {
    for (uint32_t i = 0; i < second % 9; ++i) given += bucket.take(1'000'000 + second) ? 1 : 0;
    EXPECT_LE(given, 10 + 5 * second);
  }
  EXPECT_FALSE(TokenBucket(1, 0).take(5));
  TokenBucket clock_goes_back(1, 2);
  EXPECT_TRUE(clock_goes_back.take(100));
  EXPECT_TRUE(clock_goes_back.take(100));
  EXPECT_FALSE(clock_goes_back.take(50));
}

TEST(IpPrefix, ReadsBothFamilies) {
  const auto bits_of = [](std::string_view text) {
    const auto prefix = parse_ip_prefix(text);
    return prefix ? static_cast<int>(prefix->bits) : -1;
  };
  EXPECT_EQ(bits_of("10.0.0.0/8"), 8);
  EXPECT_EQ(bits_of("10.0.0.1"), 32);
  EXPECT_EQ(bits_of("::/0"), 0);
  EXPECT_EQ(bits_of("2001:db8::/32"), 32);
  EXPECT_EQ(bits_of("2001:db8::1"), 128);
  EXPECT_EQ(bits_of("2001:db8::1/127"), -1);
  EXPECT_EQ(bits_of("2001:db8::/032"), -1);
  EXPECT_EQ(bits_of("2001:db8:::/32"), -1);
  EXPECT_EQ(bits_of("10.0.0.0/33"), -1);
  EXPECT_EQ(bits_of(""), -1);
}

}  // namespace
}  // namespace flowkeep
