#include "dataplane/pktgen/options.h"

#include <charconv>
#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "dataplane/pktgen/packet_format.h"

namespace flowkeep::pktgen {
namespace {

constexpr uint32_t kMostFlows = 4'194'304;
constexpr uint32_t kLongestSizeBytes = kLongestFrameBytes + kFcsBytes;

using Values = std::vector<std::string>;
// Reads one option's value; false if it is none of what is accepted.
using Read = std::function<bool(Options&, const std::string&)>;

struct Option {
  const char* accepted;  // nullptr: takes no value
  Read read;
};

template <typename Number>
bool read_number(const std::string& text, Number least, Number most, Number& into) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size()) return false;
  if (!(number >= least && number <= most)) return false;
  into = number;
  return true;
}

template <typename Value>
bool read_optional(std::optional<Value> parsed, auto& into) {
  if (!parsed) return false;
  into = *parsed;
  return true;
}

bool read_profile(Options& options, const std::string& text) {
  for (const Profile profile : {Profile::kUdp, Profile::kTcpSyn, Profile::kPcap}) {
    if (text != profile_name(profile)) continue;
    options.profile = profile;
    return true;
  }
  return false;
}

bool read_cores(Options& options, const std::string& text) {
  for (size_t start = 0; start <= text.size();) {
    const size_t end = std::min(text.find(',', start), text.size());
    unsigned core = 0;
    if (!read_number(text.substr(start, end - start), 0u, 1023u, core)) return false;
    options.cores.push_back(core);
    start = end + 1;
  }
  return true;
}

Option flag(bool Options::*member, bool value = true) {
  return {nullptr,
          [=](Options& options, const std::string&) { return options.*member = value, true; }};
}

Option number(uint32_t Options::*member, uint32_t least, uint32_t most, const char* accepted) {
  return {accepted, [=](Options& options, const std::string& text) {
            return read_number(text, least, most, options.*member);
          }};
}

Option words(std::string Options::*member, const char* accepted) {
  return {accepted, [=](Options& options, const std::string& text) {
            options.*member = text;
            return !text.empty();
          }};
}

Option addresses(AddressRange FlowRanges::*member) {
  return {"an address, a range or a prefix: 10.0.0.100, 10.0.0.100-10.0.0.199, 10.0.0.0/24",
          [=](Options& options, const std::string& text) {
            return read_optional(parse_address_range(text), options.ranges.*member);
          }};
}

Option ports(PortRange FlowRanges::*member) {
  return {"a port or a range of ports from 1 to 65535: 7, 1024-2047",
          [=](Options& options, const std::string& text) {
            return read_optional(parse_port_range(text), options.ranges.*member);
          }};
}

Option prefix(std::optional<Prefix> Options::*member) {
  return {"a prefix: 10.0.0.0/8", [=](Options& options, const std::string& text) {
            return read_optional(parse_prefix(text), options.*member);
          }};
}

std::map<std::string, Option> known_options() {
  return {
      {"--tx",
       words(&Options::tx_device, "a DPDK device: net_memif0,role=client,..., 0000:01:00.0")},
      {"--rx",
       words(&Options::rx_device, "a DPDK device: net_memif1,role=client,..., 0000:01:00.1")},
      {"--profile", {"udp, tcp-syn, pcap FILE", read_profile}},
      {"--pcap", words(&Options::pcap_path, "a pcap or pcapng file")},
      {"--flows", number(&Options::flows, 1, kMostFlows, "1 to 4194304")},
      {"--size",
       number(&Options::size_bytes, 64, kLongestSizeBytes, "64 to 1518 (bytes, with FCS)")},
      {"--rate",
       {"max, or a number with pps, kpps, Mpps, bps, kbps, Mbps or Gbps: 200kpps, 1.5Mpps, 10Gbps",
        [](Options& options, const std::string& text) {
          return read_optional(parse_rate(text), options.rate);
        }}},
      {"--duration",
       {"seconds, 0.001 to 1000000",
        [](Options& options, const std::string& text) {
          return read_number(text, 0.001, 1e6, options.duration_s);
        }}},
      {"--source", addresses(&FlowRanges::source)},
      {"--source-ports", ports(&FlowRanges::source_ports)},
      {"--destination", addresses(&FlowRanges::destination)},
      {"--destination-ports", ports(&FlowRanges::destination_ports)},
      {"--gateway",
       {"an IPv4 address",
        [](Options& options, const std::string& text) {
          return read_optional(parse_address(text), options.gateway);
        }}},
      {"--gateway-mac",
       {"an Ethernet address: 02:00:00:00:00:01",
        [](Options& options, const std::string& text) {
          return read_optional(parse_mac(text), options.gateway_mac);
        }}},
      {"--rx-address",
       {"an address, a range or a prefix",
        [](Options& options, const std::string& text) {
          const auto range = parse_address_range(text);
          if (range) options.rx_addresses.push_back(*range);
          return range.has_value();
        }}},
      {"--loop",
       {"how often to replay, 0 (until --duration) or more",
        [](Options& options, const std::string& text) {
          return read_number<uint64_t>(text, 0, UINT64_MAX, options.pcap_loops);
        }}},
      {"--rewrite-source", prefix(&Options::rewrite_source)},
      {"--rewrite-destination", prefix(&Options::rewrite_destination)},
      {"--warmup", flag(&Options::warmup)},
      {"--no-warmup", flag(&Options::warmup, false)},
      {"--warmup-rate",
       {"a rate in packets: 50kpps",
        [](Options& options, const std::string& text) {
          const auto rate = parse_rate(text);
          if (!rate || rate->unit != Rate::Unit::kPacketsPerS) return false;
          options.warmup_pps = rate->value;
          return true;
        }}},
      {"--echo", flag(&Options::echo)},
      {"--no-verify-checksums", flag(&Options::verify_checksums, false)},
      {"--drain", number(&Options::drain_ms, 1, 10'000, "milliseconds, 1 to 10000")},
      {"--gap", number(&Options::gap_limit_ms, 1, 1'000'000, "milliseconds, 1 to 1000000")},
      {"--link-wait", number(&Options::link_wait_s, 0, 3600, "seconds, 0 to 3600")},
      {"--threads", number(&Options::threads, 1, 2, "1, 2")},
      {"--cores", {"core numbers, one for each thread: 0 or 0,1", read_cores}},
      {"--json", words(&Options::json_path, "a file, or - for standard output")},
      {"--progress", flag(&Options::progress)},
      {"--require-lossless", flag(&Options::require_lossless)},
      {"--help", flag(&Options::help)},
      {"-h", flag(&Options::help)},
  };
}

std::string known_names(const std::map<std::string, Option>& known) {
  std::string names;
  for (const auto& [name, option] : known) names += (names.empty() ? "" : ", ") + name;
  return names;
}

Result<void> read_all(const Values& arguments, Options& options) {
  const auto known = known_options();
  for (size_t index = 0; index < arguments.size(); ++index) {
    const std::string& name = arguments[index];
    const auto found = known.find(name);
    if (found == known.end())
      return invalid(name, "no such option; accepted: " + known_names(known));
    const Option& option = found->second;
    if (option.accepted == nullptr) {
      option.read(options, "");
      continue;
    }
    if (index + 1 == arguments.size())
      return invalid(name, std::string("needs a value; accepted: ") + option.accepted);
    const std::string& value = arguments[++index];
    if (!option.read(options, value))
      return invalid(name, "\"" + value + "\" is not accepted; accepted: " + option.accepted);
    const bool file_follows = name == "--profile" && options.profile == Profile::kPcap &&
                              index + 1 < arguments.size() &&
                              !arguments[index + 1].starts_with("--");
    if (file_follows) options.pcap_path = arguments[++index];
  }
  return {};
}

void raise_size(Options& options) {
  if (options.profile == Profile::kPcap) return;
  const uint8_t protocol = options.profile == Profile::kTcpSyn ? kProtocolTcp : kProtocolUdp;
  const auto least = static_cast<uint32_t>(shortest_frame_bytes(protocol) + kFcsBytes);
  if (options.size_bytes >= least) return;
  options.size_note = std::string(profile_name(options.profile)) + ": size raised from " +
                      std::to_string(options.size_bytes) + " to " + std::to_string(least) +
                      " bytes, the smallest frame that has room for the tag";
  options.size_bytes = least;
}

Result<void> check(const Options& options) {
  if (options.tx_device.empty())
    return invalid("--tx", "is missing; accepted: a DPDK device: net_memif0,role=client,...");
  if (options.profile == Profile::kPcap && options.pcap_path.empty())
    return invalid("--profile", "pcap needs a file; accepted: --profile pcap FILE");
  if (options.profile != Profile::kPcap && !options.pcap_path.empty())
    return invalid("--pcap",
                   std::string("goes with --profile pcap, not ") + profile_name(options.profile));
  if (options.profile == Profile::kPcap && options.echo)
    return invalid("--echo", "replayed packets carry no tag; accepted with --profile udp, tcp-syn");
  if (options.profile != Profile::kPcap && options.flows > options.ranges.combinations())
    return invalid("--flows", std::to_string(options.flows) +
                                  " flows do not fit the given ranges; accepted: 1 to " +
                                  std::to_string(options.ranges.combinations()) +
                                  ", or wider --source, --source-ports, --destination-ports");
  if (options.single_port() && options.echo)
    return invalid("--echo",
                   "needs an --rx device other than --tx: one port would echo its own echoes");
  if (options.single_port() && options.threads != 1)
    return invalid("--threads", "2 needs an --rx device other than --tx; accepted here: 1");
  if (!options.cores.empty() && options.cores.size() != options.threads)
    return invalid("--cores", "names " + std::to_string(options.cores.size()) + " cores for " +
                                  std::to_string(options.threads) +
                                  " threads; accepted: one for each");
  return {};
}

}  // namespace

const char* profile_name(Profile profile) {
  switch (profile) {
    case Profile::kUdp:
      return "udp";
    case Profile::kTcpSyn:
      return "tcp-syn";
    case Profile::kPcap:
      return "pcap";
  }
  return "?";
}

double Rate::packets_per_s(double frame_bytes) const {
  switch (unit) {
    case Unit::kPacketsPerS:
      return value;
    case Unit::kBitsPerS:
      return value / (frame_bytes * 8);
    case Unit::kMax:
      break;
  }
  return std::numeric_limits<double>::infinity();
}

std::optional<Rate> parse_rate(const std::string& text) {
  if (text == "max") return Rate{};
  static constexpr struct {
    const char* suffix;
    Rate::Unit unit;
    double factor;
  } kUnits[] = {{"pps", Rate::Unit::kPacketsPerS, 1},    {"kpps", Rate::Unit::kPacketsPerS, 1e3},
                {"Mpps", Rate::Unit::kPacketsPerS, 1e6}, {"bps", Rate::Unit::kBitsPerS, 1},
                {"kbps", Rate::Unit::kBitsPerS, 1e3},    {"Mbps", Rate::Unit::kBitsPerS, 1e6},
                {"Gbps", Rate::Unit::kBitsPerS, 1e9}};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || !std::isfinite(number) || number <= 0) return std::nullopt;
  const std::string suffix(end, text.data() + text.size());
  for (const auto& known : kUnits)
    if (suffix == known.suffix) return Rate{known.unit, number * known.factor, text};
  return std::nullopt;
}

Result<Options> parse_options(const Values& arguments) {
  Options options;
  options.ranges.source = *parse_address_range("10.0.0.100");
  options.ranges.source_ports = *parse_port_range("1024-65535");
  options.ranges.destination = *parse_address_range("198.51.100.10");
  options.ranges.destination_ports = PortRange{0, 1};
  if (auto read = read_all(arguments, options); !read.ok()) return read.error();
  if (options.help) return options;
  if (options.rx_device.empty()) options.rx_device = options.tx_device;
  if (options.ranges.destination_ports.first == 0)
    options.ranges.destination_ports.first = options.profile == Profile::kTcpSyn ? 80 : 7;
  raise_size(options);
  if (auto checked = check(options); !checked.ok()) return checked.error();
  return options;
}

const char* usage() {
  return R"(flowkeep-pktgen: sends numbered packets to one DPDK port and checks what comes out of another.

  flowkeep-pktgen --tx DEVICE [--rx DEVICE] [options]

Ports
  --tx DEVICE                sends here; DPDK device arguments: net_memif0,role=client,socket=/tmp/a.sock
  --rx DEVICE                receives here (default: the --tx device, which gets its own packets back)
  --gateway ADDRESS          next hop, asked for by ARP on the tx port
  --gateway-mac MAC          next hop, known (default without both: the rx port's own address)
  --rx-address RANGE         further addresses that the rx port answers ARP for; may be repeated
  --link-wait S              how long the ports may take to come up (10)
Traffic
  --profile udp|tcp-syn|pcap FILE   (udp)
  --flows N                  distinct five-tuples (1000)
  --source RANGE             10.0.0.100, 10.0.0.100-10.0.0.199, 10.0.0.0/24 (10.0.0.100)
  --source-ports A-B         (1024-65535)
  --destination RANGE        (198.51.100.10)
  --destination-ports A-B    (7; tcp-syn: 80)
  --size BYTES               of a frame with FCS, as RFC 2544 counts (64; tcp-syn: at least 76)
  --rate RATE                200kpps, 1.5Mpps, 10Gbps, max (max)
  --duration S               (10)
  --no-warmup                do not send each flow's first packet ahead, at --warmup-rate (50kpps)
  --echo                     the rx port sends every packet back, the tx port counts the answers
Replay
  --loop N                   times to replay the file, 0: until --duration is over (1)
  --rewrite-source PREFIX    replaces the leading bits of source addresses
  --rewrite-destination PREFIX
Measurement
  --drain MS                 ends when nothing has arrived for so long (500)
  --gap MS                   counts pauses between received packets longer than this (10)
  --no-verify-checksums      accept packets with wrong checksums
  --require-lossless         exit status 3 if a packet was lost, duplicated or reordered
Process
  --threads 1|2              2: receives in a thread of its own (1)
  --cores A[,B]              pins the threads (default: not pinned)
  --json FILE|-              writes the report as JSON
  --progress                 a line each second on standard error, terminal or not

Exit status: 0 measured, 1 failed, 2 wrong usage, 3 see --require-lossless.
)";
}

}  // namespace flowkeep::pktgen
