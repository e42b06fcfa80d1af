// The firewall against a naive model of one, on random rules and random packets of both families:
// what passes, what is refused for which reason and whether its sender is told, what each rule
// counted, how many flows there are, and what becomes of them under other rules. The model knows
// packets as what they mean, not as bytes, and has its own idea of flows, phases and time-outs.
//
// Not in it, because a worker's death may change it: rate limits and half-open limits. Windows of
// TCP: tcp_tracker_test.cc.
#include <algorithm>
#include <map>
#include <random>
#include <tuple>

#include "nfs/chain_harness.h"

namespace flowkeep {
namespace {

enum class Kind : uint8_t { kTcp, kUdp, kEcho };

// A packet as its sender means it.
struct Meant {
  Side side;
  bool ipv6;
  Kind kind;
  uint32_t src, dst;       // number of the host on its side
  uint16_t sport, dport;   // echo: the identifier, twice
  uint8_t flags = 0;       // of TCP
  bool is_request = true;  // of an echo
};

std::string address_of(bool inside, bool ipv6, uint32_t host) {
  const std::string net =
      ipv6 ? (inside ? "2001:db8:1::" : "2001:db8:2::") : (inside ? "10.0.0." : "198.51.100.");
  return net + std::to_string(host);
}

Bytes bytes_of(const Meant& packet) {
  const bool from_inside = packet.side == Side::kInside;
  const std::string src = address_of(from_inside, packet.ipv6, packet.src);
  const std::string dst = address_of(!from_inside, packet.ipv6, packet.dst);
  switch (packet.kind) {
    case Kind::kTcp:
      return PacketBuilder::tcp(src, packet.sport, dst, packet.dport, packet.flags).build();
    case Kind::kUdp:
      return PacketBuilder::udp(src, packet.sport, dst, packet.dport).build();
    case Kind::kEcho:
      break;
  }
  return packet.is_request ? PacketBuilder::echo_request(src, dst, packet.sport).build()
                           : PacketBuilder::echo_reply(src, dst, packet.sport).build();
}

// ---- Rules, as they are meant and as they are written.

struct Range {
  uint32_t first, last;
  bool contains(uint32_t value) const { return first <= value && value <= last; }
};

struct ModelRule {
  std::string action;
  std::string direction;                       // empty: any
  std::string protocol;                        // empty: any
  std::string family;                          // empty: any
  std::optional<Range> sources, destinations;  // of host numbers
  std::optional<Range> source_ports, destination_ports;
  std::optional<bool> echo_request;  // the type: a request, or a reply
  uint8_t flags_set = 0, flags_unset = 0;

  bool matches(const Meant& packet) const {
    if (direction == "from_inside" && packet.side != Side::kInside) return false;
    if (direction == "from_outside" && packet.side != Side::kOutside) return false;
    if (family == "ipv4" && packet.ipv6) return false;
    if (family == "ipv6" && !packet.ipv6) return false;
    if (protocol == "tcp" && packet.kind != Kind::kTcp) return false;
    if (protocol == "udp" && packet.kind != Kind::kUdp) return false;
    if (protocol == "icmp" && (packet.kind != Kind::kEcho || packet.ipv6)) return false;
    if (protocol == "icmpv6" && (packet.kind != Kind::kEcho || !packet.ipv6)) return false;
    if (sources && !sources->contains(packet.src)) return false;
    if (destinations && !destinations->contains(packet.dst)) return false;
    if (source_ports && !source_ports->contains(packet.sport)) return false;
    if (destination_ports && !destination_ports->contains(packet.dport)) return false;
    if (echo_request && *echo_request != packet.is_request) return false;
    return (packet.flags & flags_set) == flags_set && (packet.flags & flags_unset) == 0;
  }
};

std::string listed(const std::vector<std::string>& words) {
  std::string list;
  for (const std::string& word : words) list += (list.empty() ? "\"" : ",\"") + word + '"';
  return '[' + list + ']';
}

// The addresses of both families and sides that have these host numbers, one by one.
std::string addresses_of(const Range& hosts) {
  std::vector<std::string> words;
  for (const bool inside : {true, false}) {
    for (uint32_t host = hosts.first; host <= hosts.last; ++host) {
      words.push_back(address_of(inside, false, host));
      words.push_back(address_of(inside, true, host));
    }
  }
  return listed(words);
}

std::string flag_names(uint8_t flags) {
  std::vector<std::string> words;
  if (flags & kTcpFin) words.emplace_back("fin");
  if (flags & kTcpSyn) words.emplace_back("syn");
  if (flags & kTcpRst) words.emplace_back("rst");
  if (flags & kTcpAck) words.emplace_back("ack");
  return listed(words);
}

std::string written(const ModelRule& rule, size_t number) {
  const auto ports = [](const Range& range) {
    return listed({std::to_string(range.first) + '-' + std::to_string(range.last)});
  };
  std::string text =
      R"({"name":"r)" + std::to_string(number) + R"(","action":")" + rule.action + '"';
  if (!rule.direction.empty()) text += R"(,"direction":")" + rule.direction + '"';
  if (!rule.protocol.empty()) text += R"(,"protocol":")" + rule.protocol + '"';
  if (!rule.family.empty()) text += R"(,"family":")" + rule.family + '"';
  const auto add_addresses = [&](const char* field, const std::optional<Range>& hosts) {
    if (hosts) text += std::string(R"(,")") + field + R"(":)" + addresses_of(*hosts);
  };
  add_addresses("source", rule.sources);
  add_addresses("destination", rule.destinations);
  if (rule.source_ports) text += R"(,"source_ports":)" + ports(*rule.source_ports);
  if (rule.destination_ports) text += R"(,"destination_ports":)" + ports(*rule.destination_ports);
  if (rule.echo_request) {
    text += std::string(R"(,"icmp_type":")") +
            (*rule.echo_request ? "echo-request" : "echo-reply") + '"';
  }
  if (rule.flags_set != 0) text += R"(,"tcp_flags_set":)" + flag_names(rule.flags_set);
  if (rule.flags_unset != 0) text += R"(,"tcp_flags_unset":)" + flag_names(rule.flags_unset);
  return text + '}';
}

ChainSpec spec_of(const std::vector<ModelRule>& rules, uint32_t revision) {
  std::string list;
  for (size_t i = 0; i < rules.size(); ++i) list += (i == 0 ? "" : ",") + written(rules[i], i);
  return {"test", revision, {{"firewall", R"({"tcp_tracking":"off","rules":[)" + list + "]}"}}};
}

// ---- The model.

struct Judgement {
  std::string_view reason = "none";
  bool is_answered = false;
};

class FirewallModel {
 public:
  void use(std::vector<ModelRule> rules) {
    rules_ = std::move(rules);
    for (auto& [name, flow] : flows_) flow.is_judged = false;
    counted_.clear();
  }

  Judgement take(const Meant& packet, uint32_t now_s) {
    const Name name = name_of(packet);
    const auto found = flows_.find(name);
    if (found != flows_.end()) {
      Flow& flow = found->second;
      const bool other_side_begins =
          flow.phase == Phase::kClosed && packet.side != flow.opened_by.side && is_syn(packet);
      if (!is_over(flow, now_s) && !other_side_begins && still_allowed(flow)) {
        flow.is_judged = true;
        flow.seen_s = now_s;
        follow(flow, packet);
        return {};
      }
      flows_.erase(found);
    }
    return judge_first(packet, name, now_s);
  }

  void pass_time(uint32_t now_s) {
    std::erase_if(flows_, [&](const auto& entry) {
      return is_over(entry.second, now_s) || !still_allowed(entry.second);
    });
  }

  uint64_t flows() const { return flows_.size(); }
  // By the rule's number; -1: none matched.
  const std::map<int, uint64_t>& counted() const { return counted_; }

 private:
  enum class Phase : uint8_t { kOpening, kEstablished, kInsideDone, kOutsideDone, kClosed };
  // Family, kind, and the ends on the inside and the outside.
  using Name = std::tuple<bool, Kind, uint32_t, uint16_t, uint32_t, uint16_t>;
  struct Flow {
    Meant opened_by;
    Phase phase = Phase::kOpening;
    uint32_t seen_s = 0;
    bool is_judged = true;  // by the rules of now
  };

  static Name name_of(const Meant& packet) {
    if (packet.side == Side::kInside) {
      return {packet.ipv6, packet.kind, packet.src, packet.sport, packet.dst, packet.dport};
    }
    return {packet.ipv6, packet.kind, packet.dst, packet.dport, packet.src, packet.sport};
  }
  static bool has(const Meant& packet, uint8_t flag) { return (packet.flags & flag) != 0; }
  static bool is_syn(const Meant& packet) {
    return packet.kind == Kind::kTcp && has(packet, kTcpSyn) && !has(packet, kTcpAck) &&
           !has(packet, kTcpRst) && !has(packet, kTcpFin);
  }

  int first_match(const Meant& packet) const {
    for (size_t i = 0; i < rules_.size(); ++i) {
      if (rules_[i].matches(packet)) return static_cast<int>(i);
    }
    return -1;
  }
  // Only the rules' verdict on the packet that opened it counts: its flags were a lone SYN.
  bool still_allowed(const Flow& flow) const {
    if (flow.is_judged) return true;
    Meant opening = flow.opened_by;
    if (opening.kind == Kind::kTcp) opening.flags = kTcpSyn;
    const int rule = first_match(opening);
    return rule >= 0 && rules_[static_cast<size_t>(rule)].action == "accept";
  }

  static uint32_t patience_s(const Flow& flow) {
    if (flow.opened_by.kind == Kind::kUdp) return 300;
    if (flow.opened_by.kind == Kind::kEcho) return 60;
    return flow.phase == Phase::kEstablished ? 7440 : 240;
  }
  static bool is_over(const Flow& flow, uint32_t now_s) {
    return now_s - flow.seen_s > patience_s(flow);
  }

  static void follow(Flow& flow, const Meant& packet) {
    const bool from_initiator = packet.side == flow.opened_by.side;
    if (flow.opened_by.kind != Kind::kTcp) {
      if (!from_initiator) flow.phase = Phase::kEstablished;
      return;
    }
    if (has(packet, kTcpRst)) {
      flow.phase = Phase::kClosed;
      return;
    }
    const bool was_closing = flow.phase > Phase::kEstablished;
    if (was_closing && from_initiator && is_syn(packet)) {
      flow.phase = Phase::kOpening;
      return;
    }
    const bool acknowledges = has(packet, kTcpAck) && !has(packet, kTcpSyn);
    if (flow.phase == Phase::kOpening && from_initiator && acknowledges)
      flow.phase = Phase::kEstablished;
    if (!has(packet, kTcpFin) || flow.phase == Phase::kClosed) return;
    const Phase mine = packet.side == Side::kInside ? Phase::kInsideDone : Phase::kOutsideDone;
    const Phase others = packet.side == Side::kInside ? Phase::kOutsideDone : Phase::kInsideDone;
    flow.phase = flow.phase == others ? Phase::kClosed : mine;
  }

  Judgement judge_first(const Meant& packet, const Name& name, uint32_t now_s) {
    const int rule = first_match(packet);
    const std::string action = rule < 0 ? "drop" : rules_[static_cast<size_t>(rule)].action;
    const bool begins = packet.kind == Kind::kUdp || is_syn(packet) ||
                        (packet.kind == Kind::kEcho && packet.is_request);
    if (!begins) {
      if (packet.kind != Kind::kTcp || action != "reject") return {"no_flow", false};
      ++counted_[rule];
      return {"firewall_rejected", !has(packet, kTcpRst)};
    }
    ++counted_[rule];
    if (action == "drop") return {"firewall_denied", false};
    if (action == "reject") return {"firewall_rejected", true};
    flows_[name] = Flow{packet, Phase::kOpening, now_s, true};
    return {};
  }

  std::vector<ModelRule> rules_;
  std::map<Name, Flow> flows_;
  std::map<int, uint64_t> counted_;
};

// ---- Random rules and packets.

class Chance {
 public:
  explicit Chance(uint32_t seed) : random_(seed) {}
  uint32_t below(size_t n) { return static_cast<uint32_t>(random_() % n); }
  bool once_in(size_t n) { return below(n) == 0; }
  template <typename T>
  T one_of(std::initializer_list<T> all) {
    return *(all.begin() + below(all.size()));
  }
  Range range(uint32_t first, uint32_t last) {
    const uint32_t a = first + below(last - first + 1), b = first + below(last - first + 1);
    return {std::min(a, b), std::max(a, b)};
  }

 private:
  std::mt19937 random_;
};

constexpr uint32_t kHosts = 4;  // on each side, from 1
constexpr uint32_t kFirstPort = 1000, kLastPort = 1005;

ModelRule random_rule(Chance& chance) {
  ModelRule rule;
  rule.action = chance.one_of<std::string>({"accept", "accept", "accept", "drop", "reject"});
  rule.direction = chance.one_of<std::string>({"", "from_inside", "from_outside", "any"});
  rule.protocol = chance.one_of<std::string>({"", "any", "tcp", "udp", "icmp", "icmpv6"});
  const bool of_ports = rule.protocol == "tcp" || rule.protocol == "udp";
  const bool of_icmp = rule.protocol == "icmp" || rule.protocol == "icmpv6";
  if (!of_icmp) rule.family = chance.one_of<std::string>({"", "any", "ipv4", "ipv6"});
  // Addresses are written in both families, which a rule of one family refuses.
  const bool both_families = !of_icmp && (rule.family.empty() || rule.family == "any");
  if (both_families && chance.once_in(2)) rule.sources = chance.range(1, kHosts);
  if (both_families && chance.once_in(2)) rule.destinations = chance.range(1, kHosts);
  if (of_ports && chance.once_in(3)) rule.source_ports = chance.range(kFirstPort, kLastPort);
  if (of_ports && chance.once_in(2)) rule.destination_ports = chance.range(kFirstPort, kLastPort);
  if (of_icmp && chance.once_in(2)) rule.echo_request = chance.once_in(2);
  if (rule.protocol == "tcp" && chance.once_in(4)) rule.flags_set = kTcpSyn;
  if (rule.protocol == "tcp" && chance.once_in(4)) {
    rule.flags_unset = chance.one_of<uint8_t>({kTcpAck, kTcpFin | kTcpRst, kTcpRst});
  }
  return rule;
}

std::vector<ModelRule> random_rules(Chance& chance) {
  std::vector<ModelRule> rules(3 + chance.below(10));
  std::ranges::generate(rules, [&] { return random_rule(chance); });
  return rules;
}

Meant random_packet(Chance& chance) {
  const auto port = [&] {
    return static_cast<uint16_t>(kFirstPort + chance.below(kLastPort - kFirstPort + 1));
  };
  Meant packet{chance.one_of({Side::kInside, Side::kOutside}),
               chance.once_in(2),
               chance.one_of({Kind::kTcp, Kind::kTcp, Kind::kUdp, Kind::kEcho}),
               1 + chance.below(kHosts),
               1 + chance.below(kHosts),
               port(),
               port()};
  if (packet.kind == Kind::kTcp) {
    packet.flags = chance.one_of<uint8_t>({kTcpSyn, kTcpSyn, kTcpSyn, kTcpSyn | kTcpAck, kTcpAck,
                                           kTcpAck, kTcpFin | kTcpAck, kTcpRst, kTcpRst | kTcpAck});
  }
  if (packet.kind == Kind::kEcho) {
    packet.dport = packet.sport;
    packet.is_request = !chance.once_in(3);
  }
  return packet;
}

// The other side's next word, or one more of the same side's.
Meant next_in(const Meant& packet, Chance& chance) {
  Meant next = packet;
  if (chance.once_in(2)) {
    next.side = packet.side == Side::kInside ? Side::kOutside : Side::kInside;
    std::swap(next.src, next.dst);
    std::swap(next.sport, next.dport);
    if (packet.kind == Kind::kEcho) next.is_request = !packet.is_request;
  }
  if (packet.kind == Kind::kTcp) {
    next.flags = chance.one_of<uint8_t>(
        {kTcpSyn, kTcpSyn | kTcpAck, kTcpAck, kTcpAck, kTcpAck, kTcpFin | kTcpAck, kTcpRst});
  }
  return next;
}

class FirewallModelTest : public testing::TestWithParam<std::tuple<Mode, uint32_t>> {};
INSTANTIATE_TEST_SUITE_P(All, FirewallModelTest,
                         testing::Combine(testing::ValuesIn(kEveryMode),
                                          testing::Values(1u, 2u, 20240607u)));

TEST_P(FirewallModelTest, FirewallDoesWhatTheModelSays) {
  const auto& [mode, seed] = GetParam();
  Chance chance(seed);
  PoolDirectory directory;
  std::vector<ModelRule> rules = random_rules(chance);
  uint32_t revision = 1;
  ChainHarness harness(spec_of(rules, revision), directory, mode);
  FirewallModel model;
  model.use(rules);
  std::map<std::string, uint64_t> reasons;
  std::map<std::string, uint64_t> counted_before;
  const auto expect_counts = [&] {
    uint64_t by_model = 0, by_chain = 0;
    for (const auto& [rule, count] : model.counted()) {
      const std::string name = rule < 0 ? "(no rule)" : "r" + std::to_string(rule);
      const auto counted = harness.counted().find("firewall." + name);
      const uint64_t now = counted == harness.counted().end() ? 0 : counted->second;
      EXPECT_EQ(now - counted_before["firewall." + name], count) << name;
      by_model += count;
    }
    for (const auto& [name, count] : harness.counted()) by_chain += count - counted_before[name];
    EXPECT_EQ(by_chain, by_model);
  };
  Meant last = random_packet(chance);
  for (int step = 0; step < 4000 && !HasFailure(); ++step) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ", step " + std::to_string(step));
    last = chance.once_in(3) ? random_packet(chance) : next_in(last, chance);
    const Judgement expected = model.take(last, harness.now_s);
    const Departure departure = harness.send(last.side, bytes_of(last));
    EXPECT_EQ(drop_reason_name(departure.reason), expected.reason);
    if (expected.reason == "none") {
      EXPECT_EQ(departure.frame, bytes_of(last));
    } else {
      EXPECT_EQ(!departure.frame.empty(), expected.is_answered);
    }
    ++reasons[std::string(expected.reason) + (expected.is_answered ? ", answered" : "")];
    if (chance.once_in(100)) {
      harness.now_s += chance.one_of({1u, 61u, 200u, 241u, 301u, 7441u});
      while (harness.sweep_all() != 0) {
      }
      model.pass_time(harness.now_s);
      EXPECT_EQ(harness.flows(), model.flows());
    }
    if (chance.once_in(400)) {
      expect_counts();
      rules = random_rules(chance);
      harness.apply(spec_of(rules, ++revision));
      model.use(rules);
      counted_before = harness.counted();
    }
  }
  expect_counts();
  for (const char* reason :
       {"none", "no_flow", "firewall_denied", "firewall_rejected", "firewall_rejected, answered"}) {
    EXPECT_GT(reasons[reason], 20u) << "packets " << reason << " are too few to say anything";
  }
}

}  // namespace
}  // namespace flowkeep
