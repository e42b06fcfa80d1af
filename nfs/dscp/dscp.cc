#include "nfs/dscp/dscp.h"

#include <string>
#include <utility>

#include "nfs/checksum.h"

namespace flowkeep {
namespace {

constexpr uint32_t kLargestDscp = 63;
constexpr uint8_t kEcnBits = 0x03;  // beside the DSCP in its byte (RFC 3168 section 5)

Result<void> check_dscp(uint32_t dscp, const std::string& field) {
  if (dscp <= kLargestDscp) return {};
  return invalid(field, std::to_string(dscp) + " is no DSCP; accepted: 0 to 63");
}

void mark(Ipv4Header& header, uint8_t dscp) {
  const auto first_word = [&header] {
    return Be16::from_host(static_cast<uint16_t>(header.version_and_words << 8 | header.dscp_ecn));
  };
  const Be16 before = first_word();
  header.dscp_ecn = static_cast<uint8_t>(dscp << 2 | (header.dscp_ecn & kEcnBits));
  ChecksumDelta delta;
  delta.replace(before, first_word());
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
    const auto& header = checked_header<Ipv4Header>(packet.bytes(), l3_offset);
    const uint8_t dscp = packet.hard().dscp;
    if (header.dscp_ecn >> 2 == dscp) return;
    mark(checked_header<Ipv4Header>(packet.edit(), l3_offset), dscp);
  });
}

}  // namespace flowkeep
