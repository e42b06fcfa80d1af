#include "nfs/firewall/firewall.h"

#include <unordered_set>
#include <utility>

#include "nfs/firewall/reject.h"
#include "nfs/firewall/rules.h"

namespace flowkeep {
namespace {

constexpr uint8_t kIcmpv6EchoRequest = 128;

bool is_icmp(uint8_t protocol) {
  return protocol == kProtocolIcmp || protocol == kProtocolIcmpv6;
}

void set_addresses(HeaderTuple& tuple, const uint8_t* src, const uint8_t* dst) {
  tuple.family = AddressFamily::kIpv6;
  std::memcpy(tuple.src.data(), src, tuple.src.size());
  std::memcpy(tuple.dst.data(), dst, tuple.dst.size());
}

// Of a packet as it came from the wire. `key`: its key, from the side where it entered.
HeaderTuple tuple_of(const FlowKey& key, const PacketMeta& meta, const uint8_t* frame) {
  HeaderTuple tuple = header_tuple(key);
  if (key.family == Family::kIpv6) {
    const uint8_t* ip = frame + meta.l3_offset;
    set_addresses(tuple, ip + 8, ip + 24);  // RFC 8200 section 3
  }
  if (key.protocol == kProtocolTcp) tuple.tcp_flags = meta.tcp_flags;
  if (is_icmp(key.protocol)) {
    tuple.src_port = frame[meta.l4_offset];
    tuple.dst_port = frame[meta.l4_offset + 1];
  }
  return tuple;
}

// As the first packet of the flow must have been.
HeaderTuple tuple_of_opening(const FlowRecord& flow) {
  const bool from_inside = flow.initiator == Side::kInside;
  HeaderTuple tuple = header_tuple(from_inside ? flow.inside_key : flow.inside_key.reversed());
  if (flow.is_wide()) {
    const WideAddresses addresses = from_inside ? flow.addresses : flow.addresses.reversed();
    set_addresses(tuple, addresses.src.data(), addresses.dst.data());
  }
  if (tuple.protocol == kProtocolTcp) tuple.tcp_flags = kTcpSyn;
  if (is_icmp(tuple.protocol)) {
    tuple.src_port = tuple.protocol == kProtocolIcmp ? kIcmpEchoRequest : kIcmpv6EchoRequest;
    tuple.dst_port = 0;
  }
  return tuple;
}

// What half-open connections are counted by. `key`: from the initiator's side.
uint64_t destination(const FlowKey& key, HashSecret secret) {
  return hash_endpoint(key.dst, Be16{}, 0, secret);
}

Result<std::optional<TcpStrictness>> parse_tracking(const std::string& text,
                                                    const std::string& field) {
  if (text.empty() || text == "strict") return std::optional(TcpStrictness::kStrict);
  if (text == "liberal") return std::optional(TcpStrictness::kLiberal);
  if (text == "off") return std::optional<TcpStrictness>();
  return invalid(field, "unknown tracking " + quoted(text) + "; accepted: strict, liberal, off");
}

FlowKey key_from_initiator(const FlowKey& inside, Side initiator) {
  return initiator == Side::kInside ? inside : inside.reversed();
}

}  // namespace

Result<Firewall> Firewall::create(const Config& config, const FunctionContext& context) {
  const auto sets = NamedSets::create(config, context.field);
  if (!sets.ok()) return sets.error();
  const auto tracking = parse_tracking(config.tcp_tracking(), context.field + ".tcp_tracking");
  if (!tracking.ok()) return tracking.error();
  if (!tracking->has_value() && config.has_half_open()) {
    return invalid(context.field + ".half_open",
                   "needs to see handshakes; accepted: with tcp_tracking strict or liberal");
  }
  if (static_cast<size_t>(config.rules_size()) > kMaxRules) {
    return invalid(context.field + ".rules", std::to_string(config.rules_size()) +
                                                 " are too many; accepted: up to " +
                                                 std::to_string(kMaxRules));
  }
  std::vector<Rule> rules;
  std::vector<ClassifierRule> entries;
  std::unordered_set<std::string> names;
  int32_t buckets = 0;
  for (int i = 0; i < config.rules_size(); ++i) {
    const std::string field = context.field + ".rules[" + std::to_string(i) + "]";
    auto rule = create_rule(config.rules(i), field);
    if (!rule.ok()) return rule.error();
    if (!names.insert(rule->name).second) {
      return invalid(field + ".name", '"' + rule->name +
                                          "\" names an earlier rule too; accepted: "
                                          "a name for each rule of its own");
    }
    if (rule->per_second > 0) rule->bucket = buckets++;
    const auto added = add_rule_entries(config.rules(i), *sets, field, static_cast<uint32_t>(i),
                                        kMaxEntries, entries);
    if (!added.ok()) return added.error();
    rules.push_back(std::move(*rule));
  }
  std::unique_ptr<Classifier> classifier = context.make_classifier();
  if (const auto built = classifier->build(std::move(entries)); !built.ok()) {
    return Error{built.error().kind, context.field + '.' + built.error().field,
                 built.error().message};
  }
  return Firewall(std::move(rules), std::move(classifier), *tracking,
                  {config.half_open().limit(), config.half_open().per_destination(),
                   context.timeouts.tcp_opening_s});
}

Result<Firewall::Rule> Firewall::create_rule(const nfs::FirewallRule& rule,
                                             const std::string& field) {
  Rule made;
  made.name = rule.name();
  if (made.name.empty()) return invalid(field + ".name", "is missing; accepted: any text");
  if (rule.action() == "accept") {
    made.action = Action::kAccept;
  } else if (rule.action() == "reject") {
    made.action = Action::kReject;
  } else if (rule.action() != "drop") {
    return invalid(field + ".action",
                   "unknown action \"" + rule.action() + "\"; accepted: accept, drop, reject");
  }
  if (rule.log_every() > 0 && !rule.log()) {
    return invalid(field + ".log_every", "is of no use without a log; accepted: with log: true");
  }
  if (rule.log()) made.log_every = std::max(rule.log_every(), 1U);
  if (!rule.has_rate_limit()) return made;
  if (rule.rate_limit().per_second() == 0) {
    return invalid(field + ".rate_limit.per_second", "is 0 or missing; accepted: at least 1");
  }
  made.per_second = rule.rate_limit().per_second();
  made.burst = rule.rate_limit().burst() == 0 ? made.per_second : rule.rate_limit().burst();
  return made;
}

Firewall::Firewall(std::vector<Rule> rules, std::unique_ptr<Classifier> classifier,
                   std::optional<TcpStrictness> tcp_tracking, const HalfOpenLimits& half_open)
    : rules_(std::move(rules)),
      classifier_(std::move(classifier)),
      tcp_tracking_(tcp_tracking),
      half_open_(half_open) {}

Firewall::Soft Firewall::make_soft() const {
  Soft soft{{}, {}, HalfOpen(half_open_)};
  for (const Rule& rule : rules_) {
    if (rule.bucket >= 0) soft.buckets.emplace_back(rule.per_second, rule.burst);
  }
  soft.until_logged.resize(rules_.size());
  return soft;
}

std::vector<std::string> Firewall::counter_names() const {
  std::vector<std::string> names;
  for (const Rule& rule : rules_) names.push_back(rule.name);
  names.emplace_back("(no rule)");
  return names;
}

uint32_t Firewall::first_match(const HeaderTuple& tuple) const {
  uint32_t rule = kNoRule;
  classifier_->classify({&tuple, 1}, {&rule, 1});
  return rule;
}

Decision Firewall::open(NewFlow<Firewall>& flow, Soft& soft) const {
  const FlowKey key = key_from_initiator(flow.inside_key(), flow.initiator());
  const uint32_t rule = first_match(tuple_of(key, flow.meta(), flow.bytes()));
  if (rule == kNoRule) {
    flow.count(rules_.size());
    return Decision::refuse(DropReason::kFirewallDenied);
  }
  note(flow, rule, soft);
  const int32_t bucket = rules_[rule].bucket;
  if (bucket >= 0 && !soft.buckets[static_cast<size_t>(bucket)].take(flow.now_s()))
    return Decision::refuse(DropReason::kFirewallRateLimited);
  if (rules_[rule].action != Action::kAccept) return refuse(flow, rules_[rule].action);
  if (key.protocol != kProtocolTcp || !soft.half_open.is_limited()) return Decision::accept();
  return {soft.half_open.open(destination(key, flow.hash_secret()), flow.now_s())};
}

void Firewall::not_opened(NewFlow<Firewall>& flow, Soft& soft) const {
  const FlowKey key = key_from_initiator(flow.inside_key(), flow.initiator());
  if (key.protocol != kProtocolTcp || !soft.half_open.is_limited()) return;
  soft.half_open.leave(destination(key, flow.hash_secret()), flow.now_s(), flow.now_s());
}

// A TCP segment that neither belongs to a connection nor opens one: whoever would be refused a
// connection there hears so, everything else is dropped as belonging to no flow.
Decision Firewall::stray(NewFlow<Firewall>& packet, Soft& soft) const {
  if (packet.meta().key.protocol != kProtocolTcp) return Decision::accept();
  const uint32_t rule = first_match(tuple_of(packet.meta().key, packet.meta(), packet.bytes()));
  if (rule == kNoRule || rules_[rule].action != Action::kReject) return Decision::accept();
  note(packet, rule, soft);
  return refuse(packet, Action::kReject);
}

void Firewall::note(NewFlow<Firewall>& flow, uint32_t rule, Soft& soft) const {
  flow.count(rule);
  if (rules_[rule].log_every == 0) return;
  uint32_t& left = soft.until_logged[rule];
  if (left == 0) {
    flow.log(rule);
    left = rules_[rule].log_every;
  }
  --left;
}

Decision Firewall::refuse(NewFlow<Firewall>& flow, Action action) {
  if (action == Action::kDrop) return Decision::refuse(DropReason::kFirewallDenied);
  if (!may_be_answered(flow.bytes(), flow.meta()))
    return Decision::refuse(DropReason::kFirewallRejected);
  flow.set_answer_bytes(turn_into_rejection(flow.edit_answer(), flow.meta()));
  return Decision::answer(DropReason::kFirewallRejected);
}

// The flow's phase and idle time are the runtime's; whether a segment moves them is decided here.
Inspection Firewall::inspect(InspectedPacket<Firewall>& packet, Soft& soft) const {
  const FlowRecord& flow = packet.flow();
  if (flow.inside_key.protocol != kProtocolTcp) return {};
  auto track = packet.soft<TcpTrack>();
  const TcpVerdict verdict =
      track_tcp(track, read_tcp_segment(packet.bytes(), packet.meta()),
                packet.meta().side == flow.initiator, flow.phase, packet.epoch(), *tcp_tracking_);
  packet.store_soft(track);
  switch (verdict) {
    case TcpVerdict::kBelongs:
      return follow_handshake(packet, soft);
    case TcpVerdict::kNoEffect:
      return {Inspection::Effect::kIgnore};
    case TcpVerdict::kInvalid:
      break;
  }
  return {Inspection::Effect::kDrop, DropReason::kTcpOutOfWindow};
}

// A half-open connection is kept alive by nothing: it lives for its time-out from its first SYN.
Inspection Firewall::follow_handshake(InspectedPacket<Firewall>& packet, Soft& soft) const {
  const FlowRecord& flow = packet.flow();
  const FlowPhase next = next_phase(flow, packet.meta().tcp_flags, packet.meta().side);
  const bool was_opening = flow.phase == FlowPhase::kOpening;
  if (was_opening && next == FlowPhase::kOpening) return {Inspection::Effect::kIgnore};
  const bool reopens = !was_opening && next == FlowPhase::kOpening;
  if (!soft.half_open.is_limited() || was_opening == reopens) return {};
  const FlowKey key = key_from_initiator(flow.inside_key, flow.initiator);
  const uint64_t to = destination(key, packet.hash_secret());
  if (was_opening) {
    soft.half_open.leave(to, flow.opened_s, packet.now_s());
    return {};
  }
  const DropReason refused = soft.half_open.open(to, packet.now_s());
  if (refused != DropReason::kNone) return {Inspection::Effect::kDrop, refused};
  return {};
}

bool Firewall::still_allowed(const FlowRecord& flow, const Hard&, Soft&) const {
  const uint32_t rule = first_match(tuple_of_opening(flow));
  return rule != kNoRule && rules_[rule].action == Action::kAccept;
}

}  // namespace flowkeep
