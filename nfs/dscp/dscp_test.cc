#include "nfs/dscp/dscp.h"

#include "nfs/function_bench.h"

namespace flowkeep {
namespace {

constexpr char kConfig[] = R"({"classes": [{"dscp": 46, "first_port": 5060, "last_port": 5061},
                                           {"dscp": 10, "first_port": 0, "last_port": 5999}],
                               "otherwise": 8})";
constexpr uint8_t kVoice = 46, kBulk = 10, kLow = 8;

PacketBuilder call(uint8_t dscp = 0) {
  return PacketBuilder::udp("10.0.0.2", 7000, "192.0.2.1", 5060).payload(20).dscp(dscp);
}
PacketBuilder answer(uint8_t dscp = 0) {
  return PacketBuilder::udp("192.0.2.1", 5060, "10.0.0.2", 7000).payload(20).dscp(dscp);
}
PacketBuilder other(uint8_t dscp = 0) {
  return PacketBuilder::udp("10.0.0.2", 7000, "192.0.2.1", 6000).dscp(dscp);
}

TEST(Dscp, Table) {
  const Passage hello = from_inside(call());
  const Passage back = from_outside(answer());
  const PacketBuilder upload =
      PacketBuilder::tcp("192.0.2.1", 9000, "10.0.0.2", 22, kTcpSyn).ip_options(2);
  PacketBuilder marked_upload = upload;
  run_table(
      chain_of("dscp", kConfig),
      {
          {.what = "the first class that has the port marks the flow, both ways",
           .bursts = {{hello.becomes(call(kVoice)), back.becomes(answer(kVoice))},
                      {hello.becomes(call(kVoice))}},
           .after = {flow<Dscp>(hello, {kVoice}, FlowPhase::kEstablished)},
           .counters = {{{"opened", 1}}}},
          {.what = "no class has the port",
           .bursts = {{from_inside(other()).becomes(other(kLow))}},
           .after = {flow<Dscp>(from_inside(other()), {kLow}, FlowPhase::kOpening)}},
          {.what = "opened from the outside: the inside port decides",
           .bursts = {{from_outside(upload).becomes(marked_upload.dscp(kBulk))}},
           .after = {flow<Dscp>(from_outside(upload), {kBulk}, FlowPhase::kOpening)}},
          {.what = "a mark that is right is left alone, another one is replaced",
           .bursts = {{from_inside(call(kVoice)), from_inside(call(63)).becomes(call(kVoice))}},
           .after = {flow<Dscp>(hello, {kVoice}, FlowPhase::kOpening)}},
          {.what = "a flow keeps the mark that it has, whatever the classes say now",
           .before = {flow<Dscp>(hello, {33}, FlowPhase::kEstablished)},
           .bursts = {{hello.becomes(call(33))}, later(200, {back.becomes(answer(33))})},
           .after = {flow<Dscp>(hello, {33}, FlowPhase::kEstablished)},
           .counters = CounterChanges{}},
          {.what = "after its time-out a flow opens anew",
           .before = {flow<Dscp>(hello, {33}, FlowPhase::kEstablished)},
           .bursts = {later(301, {hello.becomes(call(kVoice))})},
           .after = {flow<Dscp>(hello, {kVoice}, FlowPhase::kOpening)},
           .counters = {{{"expired", 1}, {"opened", 1}}}},
      });
}

TEST(Dscp, ExplicitCongestionNotificationIsLeftAlone) {
  Bytes frame = call().build();
  frame[sizeof(EthernetHeader) + 1] = 0x02;
  frame[sizeof(EthernetHeader) + 11] -= 2;  // the checksum's lower byte
  ASSERT_EQ(checksum_faults(frame), "");
  PoolDirectory directory;
  ChainHarness harness(chain_of("dscp", kConfig), directory);
  const Departure departure = harness.send(Side::kInside, frame);
  ASSERT_EQ(departure.reason, DropReason::kNone);
  EXPECT_EQ(departure.frame[sizeof(EthernetHeader) + 1], kVoice << 2 | 0x02);
  EXPECT_EQ(checksum_faults(departure.frame), "");
}

TEST(Dscp, RefusesWhatIsNoClass) {
  const auto refusal = [](const std::string& config) {
    const auto checked = validate_chain(chain_of("dscp", config));
    return checked.ok() ? "" : checked.error().text();
  };
  EXPECT_EQ(refusal(kConfig), "");
  EXPECT_NE(refusal(R"({"otherwise": 64})").find("config.otherwise"), std::string::npos);
  EXPECT_NE(refusal(R"({"classes": [{"dscp": 99}]})").find("classes[0].dscp"), std::string::npos);
  EXPECT_NE(
      refusal(R"({"classes": [{"first_port": 9, "last_port": 8}]})").find("classes[0].last_port"),
      std::string::npos);
}

}  // namespace
}  // namespace flowkeep
