#include "dataplane/pktgen/options.h"

#include <gtest/gtest.h>

#include <cmath>

#include "dataplane/pktgen/report.h"

namespace flowkeep::pktgen {
namespace {

Result<Options> parse(std::vector<std::string> more) {
  std::vector<std::string> words = {"--tx", "net_ring0"};
  words.insert(words.end(), more.begin(), more.end());
  return parse_options(words);
}

struct RateCase {
  const char* text;
  double pps;  // of 64-byte frames; 0: refused
};

TEST(Rate, IsReadWithItsUnit) {
  for (const RateCase& rate : std::initializer_list<RateCase>{{"200kpps", 200e3},
                                                              {"1.5Mpps", 1.5e6},
                                                              {"7pps", 7},
                                                              {"512Mbps", 1e6},
                                                              {"10Gbps", 10e9 / 512},
                                                              {"", 0},
                                                              {"200", 0},
                                                              {"200k", 0},
                                                              {"-1pps", 0},
                                                              {"0pps", 0},
                                                              {"nanpps", 0},
                                                              {"infpps", 0},
                                                              {"1kpps ", 0},
                                                              {"maximum", 0}}) {
    const auto read = parse_rate(rate.text);
    ASSERT_EQ(read.has_value(), rate.pps != 0) << rate.text;
    if (read) {
      EXPECT_DOUBLE_EQ(read->packets_per_s(64), rate.pps) << rate.text;
    }
  }
  EXPECT_TRUE(std::isinf(parse_rate("max")->packets_per_s(64)));
}

TEST(Ranges, AreRead) {
  EXPECT_EQ(parse_address_range("10.0.0.0/24")->count, 256u);
  EXPECT_EQ(address_text(parse_address_range("10.0.0.77/24")->first), "10.0.0.0");
  EXPECT_EQ(parse_address_range("10.0.0.5-10.0.1.4")->count, 256u);
  EXPECT_TRUE(parse_address_range("10.0.0.5-10.0.1.4")->contains(*parse_address("10.0.1.4")));
  EXPECT_FALSE(parse_address_range("10.0.0.5-10.0.1.4")->contains(*parse_address("10.0.1.5")));
  EXPECT_FALSE(parse_address_range("10.0.0.5-10.0.1.4")->contains(*parse_address("10.0.0.4")));
  EXPECT_EQ(parse_port_range("1-65535")->count, 65535u);
  for (const char* wrong : {"", "10.0.0", "10.0.0.256", "10.0.0.1/33", "10.0.0.1/",
                            "10.0.0.2-10.0.0.1", "a-b", "0.0.0.0/0"})
    EXPECT_FALSE(parse_address_range(wrong).has_value()) << wrong;
  for (const char* wrong : {"", "0", "65536", "9-8", "1-", "-1", "x"})
    EXPECT_FALSE(parse_port_range(wrong).has_value()) << wrong;
}

TEST(Options, Defaults) {
  const auto options = parse({});
  ASSERT_TRUE(options.ok());
  EXPECT_TRUE(options->single_port());
  EXPECT_TRUE(options->warmup);
  EXPECT_EQ(options->size_bytes, 64u);
  EXPECT_EQ(options->ranges.destination_ports.first, 7);
}

TEST(Options, ReadsAllOfAnExample) {
  const auto options = parse({"--rx",
                              "net_ring1",
                              "--profile",
                              "tcp-syn",
                              "--flows",
                              "10000",
                              "--size",
                              "512",
                              "--rate",
                              "200kpps",
                              "--duration",
                              "2.5",
                              "--source",
                              "10.0.0.0/24",
                              "--gateway-mac",
                              "02:00:00:00:00:01",
                              "--echo",
                              "--threads",
                              "2",
                              "--cores",
                              "0,1",
                              "--rx-address",
                              "192.0.2.1",
                              "--require-lossless",
                              "--json",
                              "-"});
  ASSERT_TRUE(options.ok()) << options.error().text();
  EXPECT_EQ(options->profile, Profile::kTcpSyn);
  EXPECT_EQ(options->ranges.destination_ports.first, 80);
  EXPECT_EQ(options->duration_s, 2.5);
  EXPECT_EQ(options->cores, (std::vector<unsigned>{0, 1}));
  EXPECT_EQ(mac_text(*options->gateway_mac), "02:00:00:00:00:01");
}

TEST(Options, PcapTakesItsFile) {
  const auto options = parse({"--profile", "pcap", "a.pcap", "--loop", "3"});
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->pcap_path, "a.pcap");
  EXPECT_EQ(options->pcap_loops, 3u);
}

TEST(Options, SmallSynFramesAreRaised) {
  const auto options = parse({"--profile", "tcp-syn"});
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->size_bytes, 76u);
  EXPECT_NE(options->size_note.find("from 64 to 76"), std::string::npos);
}

struct Refusal {
  std::vector<std::string> words;
  const char* says;  // a part of the message
};

TEST(Options, RefusalsNameFieldValueAndWhatIsAccepted) {
  const std::vector<Refusal> refusals = {
      {{"--profile", "icmp"},
       "--profile: \"icmp\" is not accepted; accepted: udp, tcp-syn, pcap FILE"},
      {{"--rate", "fast"}, "--rate: \"fast\" is not accepted; accepted: max, or a number with pps"},
      {{"--flows", "0"}, "--flows: \"0\""},
      {{"--size", "63"}, "64 to 1518"},
      {{"--size", "1519"}, "64 to 1518"},
      {{"--flows", "70000"}, "1 to 64512"},
      {{"--duration", "0"}, "--duration"},
      {{"--fast"}, "--fast: no such option; accepted: "},
      {{"--rate"}, "--rate: needs a value"},
      {{"--profile", "pcap"}, "pcap FILE"},
      {{"--pcap", "a.pcap"}, "--pcap"},
      {{"--echo"}, "--echo"},
      {{"--threads", "2"}, "--threads"},
      {{"--threads", "3"}, "accepted: 1, 2"},
      {{"--cores", "0,1"}, "--cores"},
      {{"--cores", ""}, "--cores"},
      {{"--gateway-mac", "02:00:00:00:00"}, "--gateway-mac"},
      {{"--gateway", "10.0.0"}, "an IPv4 address"}};
  for (const Refusal& refusal : refusals) {
    const auto options = parse(refusal.words);
    ASSERT_FALSE(options.ok()) << refusal.says;
    EXPECT_NE(options.error().text().find(refusal.says), std::string::npos)
        << options.error().text();
  }
  EXPECT_FALSE(parse_options({}).ok());
}

TEST(Report, JsonIsComplete) {
  Report report;
  report.tx_device = "a\"b\\c\n";
  report.path.sent = 5;
  report.path.lost = 1;
  report.echo.emplace().sent = 4;
  const std::string json = to_json(report);
  for (const char* part : {R"("tx_packets": 5)", R"("lost": 1)", R"("tx_device": "a\"b\\c\u000a")",
                           R"("p99.9": 0)", R"("lossless": false)", R"("echo": {"tx_packets": 4)"})
    EXPECT_NE(json.find(part), std::string::npos) << part << " in " << json;
}

TEST(Report, LosslessMeansBothWays) {
  Report report;
  EXPECT_TRUE(report.lossless());
  report.path.too_late = 1;
  EXPECT_FALSE(report.lossless());
  Report echoed;
  echoed.echo = PathReport{};
  EXPECT_TRUE(echoed.lossless());
  echoed.echo->reordered = 1;
  EXPECT_FALSE(echoed.lossless());
}

}  // namespace
}  // namespace flowkeep::pktgen
