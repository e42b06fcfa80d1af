// Poison search: which packet of a slot kills its workers?
//
// A worker that dies by its own fault in an uncommitted burst makes each packet of the burst a
// suspect; the slot's next workers take one packet at a time until they have passed it. A packet
// has killed twice when a burst of that packet alone ended a worker by its own fault, and so had a
// burst before that it was in. Then it is taken out; deaths that it explains prove nothing against
// its neighbours.
//
// The cause of a death may become known after the slot was handed on. Until then the death makes
// suspects, but proves nothing. A death caused from outside (SIGKILL, SIGSTOP) does neither, so no
// storm of kills takes a packet out. A packet that kills only in company of others is not found: it
// passes when it is alone.
//
// Positions are those of the slot's inbox, which wrap. Pure; one for each slot.
#pragma once

#include <cstdint>
#include <vector>

namespace flowkeep {

enum class DeathCause : uint8_t { kUnknown, kOutside, kOwn };

class PoisonSearch {
 public:
  // A worker (any number that no other death of late has) died in the burst [begin, end).
  void note_death(uint64_t worker, uint32_t begin, uint32_t end, DeathCause cause);
  // What became known of such a death later.
  void note_cause(uint64_t worker, DeathCause cause);

  bool has_killed_twice(uint32_t position) const;
  // The packet is taken out.
  void acquit_neighbours_of(uint32_t position);

  // Is there a suspect at or after `position`? Then the slot must be careful up to suspects_end().
  bool suspects_from(uint32_t position) const;
  uint32_t suspects_end() const;

 private:
  struct Death {
    uint64_t worker;
    uint32_t begin, end;
    DeathCause cause;
    bool explained = false;  // by a packet that was taken out
  };
  static bool holds(const Death& death, uint32_t position) {
    return position - death.begin < death.end - death.begin;
  }
  std::vector<Death> deaths_;  // oldest first; a few
};

}  // namespace flowkeep
