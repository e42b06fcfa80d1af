#include "nfs/nat44/deterministic.h"

namespace flowkeep {

std::optional<DeterministicMap> DeterministicMap::of(Ipv4Prefix inside, uint32_t addresses,
                                                     UnitRange range) {
  const DeterministicMap map(inside, range, uint64_t{1} << (32 - inside.bits), addresses);
  return map.units_per_host_ == 0 ? std::nullopt : std::optional(map);
}

DeterministicMap::DeterministicMap(Ipv4Prefix inside, UnitRange range, uint64_t hosts,
                                   uint32_t addresses)
    : inside_(inside),
      range_(range),
      hosts_(hosts),
      hosts_per_address_((hosts + addresses - 1) / addresses),
      units_per_host_(static_cast<uint32_t>(range.count / hosts_per_address_)) {}

std::optional<PortUnits> DeterministicMap::units_of(Be32 host) const {
  if (!inside_.contains(host)) return std::nullopt;
  const uint64_t number = host.host() - inside_.address.host();
  const auto place = static_cast<uint32_t>(number % hosts_per_address_);
  return PortUnits{static_cast<uint32_t>(number / hosts_per_address_),
                   range_.first + place * units_per_host_, units_per_host_};
}

std::optional<Be32> DeterministicMap::host_of(uint32_t address_index, Be16 port) const {
  const uint32_t unit = unit_of(port);
  if (!range_.contains(unit)) return std::nullopt;
  const uint64_t place = (unit - range_.first) / units_per_host_;
  const uint64_t number = address_index * hosts_per_address_ + place;
  if (place >= hosts_per_address_ || number >= hosts_) return std::nullopt;
  return Be32::from_host(inside_.address.host() + static_cast<uint32_t>(number));
}

}  // namespace flowkeep
