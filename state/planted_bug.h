// Bugs that the crash simulator must find. Each can be planted in the commit protocol, but only
// where FLOWKEEP_PLANTED_BUGS is defined: in the library that nfs/planted_bug_test.cc and the crash
// benchmark are linked with. Everywhere else planted() is a constant false and nothing of this is
// compiled in.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace flowkeep {

enum class PlantedBug : uint8_t {
  kNone,
  kMissingFlush,             // apply() stores lines home and does not flush them
  kMissingPageFlush,         // what a new page holds is not flushed before the commit
  kOldWordsNotLogged,        // words of a new record that its place happens to hold are not logged
  kMissingFence,             // commit() returns without a fence
  kMissingClaimFence,        // claims and leases are not fenced before the redo record
  kUncheckedField,           // the redo record's checksum does not cover its sequence
  kPublishedBeforeCommit,    // a burst's packets leave before it is committed
  kAppliedOutOfOrder,        // recovery applies the newer redo record first
  kSlotReusedTooEarly,       // record n + 1 overwrites record n
  kClaimedBeforeNoted,       // a page is claimed before the claim is noted
  kNoteOutOfOrder,           // a claim's sequence is stored before its page
  kAppliedBeforeDurable,     // recovery applies a record that a power cut may still take away
  kRetiredBeforeFlushed,     // the retired mark is set before the home lines are durable
  kNoteGoneBeforePageFreed,  // recovery forgets a claim before the page is free for good
};

struct PlantedBugName {
  PlantedBug bug;
  std::string_view name;
};
inline constexpr std::array kPlantedBugs = {
    PlantedBugName{PlantedBug::kMissingFlush, "missing-flush"},
    PlantedBugName{PlantedBug::kMissingPageFlush, "missing-page-flush"},
    PlantedBugName{PlantedBug::kOldWordsNotLogged, "old-words-not-logged"},
    PlantedBugName{PlantedBug::kMissingFence, "missing-fence"},
    PlantedBugName{PlantedBug::kMissingClaimFence, "missing-claim-fence"},
    PlantedBugName{PlantedBug::kUncheckedField, "unchecked-field"},
    PlantedBugName{PlantedBug::kPublishedBeforeCommit, "published-before-commit"},
    PlantedBugName{PlantedBug::kAppliedOutOfOrder, "applied-out-of-order"},
    PlantedBugName{PlantedBug::kSlotReusedTooEarly, "slot-reused-too-early"},
    PlantedBugName{PlantedBug::kClaimedBeforeNoted, "claimed-before-noted"},
    PlantedBugName{PlantedBug::kNoteOutOfOrder, "note-out-of-order"},
    PlantedBugName{PlantedBug::kAppliedBeforeDurable, "applied-before-durable"},
    PlantedBugName{PlantedBug::kRetiredBeforeFlushed, "retired-before-flushed"},
    PlantedBugName{PlantedBug::kNoteGoneBeforePageFreed, "note-gone-before-page-freed"},
};

#ifdef FLOWKEEP_PLANTED_BUGS
inline PlantedBug planted_bug = PlantedBug::kNone;  // set by the test before it runs
inline bool planted(PlantedBug bug) {
  return planted_bug == bug;
}
#else
constexpr bool planted(PlantedBug) {
  return false;
}
#endif

}  // namespace flowkeep
