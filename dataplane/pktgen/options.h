// Options: the command line of flowkeep-pktgen, checked.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/pktgen/flow_set.h"
#include "dataplane/pktgen/mac_address.h"
#include "dataplane/pktgen/ranges.h"
#include "state/result.h"

namespace flowkeep::pktgen {

enum class Profile { kUdp, kTcpSyn, kPcap };
const char* profile_name(Profile profile);

struct Rate {
  enum class Unit { kPacketsPerS, kBitsPerS, kMax };
  Unit unit = Unit::kMax;
  double value = 0;
  std::string text = "max";

  // Infinite for "max". Bits are those of frames with FCS, without preamble and gap.
  double packets_per_s(double frame_bytes) const;
};
// "200kpps", "1.5Mpps", "10Gbps", "max"
std::optional<Rate> parse_rate(const std::string& text);

struct Options {
  std::string tx_device;
  std::string rx_device;  // the same as tx_device: one port that gets its own packets back
  Profile profile = Profile::kUdp;
  FlowRanges ranges;
  uint32_t flows = 1000;
  uint32_t size_bytes = 64;  // with FCS
  std::string size_note;     // why size_bytes is not what was asked for
  Rate rate;
  double duration_s = 10;
  std::optional<Be32> gateway;
  std::optional<MacAddress> gateway_mac;
  std::vector<AddressRange> rx_addresses;  // further ones that the rx port answers ARP for

  std::string pcap_path;
  uint64_t pcap_loops = 1;  // 0: until the duration is over
  std::optional<Prefix> rewrite_source, rewrite_destination;

  bool warmup = true;
  double warmup_pps = 50'000;
  bool echo = false;
  bool verify_checksums = true;
  uint32_t drain_ms = 500;
  uint32_t gap_limit_ms = 10;
  uint32_t link_wait_s = 10;
  uint32_t threads = 1;
  std::vector<unsigned> cores;  // empty: wherever this process may run

  std::string json_path;  // "-": standard output
  bool progress = false;
  bool require_lossless = false;
  bool help = false;

  bool single_port() const { return tx_device == rx_device; }
};

// `arguments` without the program's name.
Result<Options> parse_options(const std::vector<std::string>& arguments);
const char* usage();

}  // namespace flowkeep::pktgen
