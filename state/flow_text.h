// Flows as people read and select them: names, addresses, and filters like "proto=tcp dport=443".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "state/flow_record.h"
#include "state/result.h"

namespace flowkeep {

std::string protocol_text(uint8_t protocol);   // "tcp", "udp", "icmp", "icmpv6", or the number
std::string_view phase_text(FlowPhase phase);  // "established"; "unknown" for what is no phase
std::string address_text(Be32 address);
std::string endpoint_text(Be32 address, Be16 port);  // "10.0.0.1:80"
std::string key_text(const FlowKey& key);            // of IPv4: "tcp 10.0.0.1:4711 > 192.0.2.1:80"
std::string address_text(const Ipv6Address& address);  // "2001:db8::1" (RFC 5952)

// A flow's two ends as its packets from the inside have them, and as those from the outside have:
// "tcp 10.0.0.1:4711 > 192.0.2.1:80", "udp [2001:db8::1]:4711 > [2001:db8::2]:53".
std::string inside_text(const FlowRecord& flow);
std::string outside_text(const FlowRecord& flow);
// Its ends alone: inside, remote, and how the outside sees the inside one.
std::string source_text(const FlowRecord& flow);
std::string destination_text(const FlowRecord& flow);
std::string external_text(const FlowRecord& flow);

// Terms of which all must hold, separated by blanks or commas: proto=, src=, dst=, sport=, dport=
// of the inside key, external= (address, or address:port), phase=, bucket=.
class FlowFilter {
 public:
  static Result<FlowFilter> parse(const std::string& text);
  bool matches(const FlowRecord& record) const;

 private:
  struct Term {
    std::string name;
    std::string value;
  };
  static bool matches(const Term& term, const FlowRecord& record);
  std::vector<Term> terms_;
};

}  // namespace flowkeep
