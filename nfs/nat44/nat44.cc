#include "nfs/nat44/nat44.h"

#include <algorithm>
#include <string>
#include <utility>

#include "nfs/ipv4_prefix.h"

namespace flowkeep {
namespace {

constexpr uint32_t kFirstLeasedPort = 1024;  // blocks 0 to 15 are never leased
constexpr uint32_t kBlockPorts = kPortBlockPorts;
// Ports tried in each block before one more block is leased, and when there is none to lease.
constexpr uint32_t kProbes = 8;
constexpr uint32_t kLastProbes = kBlockPorts;
// A flood of new flows against a full range must not buy a walk of the whole range for each packet.
constexpr uint32_t kMostBlocksProbed = 16;
constexpr Be16 kNoPort{};

Result<std::vector<Be32>> parse_addresses(const nfs::Nat44Config& config,
                                          const std::string& field) {
  std::vector<Be32> addresses;
  for (int i = 0; i < config.external_addresses_size(); ++i) {
    const std::string& text = config.external_addresses(i);
    const std::string element = field + '[' + std::to_string(i) + ']';
    const auto address = parse_ipv4_address(text);
    if (!address) {
      return invalid(element, '"' + text + "\" is no IPv4 address; accepted: such as 203.0.113.10");
    }
    const uint32_t first_octet = address->host() >> 24;
    if (first_octet == 0 || first_octet == 127 || first_octet >= 224) {
      return invalid(element, '"' + text + "\" is no unicast address that others can reach");
    }
    if (std::find(addresses.begin(), addresses.end(), *address) != addresses.end()) {
      return invalid(element, '"' + text + "\" is given twice; accepted: each address once");
    }
    addresses.push_back(*address);
  }
  if (addresses.empty() || addresses.size() > kMaxExternalAddresses) {
    return invalid(field, std::to_string(addresses.size()) + " addresses given; accepted: 1 to " +
                              std::to_string(kMaxExternalAddresses));
  }
  return addresses;
}

Result<BlockRange> parse_range(const nfs::Nat44Config& config, const std::string& field) {
  if (!config.has_port_range()) return BlockRange{};
  const uint32_t first = config.port_range().first();
  const uint32_t last = config.port_range().last();
  if (first < kFirstLeasedPort || last > 65535 || first > last) {
    return invalid(field, std::to_string(first) + " to " + std::to_string(last) +
                              " is no range of external ports; accepted: 1024 to 65535");
  }
  const uint32_t first_block = (first + kBlockPorts - 1) / kBlockPorts;
  const uint32_t end_block = (last + 1) / kBlockPorts;
  if (end_block <= first_block) {
    return invalid(field,
                   "contains no whole block of 64 ports that begins at a multiple of 64; "
                   "accepted: such as 1024 to 65535");
  }
  return BlockRange{first_block, end_block - first_block};
}

// Order in which a block's 64 ports are tried: from a start that depends on the endpoint, those
// with the inside port's parity first (RFC 4787 REQ-4).
uint32_t probe_offset(uint64_t hash, Be16 inside_port, uint32_t probe) {
  const auto start = static_cast<uint32_t>(hash >> 32) & (kBlockPorts - 2);
  const uint32_t parity = (inside_port.host() ^ (probe >= kBlockPorts / 2 ? 1U : 0U)) & 1U;
  return ((start + 2 * probe) & (kBlockPorts - 2)) | parity;
}

}  // namespace

Result<Nat44> Nat44::create(const Config& config, const FunctionContext& context) {
  auto addresses = parse_addresses(config, context.field + ".external_addresses");
  if (!addresses.ok()) return addresses.error();
  const auto range = parse_range(config, context.field + ".port_range");
  if (!range.ok()) return range.error();
  return Nat44(std::move(*addresses), *range);
}

Nat44::Nat44(std::vector<Be32> addresses, BlockRange range)
    : addresses_(std::move(addresses)), range_(range) {}

Nat44::Soft Nat44::make_soft() const {
  return {PortBlocks(static_cast<uint32_t>(addresses_.size()), range_)};
}

FlowKey Nat44::outside_key(const FlowKey& inside, const Hard& hard) const {
  FlowKey translated = inside;
  translated.src = hard.external.address;
  translated.src_port = hard.external.port;
  return translated.reversed();
}

Decision Nat44::open(NewFlow<Nat44>& flow, Soft& soft) const {
  const uint8_t protocol = flow.inside_key().protocol;
  if (protocol != kProtocolTcp && protocol != kProtocolUdp && protocol != kProtocolIcmp) {
    return Decision::refuse(DropReason::kNatUnsupportedProtocol);
  }
  if (flow.initiator() == Side::kOutside) return Decision::refuse(DropReason::kNatNoMapping);
  if (flow.mapping()) {
    const FlowKey& outside = flow.mapping()->outside;
    flow.commit(Hard{{outside.dst, outside.dst_port, {}}});
    return Decision::accept();
  }
  const auto count = static_cast<uint32_t>(addresses_.size());
  const auto paired = static_cast<uint32_t>(flow.hash_inside_host() % count);
  const uint64_t hash = flow.hash_inside_endpoint();
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t address = (paired + i) % count;
    const Be16 port = port_on_address(flow, soft, address, hash);
    if (port == kNoPort) continue;
    flow.commit(Hard{{addresses_[address], port, {}}});
    return Decision::accept();
  }
  return Decision::refuse(DropReason::kNatPortsExhausted);
}

// Blocks are tried in the order of their leases, so that one more lease, also one that an
// uncommitted burst left behind, changes no choice that the older blocks allow.
Be16 Nat44::port_on_address(NewFlow<Nat44>& flow, Soft& soft, uint32_t address,
                            uint64_t hash) const {
  PortBlocks& blocks = soft.blocks;
  const uint32_t bucket = flow.bucket();
  blocks.refresh(bucket, address, flow);
  for (const uint32_t probes : {kProbes, kLastProbes}) {
    uint32_t probed = 0;
    for (uint16_t block = blocks.first(bucket, address); block != PortBlocks::kNoBlock;
         block = blocks.next(address, block)) {
      if (++probed > kMostBlocksProbed && probes == kLastProbes) return kNoPort;
      const Be16 port = port_in_block(flow, address, block, hash, probes);
      if (port != kNoPort) return port;
    }
    if (probes == kLastProbes) break;
    const uint16_t leased = blocks.lease(bucket, address, flow);
    if (leased != PortBlocks::kNoBlock)
      return port_in_block(flow, address, leased, hash, kLastProbes);
  }
  return kNoPort;
}

Be16 Nat44::port_in_block(const NewFlow<Nat44>& flow, uint32_t address, uint16_t block,
                          uint64_t hash, uint32_t probes) const {
  for (uint32_t probe = 0; probe < probes; ++probe) {
    const uint32_t offset = probe_offset(hash, flow.inside_key().src_port, probe);
    const Be16 port = Be16::from_host(static_cast<uint16_t>(block * kBlockPorts + offset));
    if (flow.outside_endpoint_free(
            outside_key(flow.inside_key(), {{addresses_[address], port, {}}}))) {
      return port;
    }
  }
  return kNoPort;
}

// The mapping stays valid as long as its address and port are still this function's to give.
bool Nat44::still_allowed(const FlowKey&, Side, const Hard& hard, Soft&) const {
  const uint32_t block = hard.external.port.host() / kBlockPorts;
  return block >= range_.first && block - range_.first < range_.count &&
         std::find(addresses_.begin(), addresses_.end(), hard.external.address) != addresses_.end();
}

void Nat44::process(Burst<Nat44>& burst, Soft&) const {
  if (burst.side() == Side::kInside) {
    burst.for_each([](FlowPacket<Nat44>& packet) {
      const Endpoint external = packet.hard().external;
      const bool error = packet.meta().inner_l3_offset != 0;
      (error ? rewrite_error_from_inside : rewrite_source)(packet.edit(), packet.meta(), external);
    });
    return;
  }
  burst.for_each([](FlowPacket<Nat44>& packet) {
    const FlowKey& key = packet.inside_key();
    const Endpoint inside{key.src, key.src_port, {}};
    const bool error = packet.meta().inner_l3_offset != 0;
    (error ? rewrite_error_from_outside : rewrite_destination)(packet.edit(), packet.meta(),
                                                               inside);
  });
}

}  // namespace flowkeep
