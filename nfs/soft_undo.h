// Soft state of flows, as a burst changes it: at once, in the pool, with a copy of what was there
// in the undo log. So a burst that did not commit leaves no trace, and its packets, which come
// again, are judged as they were.
//
// Thread rule: save_soft() by the worker whose burst it is; restore_soft() by whoever recovers,
// when that worker runs no more.
#pragma once

#include <cassert>
#include <cstring>

#include "nfs/packet.h"
#include "state/flow_table.h"
#include "state/pool.h"

namespace flowkeep {

// Before the first change of a record's soft state by a packet. As save_packet().
inline void save_soft(UndoLog& undo, const FlowTable& table, RecordId id) {
  assert(undo.soft_count < std::size(undo.soft));
  SoftUndo& entry = undo.soft[undo.soft_count];
  entry.record = id;
  std::memcpy(entry.bytes, table.soft(id).data(), sizeof(entry.bytes));
  __atomic_store_n(&undo.soft_count, undo.soft_count + 1, __ATOMIC_RELEASE);
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

// The oldest copy of a record is the one that counts.
inline void restore_soft(const UndoLog& undo, Pool& pool) {
  for (uint32_t i = undo.soft_count; i > 0; --i) {
    pool.restore_soft(undo.soft[i - 1].record, undo.soft[i - 1].bytes);
  }
}

}  // namespace flowkeep
