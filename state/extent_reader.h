// Reads extents of a pool that may be damaged, beside no FlowTable: for checks and repairs.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "state/flow_table.h"
#include "state/layout.h"

namespace flowkeep {

// The content of the record's extent that starts at `first_block`; nothing if it is not whole.
std::optional<std::vector<std::byte>> whole_extent(const Regions& regions, RecordId id,
                                                   uint32_t first_block);

}  // namespace flowkeep
