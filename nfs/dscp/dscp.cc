#include "nfs/dscp/dscp.h"

#include <string>
#include <utility>

#include "nfs/checksum.h"

namespace flowkeep {
namespace {

constexpr uint32_t kLargestDscp = 63;

Result<void> check_dscp(uint32_t dscp, const std::string& field) {
  if (dscp <= kLargestDscp) return {};
  return invalid(field, std::to_string(dscp) + " is no DSCP; accepted: 0 to 63");
}

// Version, header length and traffic class of IPv4; version, traffic class and the begin of the
// flow label of IPv6.
uint16_t first_word(const uint8_t* ip) {
  return static_cast<uint16_t>(ip[0] << 8 | ip[1]);
}

bool is_ipv4(const uint8_t* ip) {
  return ip[0] >> 4 == 4;
}

// The DSCP is the upper six bits of the traffic class (RFC 2474 section 3).
uint16_t marked(uint16_t word, bool ipv4, uint8_t dscp) {
  const unsigned shift = ipv4 ? 2 : 6;
  return static_cast<uint16_t>((word & ~(kLargestDscp << shift)) | unsigned{dscp} << shift);
}

void mark(uint8_t* ip, uint16_t word) {
  const Be16 before = Be16::from_host(first_word(ip));
  ip[0] = static_cast<uint8_t>(word >> 8);
  ip[1] = static_cast<uint8_t>(word);
  if (!is_ipv4(ip)) return;  // IPv6 has no checksum of its own, and no other covers this word
  auto& header = checked_header<Ipv4Header>(ip, 0);
  ChecksumDelta delta;
  delta.replace(before, Be16::from_host(word));
  header.checksum.set(delta.applied_to(header.checksum.get()));
}

}  // namespace

Result<Dscp> Dscp::create(const Config& config, const FunctionContext& context) {
  for (int i = 0; i < config.classes_size(); ++i) {
    const auto& entry = config.classes(i);
    const std::string field = context.field + ".classes[" + std::to_string(i) + ']';
    if (const auto dscp = check_dscp(entry.dscp(), field + ".dscp"); !dscp.ok())
      return dscp.error();
    if (entry.first_port() > entry.last_port() || entry.last_port() > 65535) {
      return invalid(field + ".last_port", std::to_string(entry.last_port()) +
                                               " does not end a range of ports; accepted: "
                                               "first_port to 65535");
    }
  }
  const auto otherwise = check_dscp(config.otherwise(), context.field + ".otherwise");
  if (!otherwise.ok()) return otherwise.error();
  return Dscp(config);
}

Dscp::Hard Dscp::mark_of(Be16 port) const {
  for (const auto& entry : config_.classes()) {
    if (entry.first_port() <= port.host() && port.host() <= entry.last_port()) {
      return {static_cast<uint8_t>(entry.dscp())};
    }
  }
  return {static_cast<uint8_t>(config_.otherwise())};
}

// The first packet of a flow from the outside goes to the inside endpoint.
std::optional<Dscp::Hard> Dscp::adopt(const FlowKey& inside, Side initiator) const {
  return mark_of(initiator == Side::kInside ? inside.dst_port : inside.src_port);
}

Decision Dscp::open(NewFlow<Dscp>& flow, Soft&) const {
  flow.commit(*adopt(flow.inside_key(), flow.initiator()));
  return Decision::accept();
}

void Dscp::process(Burst<Dscp>& burst, Soft&) const {
  burst.for_each([](FlowPacket<Dscp>& packet) {
    const uint16_t l3_offset = packet.meta().l3_offset;
    const uint8_t* ip = packet.bytes() + l3_offset;
    const uint16_t word = marked(first_word(ip), is_ipv4(ip), packet.hard().dscp);
    if (word != first_word(ip)) mark(packet.edit() + l3_offset, word);
  });
}

}  // namespace flowkeep
