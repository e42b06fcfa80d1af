// The superblock: what makes a file a pool, and which one. Written once, the magic last.
#pragma once

#include <optional>
#include <string>

#include "state/layout.h"
#include "state/persistence.h"
#include "state/result.h"

namespace flowkeep {

// Where a second superblock lies, in the chain directory's page, for the repair of the first.
inline constexpr size_t kSuperblockCopyAt = 2 * kPageBytes - 256;
static_assert(kPageBytes + kMaxChains * sizeof(ChainEntry) <= kSuperblockCopyAt);
static_assert(kSuperblockCopyAt + sizeof(Superblock) <= 2 * kPageBytes);

uint64_t superblock_checksum(const Superblock& superblock);

// What errors about a damaged pool end with: "`flowkeep-pool repair PATH` says what can be kept".
std::string repair_hint(const std::string& path);
// What to do about a pool of another format version.
std::string other_version_hint(uint32_t version);

// Is `superblock` that of a pool of `pool_bytes` that this build can use? Errors name `path`, the
// field, its value and what is accepted.
Result<void> check_superblock(const std::string& path, const Superblock& superblock,
                              uint64_t pool_bytes);

// Is this what a format that was interrupted leaves: no magic, and before the pages nothing that it
// would not have written itself?
bool is_unfinished_format(const std::byte* base, uint64_t pool_bytes);

// The superblock or its copy, the first that is whole: checksum and geometry fit the size that it
// names itself. `bytes`: how many may be read at `base`.
std::optional<Superblock> whole_superblock(const std::byte* base, uint64_t bytes);

// The superblock of a format that this build does not know?
bool is_other_version(const Superblock& superblock);

// Are at least half of the fields before the secret those of a pool of `pool_bytes`: a damaged
// superblock, rather than no pool at all?
bool resembles_superblock(const Superblock& superblock, uint64_t pool_bytes);

// The superblock of a new pool; a secret is drawn unless one is given.
Result<Superblock> new_superblock(const std::string& path, uint64_t pool_bytes,
                                  std::optional<HashSecret> secret = {});

// Clears every region before the pages, then writes the superblock and its copy.
Result<void> format_pool(const std::string& path, std::byte* base, uint64_t pool_bytes,
                         Persistence& persistence);

}  // namespace flowkeep
