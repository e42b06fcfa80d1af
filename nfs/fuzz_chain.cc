#include "nfs/fuzz_chain.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "nfs/function_bench.h"
#include "nfs/fuzz_script.h"

namespace flowkeep {
namespace {

constexpr std::string_view kHosts[] = {"10.0.0.2", "10.0.0.3", "10.0.7.9", "10.9.0.4"};
constexpr std::string_view kRemotes[] = {"198.51.100.7", "198.51.100.8", "192.0.2.66", "9.9.9.9"};
constexpr std::string_view kExternal[] = {"203.0.113.10", "203.0.113.11", "203.0.113.12"};
constexpr uint16_t kPorts[] = {0, 53, 80, 443, 2049, 4000, 4001, 5060, 8080, 40000, 65535};
constexpr uint8_t kFlags[] = {kTcpSyn, kTcpSyn,           kTcpSyn | kTcpAck, kTcpAck,
                              kTcpAck, kTcpAck | kTcpFin, kTcpRst,           0};
constexpr uint8_t kOtherProtocols[] = {0, 2, 41, 47, 50, 58, 89, 132, 136, 255};
constexpr size_t kMostPackets = 200;
constexpr uint32_t kLongAfter_s = 100'000;  // every flow has expired

// ---- Chains.

std::string random_rule(FuzzScript& script, uint32_t n) {
  constexpr std::string_view kActions[] = {"accept", "accept", "drop", "reject"};
  constexpr std::string_view kDirections[] = {"any", "from_inside", "from_outside"};
  constexpr std::string_view kProtocols[] = {"any", "tcp", "udp", "icmp"};
  constexpr std::string_view kPrefixes[] = {"10.0.0.0/24", "10.0.0.2", "198.51.100.0/24",
                                            "9.9.9.9"};
  constexpr std::string_view kRanges[] = {"80", "0-1023", "4000-65535", "443"};
  const std::string_view protocol = script.one_of(kProtocols);
  const auto field = [](std::string_view name, std::string_view value) {
    return ",\"" + std::string(name) + "\":" + std::string(value);
  };
  const auto quoted = [](std::string_view text) { return '"' + std::string(text) + '"'; };
  std::string rule = "{\"name\":\"r" + std::to_string(n) + '"';
  rule += field("action", quoted(script.one_of(kActions)));
  rule += field("direction", quoted(script.one_of(kDirections)));
  rule += field("protocol", quoted(protocol));
  if (script.one_in(2)) rule += field("source", '[' + quoted(script.one_of(kPrefixes)) + ']');
  if (script.one_in(2)) rule += field("destination", '[' + quoted(script.one_of(kPrefixes)) + ']');
  if ((protocol == "tcp" || protocol == "udp") && script.one_in(2)) {
    rule += field("destination_ports", '[' + quoted(script.one_of(kRanges)) + ']');
  }
  return rule + '}';
}

FunctionSpec random_firewall(FuzzScript& script) {
  std::string rules;
  const uint32_t count = script.below(6);
  for (uint32_t n = 0; n < count; ++n) rules += random_rule(script, n) + ',';
  return {"firewall", "{\"rules\":[" + rules + R"({"name":"all","action":"accept"}]})"};
}

FunctionSpec random_nat44(FuzzScript& script) {
  constexpr std::string_view kPortRanges[] = {"", "", R"(,"port_range":{"first":2048,"last":2111})",
                                              R"(,"port_range":{"first":3968,"last":4223})"};
  std::string addresses;
  const uint32_t count = 1 + script.below(std::size(kExternal));
  for (uint32_t n = 0; n < count; ++n) {
    addresses.append(n == 0 ? "\"" : ",\"").append(kExternal[n]).append("\"");
  }
  return {"nat44", "{\"external_addresses\":[" + addresses + ']' +
                       std::string(script.one_of(kPortRanges)) + '}'};
}

FunctionSpec random_dscp(FuzzScript& script) {
  const auto number = [&script](uint32_t end) { return std::to_string(script.below(end)); };
  const std::string mark = number(64);
  return {"dscp", "{\"otherwise\":" + number(64) + ",\"classes\":[{\"dscp\":" + mark +
                      ",\"first_port\":53,\"last_port\":4000}]}"};
}

ChainSpec random_chain(FuzzScript& script, std::string_view function) {
  ChainSpec spec{"test", 1, {}};
  const bool any = function == "chain";
  if (function == "dscp" || (any && script.one_in(2)))
    spec.functions.push_back(random_dscp(script));
  if (function == "firewall" || any) spec.functions.push_back(random_firewall(script));
  if (function == "nat44" || (any && script.one_in(2)))
    spec.functions.push_back(random_nat44(script));
  return spec;
}

// ---- Packets.

class Traffic {
 public:
  explicit Traffic(FuzzScript& script) : script_(script) {}

  Arrival next() {
    switch (seen_.empty() ? 0 : script_.below(6)) {
      case 1:
      case 2:
        return answer(script_.one_of(seen_));
      case 3:
        return error_about(script_.one_of(seen_));
      case 4:
        return damaged(script_.one_of(seen_));
      case 5: {
        const Arrival& before = script_.one_of(seen_);
        return {opposite(before.side), before.frame};  // by the wrong port
      }
      default:
        return fresh();
    }
  }
  // A frame as it left by the port opposite to `side`, to be answered later.
  void has_passed(Side side, const Bytes& frame) {
    if (seen_.size() < kMostPackets) seen_.push_back({side, frame});
  }

 private:
  Arrival fresh() {
    const Side side = script_.one_in(4) ? Side::kOutside : Side::kInside;
    const std::string_view host = script_.one_of(kHosts);
    const std::string_view inside =
        side == Side::kOutside && script_.one_in(2) ? script_.one_of(kExternal) : host;
    const std::string_view remote =
        script_.one_in(8) ? script_.one_of(kExternal) : script_.one_of(kRemotes);
    const bool out = side == Side::kInside;
    const uint16_t src_port = script_.one_of(kPorts);
    const uint16_t dst_port = script_.one_of(kPorts);
    return {side, packet(out ? inside : remote, src_port, out ? remote : inside, dst_port)};
  }
  Bytes packet(std::string_view src, uint16_t src_port, std::string_view dst, uint16_t dst_port) {
    PacketBuilder builder = any_packet(src, src_port, dst, dst_port);
    if (script_.one_in(8)) builder.ip_options(1 + script_.below(10));
    if (script_.one_in(2)) builder.payload(script_.below(80));
    return builder.build();
  }
  PacketBuilder any_packet(std::string_view src, uint16_t src_port, std::string_view dst,
                           uint16_t dst_port) {
    switch (script_.below(8)) {
      case 0:
        return PacketBuilder::echo_request(src, dst, src_port);
      case 1:
        return PacketBuilder::echo_reply(src, dst, dst_port);
      case 2:
      case 3: {
        PacketBuilder builder = PacketBuilder::udp(src, src_port, dst, dst_port);
        return script_.one_in(4) ? builder.without_udp_checksum() : builder;
      }
      case 4:
        return PacketBuilder::udp(src, src_port, dst, dst_port)
            .protocol(script_.one_of(kOtherProtocols));
      default:
        return PacketBuilder::tcp(src, src_port, dst, dst_port, script_.one_of(kFlags));
    }
  }
  // Of the receiver of a packet that has passed.
  Arrival answer(const Arrival& passed) {
    PacketMeta meta;
    const Side side = opposite(passed.side);
    if (parsed(passed, meta) != DropReason::kNone || meta.inner_l3_offset != 0) return fresh();
    const FlowKey key = meta.key.reversed();
    const std::string src = to_string(key.src), dst = to_string(key.dst);
    const uint16_t src_port = key.src_port.host(), dst_port = key.dst_port.host();
    if (key.protocol == kProtocolTcp) {
      return {side, PacketBuilder::tcp(src, src_port, dst, dst_port, script_.one_of(kFlags))
                        .payload(script_.below(20))
                        .build()};
    }
    if (key.protocol == kProtocolUdp) {
      return {side, PacketBuilder::udp(src, src_port, dst, dst_port).build()};
    }
    return {side,
            PacketBuilder::echo_reply(src, dst, passed.side == Side::kInside ? dst_port : src_port)
                .build()};
  }
  Arrival error_about(const Arrival& passed) {
    PacketMeta meta;
    if (parsed(passed, meta) != DropReason::kNone) return damaged(passed);
    constexpr uint8_t kTypes[] = {3, 11, 12, 5, 4};
    const size_t l4_bytes = meta.length - meta.l4_offset;
    const uint32_t most = static_cast<uint32_t>(std::min<size_t>(l4_bytes, 64));
    const uint8_t type = script_.one_of(kTypes);
    const uint8_t code = static_cast<uint8_t>(script_.below(5));
    return {opposite(passed.side),
            PacketBuilder::icmp_error(script_.one_of(kRemotes), to_string(source_of(passed)), type,
                                      code, passed.frame, script_.below(most + 1))
                .build()};
  }
  Arrival damaged(Arrival arrival) {
    Bytes& frame = arrival.frame;
    for (uint32_t n = 1 + script_.below(4); n > 0; --n) {
      const size_t at = script_.below(static_cast<uint32_t>(std::min<size_t>(frame.size(), 256)));
      frame[at] = script_.byte();
    }
    if (script_.one_in(4)) {
      frame.resize(1 + script_.below(static_cast<uint32_t>(frame.size())));
      frame.shrink_to_fit();  // reads beyond it show
    }
    if (script_.one_in(2)) mend_checksum(frame);
    return arrival;
  }
  // So that what was damaged is not found by the first look.
  static void mend_checksum(Bytes& frame) {
    constexpr size_t kIp = sizeof(EthernetHeader);
    if (frame.size() < kIp + sizeof(Ipv4Header)) return;
    const size_t header = (frame[kIp] & 15) * 4U;
    if (header < sizeof(Ipv4Header) || kIp + header > frame.size()) return;
    frame[kIp + 10] = frame[kIp + 11] = 0;
    const uint16_t checksum = naive_checksum(naive_sum(&frame[kIp], header));
    frame[kIp + 10] = static_cast<uint8_t>(checksum >> 8);
    frame[kIp + 11] = static_cast<uint8_t>(checksum);
  }
  static Be32 source_of(const Arrival& arrival) {
    return checked_header<Ipv4Header>(arrival.frame.data(), sizeof(EthernetHeader)).src.get();
  }
  static DropReason parsed(const Arrival& arrival, PacketMeta& meta) {
    return parse(arrival.frame.data(), static_cast<uint16_t>(arrival.frame.size()), arrival.side,
                 {}, meta);
  }

  FuzzScript& script_;
  std::vector<Arrival> seen_;
};

// ---- What must hold.

void check_forwarded(ChainHarness& harness, const Arrival& arrival, const Bytes& frame,
                     bool alone) {
  PacketMeta before, after;
  const HashSecret secret = harness.pool().hash_secret();
  const auto length = static_cast<uint16_t>(frame.size());
  parse(arrival.frame.data(), length, arrival.side, secret, before);
  demand(frame.size() == arrival.frame.size(), "a packet keeps its length");
  demand(parse(frame.data(), length, arrival.side, secret, after) == DropReason::kNone,
         "what leaves is a packet");
  if (checksum_faults(arrival.frame).empty()) {
    demand(checksum_faults(frame).empty(), "checksums stay right: " + checksum_faults(frame));
  }
  const std::span<const Be32> external = harness.chain().external_addresses();
  const bool error = before.inner_l3_offset != 0;
  if (!external.empty() && arrival.side == Side::kInside && !error) {
    demand(std::ranges::find(external, after.key.src) != external.end(), "no inside address leaks");
  }
  if (error || !alone) return;  // a later packet of the burst may have ended the flow
  // The other side knows the flow by what it gets.
  const auto record = harness.flow_of(arrival.side, arrival.frame);
  demand(record.has_value(), "a packet that passed has a flow");
  const FlowKey& other = arrival.side == Side::kInside ? record->outside_key : record->inside_key;
  demand(other == after.key.reversed(), "the record has the key of the packet that left");
}

// A packet that was answered: its sender gets the answer.
void check_answer(const Arrival& arrival, const Bytes& answer) {
  const auto header_of = [](const Bytes& frame) {
    return checked_header<Ipv4Header>(frame.data(), sizeof(EthernetHeader));
  };
  demand(answer.size() >= sizeof(EthernetHeader) + sizeof(Ipv4Header), "an answer is a packet");
  demand(answer.size() <= kEditableBytes, "an answer fits into what the undo log covers");
  if (header_of(answer).version() != 4) return;
  demand(header_of(answer).dst.get() == header_of(arrival.frame).src.get(),
         "it goes to the sender");
  const std::string faults = checksum_faults(answer);
  const bool of_the_question =
      faults.starts_with("quoted") && !checksum_faults(arrival.frame).empty();
  demand(faults.empty() || of_the_question, "its checksums are right: " + faults);
}

struct Played {
  std::vector<Departure> departures;
  std::set<std::string> state;
  friend bool operator==(const Played&, const Played&) = default;
};

Played play(FuzzScript script, ChainHarness& harness) {
  Played played;
  Traffic traffic(script);
  while (!script.ended() && played.departures.size() < kMostPackets) {
    std::vector<Arrival> arrivals;
    for (uint32_t n = 1 + script.below(8); n > 0; --n) arrivals.push_back(traffic.next());
    const std::vector<Departure> departures = harness.burst(arrivals);
    for (size_t i = 0; i < departures.size(); ++i) {
      const bool passed = departures[i].reason == DropReason::kNone;
      if (!passed && !departures[i].frame.empty()) check_answer(arrivals[i], departures[i].frame);
      if (!passed) continue;
      check_forwarded(harness, arrivals[i], departures[i].frame, departures.size() == 1);
      traffic.has_passed(arrivals[i].side, departures[i].frame);
    }
    played.departures.insert(played.departures.end(), departures.begin(), departures.end());
    if (script.one_in(4)) harness.now_s += script.one_of(std::array{1U, 61U, 241U, 301U});
    if (script.one_in(8)) harness.sweep_all();
  }
  played.state = function_bench::durable_state(harness);
  return played;
}

// One pool for all inputs: chains are attached to it and dropped, as in a node.
std::shared_ptr<Pool> pool_of_all() {
  static const PoolDirectory kDirectory;
  static const std::shared_ptr<Pool> kPool =
      open_pool(kDirectory, Pool::minimum_bytes() + (1 << 20));
  return kPool;
}

Played play_once(const FuzzScript& script, const ChainSpec& spec, Mode mode, bool check_pool) {
  const std::shared_ptr<Pool> pool = pool_of_all();
  Played played;
  {
    ChainHarness harness(spec, pool, mode);
    played = play(script, harness);
    if (check_pool) {
      const Regions regions(pool->base(), Geometry::of(pool->bytes()));
      demand(first_finding(regions).empty(), "the pool is whole: " + first_finding(regions));
    }
    harness.now_s += kLongAfter_s;
    while (harness.sweep_all() != 0) {
    }
    const std::set<std::string> left = function_bench::durable_state(harness);
    demand(harness.flows() == 0 && left.empty(), "nothing is left when every flow has expired: " +
                                                     (left.empty() ? "a count" : *left.begin()));
    const Regions regions(pool->base(), Geometry::of(pool->bytes()));
    demand(first_finding(regions).empty(), "the pool is whole: " + first_finding(regions));
  }
  demand(pool->drop_chain("test").ok(), "the chain is dropped");
  return played;
}

}  // namespace

void fuzz_chain(std::span<const uint8_t> input, std::string_view function) {
  FuzzScript script(input);
  const ChainSpec spec = random_chain(script, function);
  if (const auto checked = validate_chain(spec); !checked.ok()) {
    demand(false, "the fuzzer's own configuration is accepted: " + checked.error().text());
  }
  const Mode mode = script.one_of(kEveryMode);
  const bool check_pool = script.one_in(64);
  const Played plain = play_once(script, spec, Mode::kPlain, check_pool);
  if (mode == Mode::kPlain) return;
  demand(play_once(script, spec, mode, check_pool) == plain, "a crash or a handover shows nowhere");
}

}  // namespace flowkeep
