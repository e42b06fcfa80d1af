// firewall and nat44 in a chain against a naive model of both, on random traffic: every packet's
// fate and bytes, and every flow's state, must be what the model says. Then the same traffic with a
// worker that dies in every burst, and with buckets that change their owner after every burst, and
// with nothing different.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <optional>
#include <random>
#include <set>

#include "nfs/chain_harness.h"

namespace flowkeep {
namespace {

const std::vector<std::string> kExternal = {"203.0.113.10", "203.0.113.11"};
const std::vector<std::string> kHosts = {"10.0.0.2", "10.0.0.3", "10.9.0.4"};
const std::vector<std::string> kRemotes = {"198.51.100.7", "198.51.100.8", "192.0.2.66"};
constexpr uint16_t kRemotePorts[] = {53, 443, 8080};
constexpr char kForbidden[] = "192.0.2.66";

ChainSpec firewall_and_nat() {
  return {"test",
          1,
          {{"firewall", R"({"tcp_tracking":"off","rules":[
              {"name":"forbidden","action":"drop","destination":["192.0.2.66"],"protocol":"udp"},
              {"name":"web","action":"accept","protocol":"tcp","destination_ports":["443-8080"],"direction":"from_inside"},
              {"name":"udp","action":"accept","protocol":"udp","source":["10.0.0.0/24"]},
              {"name":"ping","action":"accept","protocol":"icmp"}]})"},
           {"nat44", R"({"external_addresses":["203.0.113.10","203.0.113.11"]})"}}};
}

bool model_firewall_accepts(uint8_t protocol, const std::string& host, const std::string& remote,
                            uint16_t remote_port) {
  if (protocol == kProtocolIcmp) return true;
  if (protocol == kProtocolTcp) return remote_port >= 443 && remote_port <= 8080;
  return remote != kForbidden && host.starts_with("10.0.0.");
}

// A conversation as seen from one side of the NAT: `local` is the host or its external address.
struct Talk {
  uint8_t protocol;
  std::string local;
  uint16_t local_port;  // or echo identifier
  std::string remote;
  uint16_t remote_port;  // echo: 0
  friend auto operator<=>(const Talk&, const Talk&) = default;
};

// A packet of a conversation, or an ICMP error about one.
struct Event {
  Side side;
  Talk talk;  // as seen from `side`
  uint8_t flags = 0;
  bool reply = false;  // echo
  bool error = false;
  size_t payload = 0;
};

Bytes plain_frame(const Event& event, const Talk& talk) {
  const bool out = event.side == Side::kInside;
  const std::string& src = out ? talk.local : talk.remote;
  const std::string& dst = out ? talk.remote : talk.local;
  const uint16_t src_port = out ? talk.local_port : talk.remote_port;
  const uint16_t dst_port = out ? talk.remote_port : talk.local_port;
  switch (talk.protocol) {
    case kProtocolTcp:
      return PacketBuilder::tcp(src, src_port, dst, dst_port, event.flags)
          .payload(event.payload)
          .build();
    case kProtocolUdp:
      return PacketBuilder::udp(src, src_port, dst, dst_port).payload(event.payload).build();
    default:
      return (event.reply ? PacketBuilder::echo_reply(src, dst, talk.local_port)
                          : PacketBuilder::echo_request(src, dst, talk.local_port))
          .payload(event.payload)
          .build();
  }
}

// `talk`: event.talk, or what it looks like on the other side of the NAT.
Bytes frame_of(const Event& event, const Talk& talk) {
  if (!event.error) return plain_frame(event, talk);
  Event about = event;
  about.side = opposite(event.side);
  const Bytes quoted = plain_frame(about, talk);
  const bool out = event.side == Side::kInside;
  const std::string& src = out ? talk.local : "192.0.2.1";
  return PacketBuilder::icmp_error(src, out ? talk.remote : talk.local, 3, 4, quoted).build();
}

struct ModelFlow {
  Talk outside;
  uint32_t last_seen_s;
  bool answered = false, fin_inside = false, fin_outside = false, reset = false;

  bool over() const { return reset || (fin_inside && fin_outside); }
  bool expired(uint32_t now_s) const {
    const bool open = answered && !fin_inside && !fin_outside && !reset;
    const uint32_t idle_s = outside.protocol == kProtocolUdp    ? 300
                            : outside.protocol == kProtocolIcmp ? 60
                            : open                              ? 7440
                                                                : 240;
    return now_s - last_seen_s > idle_s;
  }
  FlowPhase phase() const {
    if (over()) return FlowPhase::kClosed;
    if (fin_inside) return FlowPhase::kClosingInside;
    if (fin_outside) return FlowPhase::kClosingOutside;
    return answered ? FlowPhase::kEstablished : FlowPhase::kOpening;
  }
  void see(const Event& event, uint32_t now_s) {
    last_seen_s = now_s;
    if (event.talk.protocol != kProtocolTcp) {
      answered |= event.side == Side::kOutside;
      return;
    }
    const bool anew = event.flags == kTcpSyn && event.side == Side::kInside;
    if (anew && (fin_inside || fin_outside || reset)) {
      answered = fin_inside = fin_outside = reset = false;
    }
    // The initiator, which is inside, acknowledges the answer.
    const uint8_t handshake = event.flags & (kTcpSyn | kTcpAck | kTcpRst);
    answered |= event.side == Side::kInside && handshake == kTcpAck;
    if (event.flags & kTcpRst) reset = true;
    if (event.flags & kTcpFin) (event.side == Side::kInside ? fin_inside : fin_outside) = true;
  }
};

class Model {
 public:
  // What the switch steers a burst by is what was leased before it.
  void begin_burst() { leased_before_burst_ = leased_; }

  // Checks what became of one packet.
  void check(const Event& event, const Departure& departure, uint32_t now_s) {
    std::optional<Talk> inside = find(event, now_s);
    if (inside) {
      ModelFlow& flow = flows_.at(*inside);
      expect_forwarded(event, departure, event.side == Side::kInside ? flow.outside : *inside);
      if (!event.error) flow.see(event, now_s);
      return;
    }
    const DropReason expected = refusal(event);
    ASSERT_EQ(drop_reason_name(departure.reason), drop_reason_name(expected));
    if (expected == DropReason::kNone) open(event, departure, now_s);
  }

  // Blocks that nobody has a port of are given back first: those of flows that end now, next time.
  void sweep(uint32_t now_s) {
    std::erase_if(leased_, [this](const Block& block) {
      return std::ranges::none_of(outside_,
                                  [&](const auto& flow) { return block_of(flow.first) == block; });
    });
    for (auto flow = flows_.begin(); flow != flows_.end();) {
      const auto next = std::next(flow);
      if (flow->second.expired(now_s)) erase(flow->first);
      flow = next;
    }
  }

  const std::map<Talk, ModelFlow>& flows() const { return flows_; }
  std::map<std::string_view, uint64_t> fates;

 private:
  using Block = std::pair<std::string, int>;  // external address, and 64 of its ports
  static Block block_of(const Talk& outside) { return {outside.local, outside.local_port / 64}; }

  std::optional<Talk> find(const Event& event, uint32_t now_s) {
    std::optional<Talk> inside;
    if (event.side == Side::kInside && flows_.contains(event.talk)) inside = event.talk;
    if (event.side == Side::kOutside && outside_.contains(event.talk))
      inside = outside_.at(event.talk);
    if (!inside) return std::nullopt;
    const ModelFlow& flow = flows_.at(*inside);
    const bool expired = flow.expired(now_s);
    const bool taken_over = event.side == Side::kOutside && !event.error &&
                            event.talk.protocol == kProtocolTcp && event.flags == kTcpSyn &&
                            flow.over();
    if (!expired && !taken_over) return inside;
    if (!event.error) erase(*inside);
    return std::nullopt;
  }

  DropReason refusal(const Event& event) const {
    const Talk& talk = event.talk;
    if (event.side == Side::kOutside && !leased_before_burst_.contains(block_of(talk))) {
      return DropReason::kNoPortLease;
    }
    const bool begins = !event.error && (talk.protocol == kProtocolTcp    ? event.flags == kTcpSyn
                                         : talk.protocol == kProtocolIcmp ? !event.reply
                                                                          : true);
    if (!begins) return DropReason::kNoFlow;
    if (event.side == Side::kOutside) {
      return is_mapped(talk) ? DropReason::kNatFiltered : DropReason::kNatNoMapping;
    }
    return model_firewall_accepts(talk.protocol, talk.local, talk.remote, talk.remote_port)
               ? DropReason::kNone
               : DropReason::kFirewallDenied;
  }

  static bool same_endpoint(const Talk& one, const Talk& other) {
    return one.protocol == other.protocol && one.local == other.local &&
           one.local_port == other.local_port;
  }
  // Has somebody the external endpoint?
  bool is_mapped(const Talk& outside) const {
    return std::ranges::any_of(
        outside_, [&](const auto& flow) { return same_endpoint(flow.first, outside); });
  }

  // The choice of the external endpoint is the NAT's; it must be one of ours and nobody else's.
  void open(const Event& event, const Departure& departure, uint32_t now_s) {
    PacketMeta meta;
    ASSERT_EQ(parse(departure.frame.data(), static_cast<uint16_t>(departure.frame.size()),
                    Side::kInside, {}, meta),
              DropReason::kNone);
    Talk outside = event.talk;
    outside.local = to_string(meta.key.src);
    outside.local_port = meta.key.src_port.host();
    ASSERT_NE(std::find(kExternal.begin(), kExternal.end(), outside.local), kExternal.end());
    ASSERT_GE(outside.local_port, 1024);
    if (const auto other = outside_.find(outside); other != outside_.end()) {
      ASSERT_TRUE(flows_.at(other->second).expired(now_s)) << "the external endpoint is in use";
      erase(Talk(other->second));
    }
    // One endpoint, one external endpoint, and the other way round.
    for (const auto& [other, flow] : flows_) {
      ASSERT_EQ(same_endpoint(other, event.talk), same_endpoint(flow.outside, outside));
    }
    expect_forwarded(event, departure, outside);
    outside_[outside] = event.talk;
    leased_.insert(block_of(outside));
    flows_[event.talk] = ModelFlow{outside, now_s};
    flows_.at(event.talk).see(event, now_s);
  }

  void expect_forwarded(const Event& event, const Departure& departure, const Talk& other_side) {
    ASSERT_EQ(drop_reason_name(departure.reason), "none");
    ASSERT_EQ(checksum_faults(departure.frame), "");
    ASSERT_EQ(departure.frame, frame_of(event, other_side));
  }

  void erase(const Talk& inside) {
    outside_.erase(flows_.at(inside).outside);
    flows_.erase(inside);
  }

  std::map<Talk, ModelFlow> flows_;  // by the conversation as the inside sees it
  std::map<Talk, Talk> outside_;     // outside view -> inside view
  // As far as can be told from what left to the outside.
  std::set<Block> leased_, leased_before_burst_;
};

class Traffic {
 public:
  explicit Traffic(uint32_t seed) : random_(seed) {}

  uint32_t below(size_t n) { return static_cast<uint32_t>(random_() % n); }

  Event next(const Model& model) {
    Event event{Side::kInside, random_talk(), random_flags(),
                below(8) == 0, below(8) == 0, below(40)};
    if (below(2) == 0) event.side = Side::kOutside;
    if (!model.flows().empty() && below(4) != 0) {
      const auto flow = std::next(model.flows().begin(), below(model.flows().size()));
      event.talk = event.side == Side::kInside ? flow->first : flow->second.outside;
      if (event.side == Side::kOutside) event.reply = true;
      if (below(16) == 0) event.talk.remote_port ^= 1;  // a stranger's packet
      if (event.talk.protocol == kProtocolIcmp) event.talk.remote_port = 0;
    } else if (event.side == Side::kOutside) {
      event.talk.local = kExternal[below(kExternal.size())];
      event.talk.local_port = static_cast<uint16_t>(random_());
    }
    return event;
  }

  uint32_t next_pause_s() {
    constexpr uint32_t kPauses_s[] = {60, 61, 240, 241, 300, 301, 7440, 7441};
    return below(8) == 0 ? kPauses_s[below(std::size(kPauses_s))] : below(4);
  }

 private:
  Talk random_talk() {
    const uint8_t protocol = std::array{kProtocolTcp, kProtocolUdp, kProtocolIcmp}[below(3)];
    const uint16_t remote_port = protocol == kProtocolIcmp ? uint16_t{0} : kRemotePorts[below(3)];
    return {protocol, kHosts[below(kHosts.size())], static_cast<uint16_t>(2000 + below(40)),
            kRemotes[below(kRemotes.size())], remote_port};
  }
  uint8_t random_flags() {
    constexpr uint8_t kFlags[] = {kTcpSyn,           kTcpSyn, kTcpSyn,
                                  kTcpAck,           kTcpAck, kTcpSyn | kTcpAck,
                                  kTcpFin | kTcpAck, kTcpRst, kTcpRst | kTcpAck};
    return kFlags[below(std::size(kFlags))];
  }
  std::mt19937 random_;
};

void expect_same_flows(ChainHarness& harness, const Model& model) {
  for (const auto& [inside, flow] : model.flows()) {
    if (flow.expired(harness.now_s)) continue;
    const Event probe{Side::kInside, inside, kTcpAck};
    const auto record = harness.flow_of(Side::kInside, frame_of(probe, inside));
    ASSERT_TRUE(record);
    ASSERT_EQ(record->phase, flow.phase());
    ASSERT_EQ(record->last_seen_s, flow.last_seen_s);
    ASSERT_EQ(to_string(record->outside_key.dst), flow.outside.local);
    ASSERT_EQ(record->outside_key.dst_port.host(), flow.outside.local_port);
    ASSERT_EQ(std::memcmp(record->hard, &record->outside_key.dst, 4), 0);
  }
}

// What became of each packet.
std::vector<Departure> play(uint32_t seed, const PoolDirectory& directory, Crash crash) {
  ChainHarness harness(firewall_and_nat(), directory, crash);
  Model model;
  Traffic traffic(seed);
  std::vector<Departure> all;
  for (int round = 0; round < 400 && !testing::Test::HasFatalFailure(); ++round) {
    std::vector<Event> events;
    std::vector<Arrival> arrivals;
    for (uint32_t n = 1 + traffic.below(kBurstPackets); n > 0; --n) {
      events.push_back(traffic.next(model));
      arrivals.push_back({events.back().side, frame_of(events.back(), events.back().talk)});
    }
    model.begin_burst();
    const std::vector<Departure> departures = harness.burst(arrivals);
    for (size_t i = 0; i < events.size(); ++i) {
      SCOPED_TRACE("round " + std::to_string(round) + ", packet " + std::to_string(i));
      model.check(events[i], departures[i], harness.now_s);
      if (testing::Test::HasFatalFailure()) return all;
      ++model.fates[drop_reason_name(departures[i].reason)];
    }
    all.insert(all.end(), departures.begin(), departures.end());
    harness.now_s += traffic.next_pause_s();
    expect_same_flows(harness, model);
    if (round % 10 == 0) {
      harness.sweep_all();
      model.sweep(harness.now_s);
      EXPECT_EQ(harness.flows(), model.flows().size());
    }
  }
  // The traffic must have reached every fate, or the test would show little.
  for (const char* fate :
       {"none", "no_flow", "firewall_denied", "nat_no_mapping", "nat_filtered", "no_port_lease"}) {
    EXPECT_GT(model.fates[fate], 50U) << fate;
  }
  return all;
}

class ModelTest : public testing::TestWithParam<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Seeds, ModelTest, testing::Values(1U, 2U, 20240519U));

TEST_P(ModelTest, FirewallAndNatDoWhatTheModelSaysInEveryMode) {
  SCOPED_TRACE("seed " + std::to_string(GetParam()));
  PoolDirectory calm, stormy, shared;
  open_pool(calm, ChainHarness::kPoolBytes);
  // The same pool for all, and so the same hash secret, on which the choice of ports depends.
  std::filesystem::copy_file(calm.file(), stormy.file());
  std::filesystem::copy_file(calm.file(), shared.file());
  const std::vector<Departure> expected = play(GetParam(), calm, Mode::kPlain);
  const std::vector<Departure> survived = play(GetParam(), stormy, Mode::kCrash);
  const std::vector<Departure> handed_over = play(GetParam(), shared, Mode::kHandover);
  ASSERT_EQ(survived.size(), expected.size());
  ASSERT_EQ(handed_over.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(survived[i], expected[i]) << "packet " << i;
    ASSERT_EQ(handed_over[i], expected[i]) << "packet " << i;
  }
}

}  // namespace
}  // namespace flowkeep
