#include "dataplane/pktgen/flow_set.h"

namespace flowkeep::pktgen {

uint64_t FlowRanges::combinations() const {
  const unsigned __int128 all = static_cast<unsigned __int128>(source.count) * source_ports.count *
                                destination_ports.count * destination.count;
  return all > UINT64_MAX ? UINT64_MAX : static_cast<uint64_t>(all);
}

Result<FlowSet> FlowSet::create(const FlowRanges& ranges, uint32_t flows) {
  const uint64_t most = ranges.combinations();
  if (flows == 0 || flows > most)
    return invalid("--flows", std::to_string(flows) +
                                  " flows do not fit the given ranges; accepted: 1 to " +
                                  std::to_string(most) +
                                  ", or wider --source, --source-ports, --destination-ports");
  FlowSet set;
  set.flows_.reserve(flows);
  for (uint32_t flow = 0; flow < flows; ++flow) {
    uint64_t rest = flow;
    FlowEndpoints ends;
    ends.source = ranges.source.at(static_cast<uint32_t>(rest % ranges.source.count));
    rest /= ranges.source.count;
    ends.source_port =
        ranges.source_ports.at(static_cast<uint32_t>(rest % ranges.source_ports.count));
    rest /= ranges.source_ports.count;
    ends.destination_port =
        ranges.destination_ports.at(static_cast<uint32_t>(rest % ranges.destination_ports.count));
    rest /= ranges.destination_ports.count;
    ends.destination = ranges.destination.at(static_cast<uint32_t>(rest));
    set.flows_.push_back(ends);
  }
  return set;
}

}  // namespace flowkeep::pktgen
