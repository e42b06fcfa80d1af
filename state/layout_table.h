// LayoutTable: what the pool knows of the state layouts of a chain's revisions, so that a worker of
// one revision can read the records of another.
//
// An entry holds the layout of a range of revisions. An entry is never changed: its successor is
// written beside it, then it is cleared. Whoever reads meanwhile finds the one or the other.
//
// Thread rule: attach() is the supervisor's alone; find() is anybody's.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "state/layout.h"
#include "state/pool.h"
#include "state/result.h"
#include "state/state_layout.h"

namespace flowkeep {

uint64_t layout_checksum(const LayoutEntry& entry, HashSecret secret);

class LayoutTable {
 public:
  LayoutTable(const Pool& pool, uint32_t chain);

  // Makes the layout of a revision durable, before a worker of it runs. `in_use`: revisions whose
  // workers run. When no entry is free, those are cleared that neither a record nor a running
  // revision needs; that takes a walk through the chain's records. Refused: a revision that the
  // pool knows with another layout, and a layout for which there is still no entry.
  Result<void> attach(uint32_t revision, const StateLayout& layout,
                      std::span<const uint32_t> in_use);
  // Nothing: no record of this revision can be understood.
  std::optional<StateLayout> find(uint32_t revision) const;

  uint32_t entries() const;  // in use

 private:
  bool is_valid(const LayoutEntry& entry) const;
  const LayoutEntry* entry_of(uint32_t revision) const;
  void finish_interrupted_changes();
  LayoutEntry* extendable(uint32_t revision, const StateLayout& layout) const;
  LayoutEntry* free_entry() const;
  void write(LayoutEntry& entry, uint32_t first_revision, uint32_t last_revision,
             const StateLayout& layout);
  void clear(LayoutEntry& entry);
  void clear_unneeded(std::span<const uint32_t> in_use);

  const Pool& pool_;
  const uint32_t chain_;
  const Regions regions_;
};

}  // namespace flowkeep
