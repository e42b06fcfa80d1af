#include "state/page_claims.h"

#include <atomic>
#include <cassert>

#include "state/planted_bug.h"

namespace flowkeep {

namespace {

uint64_t load(const uint64_t& word) {
  return std::atomic_ref<uint64_t>(const_cast<uint64_t&>(word)).load(std::memory_order_acquire);
}

}  // namespace

uint32_t PageClaims::claim(uint32_t tag, uint32_t next_page, uint64_t sequence) {
  assert(room() > 0);
  PageHints& hints = regions_.page_hints();
  const uint64_t releases = load(hints.releases);
  // A pool that was full stays so until somebody gives pages back: no scan for each refused flow.
  if (found_full_ && releases == releases_when_full_) return 0;
  uint64_t* const table = regions_.page_table();
  const uint64_t pages = regions_.geometry().pages;
  uint64_t index = load(hints.next_page) % pages;
  for (uint64_t tried = 0; tried < pages; ++tried, index = index + 1 == pages ? 0 : index + 1) {
    if (load(table[index]) != 0) continue;
    const auto page = static_cast<uint32_t>(regions_.first_page() + index);
    if (!planted(PlantedBug::kClaimedBeforeNoted)) note(page, tag, sequence);
    const uint64_t claimed = tag | uint64_t{next_page} << 32;
    if (!persistence_.compare_and_swap(&table[index], uint64_t{0}, claimed)) continue;
    if (planted(PlantedBug::kClaimedBeforeNoted)) note(page, tag, sequence);
    persistence_.flush(&table[index], sizeof(table[index]));
    persistence_.store64(&hints.next_page, index + 1);
    ++claimed_;
    found_full_ = false;
    return page;
  }
  found_full_ = true;
  releases_when_full_ = releases;
  return 0;
}

// The note is never seen with the sequence of this burst and the page of an older one, which may
// be in use: one line holds a note whole.
void PageClaims::note(uint32_t page, uint32_t tag, uint64_t sequence) {
  PendingClaim& pending = regions_.log(log_).pending[claimed_];
  if (planted(PlantedBug::kNoteOutOfOrder)) persistence_.store64(&pending.sequence, sequence);
  persistence_.store64(&pending.page_and_tag, uint64_t{page} << 32 | tag);
  persistence_.store64_last(&pending.sequence, sequence);
  persistence_.flush(&pending, sizeof(pending));
  persistence_.fence();
}

uint32_t give_back_claims(const Regions& regions, uint32_t log, uint64_t newest_sequence,
                          Persistence& persistence) {
  uint32_t given_back = 0;
  PageHints& hints = regions.page_hints();
  for (PendingClaim& pending : regions.log(log).pending) {
    if (pending.sequence <= newest_sequence) continue;
    const auto page = static_cast<uint32_t>(pending.page_and_tag >> 32);
    const auto tag = static_cast<uint32_t>(pending.page_and_tag);
    if (regions.is_page(page)) {
      uint64_t& word = regions.page_word(page);
      const uint64_t held = load(word);
      if (static_cast<uint32_t>(held) == tag &&
          persistence.compare_and_swap(&word, held, uint64_t{0})) {
        persistence.flush(&word, sizeof(word));
        ++given_back;
      }
    }
    // Freed for good before the note is gone.
    if (!planted(PlantedBug::kNoteGoneBeforePageFreed)) persistence.fence();
    persistence.store64(&pending.sequence, 0);
    persistence.flush(&pending, sizeof(pending));
  }
  persistence.fence();
  if (given_back != 0) {
    std::atomic_ref<uint64_t>(hints.releases).fetch_add(1, std::memory_order_release);
  }
  return given_back;
}

}  // namespace flowkeep
