#include "dataplane/node_config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace flowkeep {
namespace {

constexpr char kGood[] = R"(
node: {name: edge-1}
controller: 192.0.2.9:7470
agent: {listen: 0.0.0.0:7471}
state_dir: /var/lib/flowkeep
pool: {path: /mnt/pmem/pool, size: 2G, emulate_pmem: true}
packets: {count: 65536, hugepages: always}
fragments: {datagrams: 64, timeout_ms: 5000}
workers: {slots: 4, standby: 2, hang_timeout_ms: 250}
switch: {eal_arguments: [--log-level, "8"]}
ports:
  - name: inside
    device: net_af_packet0,iface=fk-in
    role: inside
    addresses: [10.0.0.1/24, 10.1.0.1/16]
    neighbours: [{address: 10.0.0.2, mac: "02:00:00:00:0a:ff"}]
  - name: outside
    device: 0000:03:00.0
    role: outside
    promiscuous: true
    mtu: 1492
    vlan: [200, 100]
    addresses: [203.0.113.1/24, "2001:db8:2::1/64"]
    routes: [{prefix: 0.0.0.0/0, via: 203.0.113.2}, {prefix: "::/0", via: "fe80::2"}]
    neighbours: [{address: "fe80::2", mac: "02:00:00:00:0b:01"}]
)";

std::string replaced(std::string text, const std::string& what, const std::string& by) {
  const size_t at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return at == std::string::npos ? text : text.replace(at, what.size(), by);
}

TEST(NodeConfig, GoodFileIsReadWhole) {
  const Result<NodeConfig> parsed = NodeConfig::parse(kGood, "edge.yaml");
  ASSERT_TRUE(parsed.ok()) << parsed.error().text();
  const NodeConfig& config = *parsed;
  EXPECT_EQ(config.name, "edge-1");
  EXPECT_EQ(config.controller, "192.0.2.9:7470");
  EXPECT_EQ(config.agent_listen, "0.0.0.0:7471");
  EXPECT_EQ(config.pool_path, "/mnt/pmem/pool");
  EXPECT_EQ(config.pool_bytes, 2ULL << 30);
  EXPECT_TRUE(config.emulate_pmem);
  EXPECT_EQ(config.packet_count, 65536U);
  EXPECT_EQ(config.hugepages, Hugepages::kAlways);
  EXPECT_EQ(config.datagram_count, 64U);
  EXPECT_EQ(config.reassembly_timeout_ms, 5000U);
  EXPECT_EQ(config.buffers(), 65600U);
  EXPECT_EQ(config.worker_slots, 4U);
  EXPECT_EQ(config.standby, 2U);
  EXPECT_EQ(config.hang_timeout_ms, 250U);
  EXPECT_EQ(config.eal_arguments, (std::vector<std::string>{"--log-level", "8"}));
  ASSERT_EQ(config.ports.size(), 2U);
  const PortConfig& inside = config.ports[0];
  const PortConfig& outside = config.ports[1];
  EXPECT_EQ(inside.name, "inside");
  EXPECT_EQ(inside.device, "net_af_packet0,iface=fk-in");
  EXPECT_EQ(inside.role, Side::kInside);
  EXPECT_FALSE(inside.promiscuous);
  ASSERT_EQ(inside.addresses.size(), 2U);
  EXPECT_EQ(format_ipv4(inside.addresses[1].address), "10.1.0.1");
  EXPECT_EQ(inside.addresses[1].length, 16U);
  ASSERT_EQ(inside.neighbours.size(), 1U);
  EXPECT_EQ(format_ipv4(inside.neighbours[0].address), "10.0.0.2");
  EXPECT_EQ(format_mac(inside.neighbours[0].mac), "02:00:00:00:0a:ff");
  EXPECT_EQ(outside.role, Side::kOutside);
  EXPECT_TRUE(outside.promiscuous);
  EXPECT_EQ(outside.mtu, 1492U);
  EXPECT_EQ(inside.mtu, 0U);
  EXPECT_EQ(inside.vlan, VlanTags{});
  EXPECT_EQ(outside.vlan, (VlanTags{{200, 100}, 2}));
  ASSERT_EQ(outside.ipv6_addresses.size(), 1U);
  EXPECT_EQ(format_ipv6(outside.ipv6_addresses[0].address), "2001:db8:2::1");
  EXPECT_EQ(outside.ipv6_addresses[0].length, 64U);
  ASSERT_EQ(outside.ipv6_routes.size(), 1U);
  EXPECT_EQ(format_ipv6(outside.ipv6_routes[0].via), "fe80::2");
  ASSERT_EQ(outside.ipv6_neighbours.size(), 1U);
  EXPECT_EQ(outside.ipv6_neighbours[0].mac[4], 0x0b);
  ASSERT_EQ(outside.routes.size(), 1U);
  EXPECT_EQ(outside.routes[0].prefix.length, 0U);
  EXPECT_EQ(format_ipv4(outside.routes[0].via), "203.0.113.2");
}

TEST(NodeConfig, OnlyPoolPathAndPortsAreNeeded) {
  const Result<NodeConfig> parsed = NodeConfig::parse(
      "pool: {path: /p}\nports: [{name: a, device: d0, role: inside}, {name: b, device: d1, role: "
      "outside}]",
      "x");
  ASSERT_TRUE(parsed.ok()) << parsed.error().text();
  const NodeConfig defaults;
  EXPECT_EQ(parsed->name, defaults.name);
  EXPECT_EQ(parsed->controller, "");
  EXPECT_EQ(parsed->pool_bytes, defaults.pool_bytes);
  EXPECT_EQ(parsed->worker_slots, defaults.worker_slots);
  EXPECT_EQ(parsed->hugepages, Hugepages::kAuto);
}

TEST(NodeConfig, FlushesMayBeDelayed) {
  const auto parsed =
      NodeConfig::parse(replaced(kGood, "emulate_pmem: true",
                                 "emulate_pmem: true, fence_delay_ns: 200, line_delay_ns: 10"),
                        "x");
  ASSERT_TRUE(parsed.ok()) << parsed.error().text();
  EXPECT_EQ(parsed->pool_delay, (InjectedDelay{200, 10}));
  EXPECT_FALSE(NodeConfig::parse(kGood, "x")->pool_delay.any());
}

TEST(NodeConfig, SizesHaveUnits) {
  for (const auto& [written, bytes] : {std::pair<const char*, uint64_t>{"33554432", 33554432},
                                       {"64K", 64ULL << 10},
                                       {"300M", 300ULL << 20},
                                       {"1G", 1ULL << 30}}) {
    const auto parsed = NodeConfig::parse(replaced(kGood, "2G", written), "x");
    ASSERT_TRUE(parsed.ok()) << parsed.error().text();
    EXPECT_EQ(parsed->pool_bytes, bytes) << written;
  }
}

// One edit of the good file, and what the error must say: where, what was written, what is
// accepted.
struct Mistake {
  const char* name;
  const char* good;
  const char* bad;
  const char* field;
  const char* value;
  const char* accepted;
};
void PrintTo(const Mistake& mistake, std::ostream* out) {
  *out << mistake.bad;
}

class NodeConfigMistake : public testing::TestWithParam<Mistake> {};

TEST_P(NodeConfigMistake, ErrorNamesFieldValueAndWhatIsAccepted) {
  const Mistake& mistake = GetParam();
  const Result<NodeConfig> parsed =
      NodeConfig::parse(replaced(kGood, mistake.good, mistake.bad), "edge.yaml");
  ASSERT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.error().kind, Error::Kind::kInvalid);
  EXPECT_EQ(parsed.error().field, std::string("edge.yaml: ") + mistake.field);
  EXPECT_NE(parsed.error().text().find(mistake.value), std::string::npos) << parsed.error().text();
  EXPECT_NE(parsed.error().message.find(mistake.accepted), std::string::npos)
      << parsed.error().text();
}

constexpr char kPrefix[] = "accepted: 192.0.2.0/24";
constexpr char kSize[] = "a number with K, M or G";
constexpr char kMac[] = "accepted: 02:00:00:00:00:01";
INSTANTIATE_TEST_SUITE_P(
    All, NodeConfigMistake,
    testing::Values(
        Mistake{"DeviceInBothRoles", "0000:03:00.0", "net_af_packet0,iface=fk-in",
                "ports[1].device", "\"net_af_packet0,iface=fk-in\" is used twice (ports[0])",
                "one port and one role, inside or outside"},
        Mistake{"NameTwice", "name: outside", "name: inside", "ports[1].name",
                "\"inside\" is used twice (ports[0])", "a name of its own"},
        Mistake{"AddressTwice", "[203.0.113.1/24,", "[10.0.0.1/8,", "ports[1].addresses",
                "10.0.0.1 is used twice", "ports[0]"},
        Mistake{"AddressTwiceInAPort", "[10.0.0.1/24, 10.1.0.1/16]", "[10.0.0.1/24, 10.0.0.1/16]",
                "ports[0].addresses", "10.0.0.1 is used twice", "ports[0]"},
        Mistake{"Ipv6AddressTwice", "[10.0.0.1/24,", "[\"2001:db8:2::1/32\",", "ports[1].addresses",
                "2001:db8:2::1 is used twice", "ports[0]"},
        Mistake{"Role", "role: outside", "role: wan", "ports[1].role", "\"wan\"",
                "inside or outside is"},
        Mistake{"RoleMissing", "role: outside", "", "ports[1].role", "", "is missing"},
        Mistake{"DeviceMissing", "device: 0000:03:00.0", "", "ports[1].device", "", "is missing"},
        Mistake{"NameEmpty", "name: outside", "name: \"\"", "ports[1].name", "", "is empty"},
        Mistake{"NameLong", "name: outside", "name: abcdefghijklmnopqrstuvwxyz012345",
                "ports[1].name", "\"abcdefghijklmnopqrstuvwxyz012345\"", "1 to 31 characters"},
        Mistake{"Promiscuous", "promiscuous: true", "promiscuous: yes", "ports[1].promiscuous",
                "\"yes\"", "true or false is"},
        Mistake{"PrefixLength", "10.1.0.1/16", "10.1.0.1/33", "ports[0].addresses[1]",
                "\"10.1.0.1/33\"", kPrefix},
        Mistake{"PrefixAddress", "10.1.0.1/16", "10.1.0.256/16", "ports[0].addresses[1]",
                "\"10.1.0.256/16\"", kPrefix},
        Mistake{"PrefixEmptyLength", "10.1.0.1/16", "10.1.0.1/", "ports[0].addresses[1]",
                "\"10.1.0.1/\"", kPrefix},
        Mistake{"PrefixTail", "10.1.0.1/16", "10.1.0.1/16x", "ports[0].addresses[1]",
                "\"10.1.0.1/16x\"", kPrefix},
        Mistake{"RoutePrefix", "0.0.0.0/0", "default", "ports[1].routes[0].prefix", "\"default\"",
                kPrefix},
        Mistake{"RouteVia", "via: 203.0.113.2", "via: gateway", "ports[1].routes[0].via",
                "\"gateway\"", "accepted: 192.0.2.1"},
        Mistake{"RouteViaMissing", ", via: 203.0.113.2", "", "ports[1].routes[0].via", "",
                "is missing"},
        Mistake{"RouteUnknown", "via: 203", "metric: 1, via: 203", "ports[1].routes[0].metric", "",
                "accepted: prefix, via"},
        Mistake{"NeighbourAddress", "10.0.0.2, mac", "10.0.2, mac",
                "ports[0].neighbours[0].address", "\"10.0.2\"", "accepted: 192.0.2.1"},
        Mistake{"MacShort", "02:00:00:00:0a:ff", "02:00:00:00:0a", "ports[0].neighbours[0].mac",
                "\"02:00:00:00:0a\"", kMac},
        Mistake{"MacLong", "02:00:00:00:0a:ff", "02:00:00:00:0a:ff:01",
                "ports[0].neighbours[0].mac", "\"02:00:00:00:0a:ff:01\"", kMac},
        Mistake{"MacDigits", "02:00:00:00:0a:ff", "02:00:00:00:0a:gg", "ports[0].neighbours[0].mac",
                "\"02:00:00:00:0a:gg\"", kMac},
        Mistake{"PoolPathMissing", "path: /mnt/pmem/pool, ", "", "pool.path", "", "is missing"},
        Mistake{"PoolMissing", "pool: {path: /mnt/pmem/pool, size: 2G, emulate_pmem: true}", "",
                "pool.path", "", "is missing"},
        Mistake{"SizeUnit", "size: 2G", "size: 2T", "pool.size", "\"2T\"", kSize},
        Mistake{"SizeText", "size: 2G", "size: large", "pool.size", "\"large\"", kSize},
        Mistake{"SizeNegative", "size: 2G", "size: -2G", "pool.size", "\"-2G\"", kSize},
        Mistake{"SizeHuge", "size: 2G", "size: 18446744073709551615G", "pool.size",
                "\"18446744073709551615G\"", kSize},
        Mistake{"EmulatePmem", "emulate_pmem: true", "emulate_pmem: 1", "pool.emulate_pmem",
                "\"1\"", "true or false is"},
        Mistake{"PowerCutDrills", "emulate_pmem: true", "power_cut_drills: true",
                "pool.power_cut_drills", "true", "without emulate_pmem: true"},
        Mistake{"PacketsFew", "count: 65536", "count: 4095", "packets.count", "\"4095\"",
                "a number from 4096 to"},
        Mistake{"PacketsText", "count: 65536", "count: many", "packets.count", "\"many\"",
                "a number from 4096 to"},
        Mistake{"PacketsBeyond32Bits", "count: 65536", "count: 4295032832", "packets.count",
                "\"4295032832\"", "a number from 4096 to"},
        Mistake{"Hugepages", "hugepages: always", "hugepages: 1G", "packets.hugepages", "\"1G\"",
                "auto, always or never is"},
        Mistake{"SlotsNone", "slots: 4", "slots: 0", "workers.slots", "\"0\"",
                "a number from 1 to 16"},
        Mistake{"SlotsMany", "slots: 4", "slots: 17", "workers.slots", "\"17\"",
                "a number from 1 to 16"},
        Mistake{"Standby", "standby: 2", "standby: 5", "workers.standby", "\"5\"",
                "a number from 0 to 4"},
        Mistake{"HangTimeout", "hang_timeout_ms: 250", "hang_timeout_ms: 9",
                "workers.hang_timeout_ms", "\"9\"", "a number from 10 to 60000"},
        Mistake{"NumberTail", "hang_timeout_ms: 250", "hang_timeout_ms: 250ms",
                "workers.hang_timeout_ms", "\"250ms\"", "a number from 10 to 60000"},
        Mistake{"UnknownTop", "state_dir:", "statedir:", "statedir", "unknown field", "state_dir"},
        Mistake{"SmallMtu", "mtu: 1492", "mtu: 575", "ports[1].mtu", "\"575\"",
                "a number from 576 to 2026"},
        Mistake{"LargeMtu", "mtu: 1492", "mtu: 2027", "ports[1].mtu", "\"2027\"",
                "a number from 576 to 2026"},
        Mistake{"Ipv6Mtu", "mtu: 1492", "mtu: 1279", "ports[1].mtu", "\"1279\"", "1280 or more"},
        Mistake{"Ipv6Prefix", "2001:db8:2::1/64", "2001:db8:2::1/129", "ports[1].addresses[1]",
                "2001:db8:2::1/129", "accepted: 2001:db8::/64"},
        Mistake{"Ipv6Via", "\"::/0\", via: \"fe80::2\"", "\"::/0\", via: 192.0.2.1",
                "ports[1].routes[1].via", "192.0.2.1", "accepted: 2001:db8::1"},
        Mistake{"VlanZero", "[200, 100]", "0", "ports[1].vlan", "\"0\"", "a number from 1 to 4094"},
        Mistake{"VlanThree", "[200, 100]", "[1, 2, 3]", "ports[1].vlan", "[1, 2, 3]",
                "a list of two"},
        Mistake{"VlanText", "[200, 100]", "[200, 10x]", "ports[1].vlan", "[200, 10x]", "1 to 4094"},
        Mistake{"FewDatagrams", "datagrams: 64", "datagrams: 15", "fragments.datagrams", "\"15\"",
                "a number from 16 to 32768"},
        Mistake{"UnknownInPort", "promiscuous: true", "speed: 1500", "ports[1].speed",
                "unknown field", "promiscuous"},
        Mistake{"UnknownInPool", "emulate_pmem: true", "emulate: true", "pool.emulate",
                "unknown field",
                "accepted: path, size, emulate_pmem, power_cut_drills, fence_delay_ns"},
        Mistake{"DelayWithoutFlushes", "emulate_pmem: true", "fence_delay_ns: 200",
                "pool.fence_delay_ns", "", "accepted: 0, or emulate_pmem: true"},
        Mistake{"LineDelayWithoutFlushes", "emulate_pmem: true", "line_delay_ns: 1",
                "pool.line_delay_ns", "", "accepted: 0, or emulate_pmem: true"},
        Mistake{"DelayTooLong", "emulate_pmem: true", "emulate_pmem: true, line_delay_ns: 100001",
                "pool.line_delay_ns", "\"100001\"", "a number from 0 to 100000"},
        Mistake{"NoMapping", "agent: {listen: 0.0.0.0:7471}", "agent: 0.0.0.0:7471", "agent", "",
                "must be a mapping"},
        Mistake{"NumberEmpty", "count: 65536", "count: \"\"", "packets.count", "\"\"",
                "a number from 4096 to"},
        Mistake{"FlagEmpty", "promiscuous: true", "promiscuous: \"\"", "ports[1].promiscuous",
                "\"\"", "true or false is"},
        Mistake{"SizeEmpty", "size: 2G", "size: \"\"", "pool.size", "\"\"", kSize},
        Mistake{"NodeNameEmpty", "name: edge-1", "name: \"\"", "node.name", "", "is empty"},
        Mistake{"StateDirEmpty", "/var/lib/flowkeep", "\"\"", "state_dir", "", "is empty"},
        Mistake{"GivenTwice", "state_dir:", "controller: 192.0.2.8:7470\nstate_dir:", "controller",
                "", "is given twice"},
        Mistake{"ListenWithoutPort", "0.0.0.0:7471", "0.0.0.0", "agent.listen", "\"0.0.0.0\"",
                "HOST:PORT is"},
        Mistake{"ListenPortZero", "0.0.0.0:7471", "0.0.0.0:0", "agent.listen", "\"0.0.0.0:0\"",
                "HOST:PORT is"},
        Mistake{"ControllerPort", "192.0.2.9:7470", "192.0.2.9:74700", "controller",
                "\"192.0.2.9:74700\"", "HOST:PORT is"},
        Mistake{"ControllerHost", "192.0.2.9:7470", "\":7470\"", "controller", "\":7470\"",
                "HOST:PORT is"},
        Mistake{"EalArgument", "[--log-level,", "[[--log-level],", "switch.eal_arguments[0]", "",
                "must be text"},
        Mistake{"EalArgumentsText", "[--log-level, \"8\"]", "--log-level", "switch.eal_arguments",
                "", "must be a list"},
        Mistake{"AddressesText", "[10.0.0.1/24, 10.1.0.1/16]", "10.0.0.1/24", "ports[0].addresses",
                "", "must be a list"},
        Mistake{"AddressOfAGroup", "10.1.0.1/16", "224.0.0.1/24", "ports[0].addresses[1]",
                "\"224.0.0.1/24\"", "the address of a host is"},
        Mistake{"AddressLoopback", "10.1.0.1/16", "127.0.0.1/8", "ports[0].addresses[1]",
                "\"127.0.0.1/8\"", "the address of a host is"},
        Mistake{"Ipv6AddressOfAGroup", "2001:db8:2::1/64", "ff02::1/64", "ports[1].addresses[1]",
                "\"ff02::1/64\"", "the address of a host is"},
        Mistake{"RouteViaNothing", "via: 203.0.113.2", "via: 0.0.0.0", "ports[1].routes[0].via",
                "\"0.0.0.0\"", "the address of a host is"},
        Mistake{"Ipv6ViaNothing", "via: \"fe80::2\"", "via: \"::\"", "ports[1].routes[1].via",
                "\"::\"", "the address of a host is"},
        Mistake{"MacOfAGroup", "02:00:00:00:0a:ff", "01:00:5e:00:00:01",
                "ports[0].neighbours[0].mac", "\"01:00:5e:00:00:01\"", "accepted: 02:00"},
        Mistake{"NoText", "listen: 0.0.0.0:7471", "listen: [a]", "agent.listen", "",
                "must be text"}),
    [](const auto& test) { return test.param.name; });

TEST(NodeConfig, NodeWithoutPortsIsRefused) {
  const auto parsed = NodeConfig::parse("pool: {path: /p}", "edge.yaml");
  ASSERT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.error().field, "edge.yaml: ports");
  EXPECT_NE(parsed.error().message.find("one inside and one outside port"), std::string::npos);
}

TEST(NodeConfig, TooManyPortsAreRefused) {
  std::string yaml = "pool: {path: /p}\nports:\n";
  for (size_t i = 0; i <= kMaxPorts; ++i) {
    const std::string number = std::to_string(i);
    yaml += "  - {name: p" + number + ", device: d" + number + ", role: inside}\n";
  }
  const auto parsed = NodeConfig::parse(yaml, "edge.yaml");
  ASSERT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.error().text(), "edge.yaml: ports: 9 ports; at most 8 are accepted");
}

TEST(NodeConfig, BrokenYamlIsRefusedWithItsPlace) {
  for (const char* broken : {"pool: {path: /p", "pool: [}", "\tports: 1", "a: b: c"}) {
    const auto parsed = NodeConfig::parse(broken, "edge.yaml");
    ASSERT_FALSE(parsed.ok()) << broken;
    EXPECT_EQ(parsed.error().field, "edge.yaml") << broken;
    EXPECT_NE(parsed.error().message.find("bad YAML: "), std::string::npos)
        << parsed.error().text();
    EXPECT_NE(parsed.error().message.find("line 1"), std::string::npos) << parsed.error().text();
  }
}

TEST(NodeConfig, OtherDocumentsAreRefused) {
  for (const char* other : {"", "just text", "[a, b]"}) {
    const auto parsed = NodeConfig::parse(other, "edge.yaml");
    ASSERT_FALSE(parsed.ok()) << other;
    EXPECT_NE(parsed.error().message.find("a mapping with node, pool and ports"),
              std::string::npos);
  }
}

TEST(NodeConfig, MissingFileIsNamed) {
  const auto loaded = NodeConfig::load("/nowhere/node.yaml");
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.error().field, "/nowhere/node.yaml");
}

TEST(Ipv4PrefixOfPort, ContainsByLength) {
  const auto address = [](const char* text) { return *parse_ipv4(text, "address"); };
  const Ipv4Prefix prefix = *parse_prefix("10.0.1.77/23", "prefix");
  EXPECT_EQ(format_ipv4(prefix.address), "10.0.1.77");  // an interface address keeps its host bits
  EXPECT_TRUE(prefix.contains(address("10.0.0.0")));
  EXPECT_TRUE(prefix.contains(address("10.0.1.255")));
  EXPECT_FALSE(prefix.contains(address("10.0.2.0")));
  EXPECT_TRUE(parse_prefix("0.0.0.0/0", "prefix")->contains(address("255.255.255.255")));
  const Ipv4Prefix host = *parse_prefix("10.0.0.1", "prefix");
  EXPECT_TRUE(host.contains(address("10.0.0.1")));
  EXPECT_FALSE(host.contains(address("10.0.0.2")));
}

TEST(NodeConfig, VlanMayBeOneNumber) {
  const auto parsed = NodeConfig::parse(replaced(kGood, "[200, 100]", "4094"), "x");
  ASSERT_TRUE(parsed.ok()) << parsed.error().text();
  EXPECT_EQ(parsed->ports[1].vlan, (VlanTags{{4094, 0}, 1}));
}

TEST(Ipv6Prefix, ContainsWhatItsBitsSay) {
  const auto prefix = [](const char* text) { return *parse_ipv6_prefix(text, "x"); };
  const auto address = [](const char* text) { return *parse_ipv6(text, "x"); };
  EXPECT_TRUE(prefix("::/0").contains(address("2001:db8::1")));
  EXPECT_TRUE(prefix("2001:db8::1/64").contains(address("2001:db8::ffff")));
  EXPECT_FALSE(prefix("2001:db8::1/64").contains(address("2001:db8:0:1::1")));
  EXPECT_TRUE(prefix("2001:db8::/33").contains(address("2001:db8:7fff::")));
  EXPECT_FALSE(prefix("2001:db8::/33").contains(address("2001:db8:8000::")));
  EXPECT_TRUE(prefix("2001:db8::1/128").contains(address("2001:db8::1")));
  EXPECT_FALSE(prefix("2001:db8::1/128").contains(address("2001:db8::")));
}

TEST(Ipv6Address, OfAnInterfaceAndTheGroupsThatAskForIt) {
  const uint8_t mac[6] = {0x02, 0x11, 0x22, 0x33, 0x44, 0x55};
  EXPECT_EQ(format_ipv6(link_local_address(mac)), "fe80::11:22ff:fe33:4455");
  EXPECT_TRUE(is_link_local(link_local_address(mac)));
  const Ipv6Address group = solicited_node_group(*parse_ipv6("2001:db8::12:3456", "x"));
  EXPECT_EQ(format_ipv6(group), "ff02::1:ff12:3456");
  EXPECT_TRUE(is_multicast(group));
}

}  // namespace
}  // namespace flowkeep
