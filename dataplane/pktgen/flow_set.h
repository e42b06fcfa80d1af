// FlowSet: the five-tuples of a run, enumerated from ranges of addresses and ports. Source
// addresses vary fastest, then source ports, destination ports, destination addresses. Immutable.
#pragma once

#include <cstdint>
#include <vector>

#include "dataplane/pktgen/ranges.h"
#include "state/result.h"

namespace flowkeep::pktgen {

struct FlowRanges {
  AddressRange source;
  PortRange source_ports;
  AddressRange destination;
  PortRange destination_ports;

  // Saturates at 2^64 - 1.
  uint64_t combinations() const;
};

struct FlowEndpoints {
  Be32 source, destination;
  Be16 source_port, destination_port;
};
static_assert(sizeof(FlowEndpoints) == 12);

class FlowSet {
 public:
  // Refuses more flows than the ranges have combinations.
  static Result<FlowSet> create(const FlowRanges& ranges, uint32_t flows);

  uint32_t size() const { return static_cast<uint32_t>(flows_.size()); }
  const FlowEndpoints& operator[](uint32_t flow) const { return flows_[flow]; }

 private:
  std::vector<FlowEndpoints> flows_;
};

}  // namespace flowkeep::pktgen
