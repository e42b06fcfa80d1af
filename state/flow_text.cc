#include "state/flow_text.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <sstream>

namespace flowkeep {

namespace {

constexpr std::array<std::string_view, 7> kPhases = {
    "free", "opening", "established", "closing_inside", "closing_outside", "closed", "keyed"};
constexpr std::array<std::string_view, 8> kTerms = {"proto", "src",      "dst",   "sport",
                                                    "dport", "external", "phase", "bucket"};

// The flow's end with this address: of its keys' `address`, of its addresses' `wide`.
std::string address_of(const FlowRecord& flow, Be32 address, const Ipv6Address& wide) {
  return flow.is_wide() ? address_text(wide) : address_text(address);
}
std::string end_text(const FlowRecord& flow, Be32 address, const Ipv6Address& wide, Be16 port) {
  const std::string text = address_of(flow, address, wide);
  return (flow.is_wide() ? "[" + text + "]" : text) + ":" + std::to_string(port.host());
}

// Does a filter's address, in any notation, mean the one that is written like this?
bool means(const std::string& value, const std::string& address) {
  Ipv6Address wide;
  if (inet_pton(AF_INET6, value.c_str(), wide.data()) == 1) return address_text(wide) == address;
  return value == address;
}

}  // namespace

std::string protocol_text(uint8_t protocol) {
  switch (protocol) {
    case 1:
      return "icmp";
    case 6:
      return "tcp";
    case 17:
      return "udp";
    case 58:
      return "icmpv6";
    default:
      return std::to_string(protocol);
  }
}

std::string_view phase_text(FlowPhase phase) {
  const auto index = static_cast<size_t>(phase);
  return index < kPhases.size() ? kPhases[index] : "unknown";
}

std::string endpoint_text(Be32 address, Be16 port) {
  return address_text(address) + ":" + std::to_string(port.host());
}

std::string key_text(const FlowKey& key) {
  return protocol_text(key.protocol) + " " + endpoint_text(key.src, key.src_port) + " > " +
         endpoint_text(key.dst, key.dst_port);
}

std::string address_text(Be32 address) {
  const uint32_t host = address.host();
  return std::to_string(host >> 24) + "." + std::to_string(host >> 16 & 255) + "." +
         std::to_string(host >> 8 & 255) + "." + std::to_string(host & 255);
}

std::string address_text(const Ipv6Address& address) {
  char text[INET6_ADDRSTRLEN] = {};
  inet_ntop(AF_INET6, address.data(), text, sizeof(text));
  return text;
}

std::string source_text(const FlowRecord& flow) {
  return end_text(flow, flow.inside_key.src, flow.addresses.src, flow.inside_key.src_port);
}
std::string destination_text(const FlowRecord& flow) {
  return end_text(flow, flow.inside_key.dst, flow.addresses.dst, flow.inside_key.dst_port);
}
std::string external_text(const FlowRecord& flow) {
  return end_text(flow, flow.outside_key.dst, flow.addresses.src, flow.outside_key.dst_port);
}

std::string inside_text(const FlowRecord& flow) {
  return protocol_text(flow.inside_key.protocol) + " " + source_text(flow) + " > " +
         destination_text(flow);
}
std::string outside_text(const FlowRecord& flow) {
  return protocol_text(flow.outside_key.protocol) + " " +
         end_text(flow, flow.outside_key.src, flow.addresses.dst, flow.outside_key.src_port) +
         " > " + external_text(flow);
}

Result<FlowFilter> FlowFilter::parse(const std::string& text) {
  FlowFilter filter;
  std::string spaced = text;
  std::ranges::replace(spaced, ',', ' ');
  std::istringstream words(spaced);
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    if (equals == std::string::npos || std::ranges::find(kTerms, name) == kTerms.end()) {
      return invalid("filter", "\"" + word +
                                   "\" is not understood; accepted: proto=, src=, dst=, sport=, "
                                   "dport=, external=, phase=, bucket=");
    }
    const std::string value = word.substr(equals + 1);
    if (name == "phase" && std::ranges::find(kPhases, value) == kPhases.end()) {
      return invalid("filter", "\"" + value +
                                   "\" is no phase; accepted: opening, established, "
                                   "closing_inside, closing_outside, closed, keyed");
    }
    filter.terms_.push_back({name, value});
  }
  return filter;
}

bool FlowFilter::matches(const FlowRecord& record) const {
  return std::ranges::all_of(terms_, [&](const Term& term) { return matches(term, record); });
}

bool FlowFilter::matches(const Term& term, const FlowRecord& record) {
  const FlowKey& inside = record.inside_key;
  if (term.name == "proto") return term.value == protocol_text(inside.protocol);
  const WideAddresses& wide = record.addresses;
  if (term.name == "src") return means(term.value, address_of(record, inside.src, wide.src));
  if (term.name == "dst") return means(term.value, address_of(record, inside.dst, wide.dst));
  if (term.name == "sport") return term.value == std::to_string(inside.src_port.host());
  if (term.name == "dport") return term.value == std::to_string(inside.dst_port.host());
  if (term.name == "bucket") return term.value == std::to_string(record.bucket);
  if (term.name == "phase") return term.value == phase_text(record.phase);
  return means(term.value, address_of(record, record.outside_key.dst, wide.src)) ||
         term.value == external_text(record);
}

}  // namespace flowkeep
