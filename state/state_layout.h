// StateLayout: where the functions of a revision keep their hard state in a flow record. Kept in
// the pool for each revision whose records may be there (state/layout_table.h), byte for byte as
// here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "state/flow_record.h"

namespace flowkeep {

// A function that keeps hard state. Type and instance are its identity across revisions.
struct FunctionLayout {
  char type[40];       // +0 zero-padded
  uint32_t version;    // +40 of the meaning of its bytes
  uint8_t instance;    // +44 how many functions of the same type come before it in the chain
  uint8_t offset;      // +45 in FlowRecord::hard
  uint8_t bytes;       // +46 of its fixed hard state there; 0 none
  uint8_t has_extent;  // +47 1: the flow's extent is this function's
  friend bool operator==(const FunctionLayout&, const FunctionLayout&) = default;
};
static_assert(sizeof(FunctionLayout) == 48);

// Of a flow's state of variable size, its extent.
inline constexpr size_t kMaxExtentBytes = 16 * 1024;

// Each of the hard state's 8-byte units for a function of its own, and one with an extent alone.
inline constexpr size_t kMaxLayoutFunctions = kHardStateBytes / 8 + 1;

// Of one revision: those of its functions that keep hard state, in the chain's order.
struct StateLayout {
  uint32_t functions = 0;
  std::array<FunctionLayout, kMaxLayoutFunctions> function = {};  // zero beyond `functions`

  std::span<const FunctionLayout> all() const { return std::span(function).first(functions); }
  friend bool operator==(const StateLayout&, const StateLayout&) = default;
};

}  // namespace flowkeep
