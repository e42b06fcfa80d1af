#include <cassert>
#include <utility>

#include "state/flow_table.h"
#include "state/page_claims.h"
#include "state/planted_bug.h"
#include "state/pool_impl.h"
#include "state/redo_record.h"

namespace flowkeep {

RedoLog::RedoLog(Pool& pool, uint32_t log) : pool_(pool), log_(log) {
  assert(log < kMaxWorkerSlots);
}

RedoLog::Newest RedoLog::newest() const {
  const Regions& regions = pool_.impl_->regions;
  const LogContents contents = read_log(regions, log_);
  if (contents.valid[1] <= contents.retired) return {};
  const auto& header =
      *reinterpret_cast<const RedoHeader*>(regions.redo_slot(log_, contents.valid[1]));
  return {true, header.sequence, BurstPositions{header.inbox, header.outbox}};
}

void RedoLog::apply_newest() {
  const Regions& regions = pool_.impl_->regions;
  Persistence& persistence = pool_.impl_->persistence;
  LogContents contents = read_log(regions, log_);
  if (planted(PlantedBug::kAppliedOutOfOrder)) std::swap(contents.valid[0], contents.valid[1]);
  make_durable(contents);
  for (const uint64_t sequence : contents.valid) {
    if (sequence <= contents.retired) continue;
    apply_redo_record(regions.redo_slot(log_, sequence), regions, persistence);
  }
  persistence.fence();
  persistence.store64(&regions.log(log_).applied, contents.newest());
}

// A worker may have died between its last store to the record and the fence: then the record is
// there for all to see, and a power cut would still take it away from under what is applied.
void RedoLog::make_durable(const LogContents& contents) const {
  Persistence& persistence = pool_.impl_->persistence;
  for (const uint64_t sequence : contents.valid) {
    if (sequence <= contents.retired) continue;
    const std::byte* slot = pool_.impl_->regions.redo_slot(log_, sequence);
    const auto& header = *reinterpret_cast<const RedoHeader*>(slot);
    if (!planted(PlantedBug::kAppliedBeforeDurable))
      persistence.flush(slot, sizeof(header) + header.payload_bytes);
  }
  persistence.fence();
}

uint32_t RedoLog::reclaim_pages() {
  const Regions& regions = pool_.impl_->regions;
  return give_back_claims(regions, log_, read_log(regions, log_).newest(),
                          pool_.impl_->persistence);
}

uint64_t RedoLog::applied() const {
  return std::atomic_ref<uint64_t>(pool_.impl_->regions.log(log_).applied)
      .load(std::memory_order_acquire);
}

// If the worker has overwritten the record meanwhile, it has passed the fence that covers the
// record's home lines; flushing whatever lines the slot names by then does no harm.
void RedoLog::retire(uint64_t sequence) {
  const Regions& regions = pool_.impl_->regions;
  Persistence& persistence = pool_.impl_->persistence;
  LogHeader& log = regions.log(log_);
  if (sequence <= log.retired % (uint64_t{1} << kSequenceBits)) return;
  const std::byte* slot = regions.redo_slot(log_, sequence);
  if (reinterpret_cast<const RedoHeader*>(slot)->sequence == sequence &&
      !planted(PlantedBug::kRetiredBeforeFlushed)) {
    flush_redo_lines(slot, regions, persistence);
  }
  persistence.fence();
  persistence.store64(&log.retired, retired_mark(sequence));
  persistence.flush(&log.retired, sizeof(log.retired));
  persistence.fence();
}

}  // namespace flowkeep
