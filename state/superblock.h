// The superblock: what makes a file a pool, and which one. Written once, the magic last.
#pragma once

#include <string>

#include "state/layout.h"
#include "state/persistence.h"
#include "state/result.h"

namespace flowkeep {

// Is `superblock` that of a pool of `pool_bytes` that this build can use? Errors name `path`, the
// field, its value and what is accepted.
Result<void> check_superblock(const std::string& path, const Superblock& superblock,
                              uint64_t pool_bytes);

// Is the first page what a format that was interrupted leaves: no magic, and nothing that it would
// not have written itself?
bool is_unfinished_format(const std::byte* first_page, uint64_t pool_bytes);

// Clears every region before the pages, then writes the superblock.
Result<void> format_pool(const std::string& path, std::byte* base, uint64_t pool_bytes,
                         Persistence& persistence);

}  // namespace flowkeep
