#include "state/layout_table.h"

#include <algorithm>
#include <cassert>
#include <string>

#include "state/checksum.h"
#include "state/persistence.h"

namespace flowkeep {

namespace {

constexpr uint64_t kLayoutMagic = 0x31304f59414c4b46ULL;  // "FKLAYO01"
constexpr size_t kChecksumBytes = sizeof(LayoutEntry::checksum);
// One entry stays free for the successor of another.
constexpr uint32_t kUsableEntries = kLayoutEntries - 1;

bool contains(const LayoutEntry& entry, uint32_t revision) {
  return entry.first_revision <= revision && revision <= entry.last_revision;
}

bool overlap(const LayoutEntry& entry, uint32_t first_revision, uint32_t last_revision) {
  return entry.first_revision <= last_revision && first_revision <= entry.last_revision;
}

// Whoever reads a record by it stays within the record.
bool is_sound(const FunctionLayout& function) {
  return function.type[sizeof(function.type) - 1] == 0 &&
         size_t{function.offset} + function.bytes <= kHardStateBytes;
}

}  // namespace

uint64_t layout_checksum(const LayoutEntry& entry, HashSecret secret) {
  return checksum64(reinterpret_cast<const std::byte*>(&entry) + kChecksumBytes,
                    sizeof(entry) - kChecksumBytes, kLayoutMagic, secret);
}

LayoutTable::LayoutTable(const Pool& pool, uint32_t chain)
    : pool_(pool), chain_(chain), regions_(pool.base(), Geometry::of(pool.bytes())) {
  assert(chain < kMaxChains);
}

bool LayoutTable::is_valid(const LayoutEntry& entry) const {
  return entry.layout.functions <= kMaxLayoutFunctions &&
         entry.first_revision <= entry.last_revision &&
         std::ranges::all_of(entry.layout.all(), is_sound) &&
         entry.checksum == layout_checksum(entry, pool_.hash_secret());
}

const LayoutEntry* LayoutTable::entry_of(uint32_t revision) const {
  const std::span entries(regions_.layouts(chain_), kLayoutEntries);
  const auto found = std::ranges::find_if(entries, [&](const LayoutEntry& entry) {
    return contains(entry, revision) && is_valid(entry);
  });
  return found == entries.end() ? nullptr : &*found;
}

std::optional<StateLayout> LayoutTable::find(uint32_t revision) const {
  // Again, because an entry may be succeeded by one that had been passed already.
  for (int look = 0; look < 2; ++look) {
    for (uint32_t i = 0; i < kLayoutEntries; ++i) {
      const LayoutEntry copy = regions_.layouts(chain_)[i];
      if (contains(copy, revision) && is_valid(copy)) return copy.layout;
    }
  }
  return std::nullopt;
}

uint32_t LayoutTable::entries() const {
  const std::span entries(regions_.layouts(chain_), kLayoutEntries);
  return static_cast<uint32_t>(
      std::ranges::count_if(entries, [&](const LayoutEntry& entry) { return is_valid(entry); }));
}

Result<void> LayoutTable::attach(uint32_t revision, const StateLayout& layout,
                                 std::span<const uint32_t> in_use) {
  const std::string field = "chain \"" + std::string(regions_.chain(chain_).name) + "\": revision";
  finish_interrupted_changes();
  if (const LayoutEntry* known = entry_of(revision)) {
    if (known->layout == layout) return {};
    return invalid(field, std::to_string(revision) +
                              " keeps the flows' state otherwise than when the pool last knew it; "
                              "accepted: a revision number that the chain has not had");
  }
  if (LayoutEntry* known = extendable(revision, layout)) {
    const uint32_t first = std::min(known->first_revision, revision);
    const uint32_t last = std::max(known->last_revision, revision);
    LayoutEntry* successor = free_entry();
    assert(successor != nullptr);
    write(*successor, first, last, layout);
    clear(*known);
    return {};
  }
  if (entries() >= kUsableEntries) clear_unneeded(in_use);
  if (entries() >= kUsableEntries) {
    return unavailable(field,
                       std::to_string(revision) + " is not accepted; flows of " +
                           std::to_string(kUsableEntries) +
                           " other layouts of their state are in the pool; accepted: at most "
                           "so many, until the oldest flows have ended");
  }
  write(*free_entry(), revision, revision, layout);
  return {};
}

// Of two entries that overlap, one succeeds the other and holds more.
void LayoutTable::finish_interrupted_changes() {
  const std::span entries(regions_.layouts(chain_), kLayoutEntries);
  for (LayoutEntry& old : entries) {
    const bool succeeded = std::ranges::any_of(entries, [&](const LayoutEntry& entry) {
      return &entry != &old && is_valid(entry) && contains(entry, old.first_revision) &&
             contains(entry, old.last_revision);
    });
    if (succeeded && is_valid(old)) clear(old);
  }
}

// The entry of this layout whose range can grow to the revision without touching another's.
LayoutEntry* LayoutTable::extendable(uint32_t revision, const StateLayout& layout) const {
  const std::span entries(regions_.layouts(chain_), kLayoutEntries);
  const auto found = std::ranges::find_if(entries, [&](const LayoutEntry& entry) {
    if (!is_valid(entry) || entry.layout != layout) return false;
    const uint32_t first = std::min(entry.first_revision, revision);
    const uint32_t last = std::max(entry.last_revision, revision);
    return std::ranges::none_of(entries, [&](const LayoutEntry& other) {
      return &other != &entry && is_valid(other) && overlap(other, first, last);
    });
  });
  return found == entries.end() ? nullptr : &*found;
}

LayoutEntry* LayoutTable::free_entry() const {
  const std::span entries(regions_.layouts(chain_), kLayoutEntries);
  const auto found =
      std::ranges::find_if(entries, [&](const LayoutEntry& entry) { return !is_valid(entry); });
  return found == entries.end() ? nullptr : &*found;
}

void LayoutTable::write(LayoutEntry& entry, uint32_t first_revision, uint32_t last_revision,
                        const StateLayout& layout) {
  LayoutEntry fresh = {};
  fresh.first_revision = first_revision;
  fresh.last_revision = last_revision;
  fresh.layout = layout;
  fresh.checksum = layout_checksum(fresh, pool_.hash_secret());
  Persistence& persistence = pool_.persistence();
  persistence.store(&entry, &fresh, sizeof(fresh));
  persistence.flush(&entry, sizeof(fresh));
  persistence.fence();
}

void LayoutTable::clear(LayoutEntry& entry) {
  Persistence& persistence = pool_.persistence();
  persistence.store64(&entry.checksum, 0);
  persistence.flush(&entry.checksum, sizeof(entry.checksum));
  persistence.fence();
}

// A record that changes while it is looked at is skipped: it will carry the revision of the worker
// that changes it, which runs.
void LayoutTable::clear_unneeded(std::span<const uint32_t> in_use) {
  const std::span entries(regions_.layouts(chain_), kLayoutEntries);
  uint32_t needed = 0;  // bit i: entry i
  const auto need = [&](uint32_t revision) {
    for (uint32_t i = 0; i < kLayoutEntries; ++i) {
      if (contains(entries[i], revision)) needed |= 1u << i;
    }
  };
  std::ranges::for_each(in_use, need);
  pool_.for_each_flow(chain_, [&](const FlowRecord& record) {
    need(record.revision);
    return true;
  });
  for (uint32_t i = 0; i < kLayoutEntries; ++i) {
    if (!(needed >> i & 1) && is_valid(entries[i])) clear(entries[i]);
  }
}

}  // namespace flowkeep
