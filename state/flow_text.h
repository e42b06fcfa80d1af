// Flows as people read and select them: names, addresses, and filters like "proto=tcp dport=443".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "state/flow_record.h"
#include "state/result.h"

namespace flowkeep {

std::string protocol_text(uint8_t protocol);   // "tcp", "udp", "icmp", otherwise the number
std::string_view phase_text(FlowPhase phase);  // "established"; "unknown" for what is no phase
std::string endpoint_text(Be32 address, Be16 port);  // "10.0.0.1:80"
std::string key_text(const FlowKey& key);            // "tcp 10.0.0.1:4711 > 192.0.2.1:80"

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
