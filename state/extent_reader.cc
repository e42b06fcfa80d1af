#include "state/extent_reader.h"

#include <algorithm>
#include <cstring>

#include "state/extents.h"

namespace flowkeep {

std::optional<std::vector<std::byte>> whole_extent(const Regions& regions, RecordId id,
                                                   uint32_t first_block) {
  const auto is_block = [&](uint32_t block) {
    return block_place(block) < kBlocksPerPage && regions.is_page(block_page(block));
  };
  if (!is_block(first_block)) return std::nullopt;
  ExtentHeader header;
  std::memcpy(&header, regions.block(first_block), sizeof(header));
  if (header.bytes == 0 || header.bytes > kMaxExtentBytes || header.record != id) {
    return std::nullopt;
  }
  std::vector<std::byte> content;
  size_t skipped = sizeof(header);
  for (uint32_t block = first_block; content.size() < header.bytes; skipped = 0) {
    if (!is_block(block)) return std::nullopt;
    const std::byte* from = regions.block(block) + skipped;
    const size_t here = std::min<size_t>(header.bytes - content.size(), kBlockBytes - skipped);
    content.insert(content.end(), from, from + here);
    block = regions.extent_head(block_page(block)).next[block_place(block)];
  }
  const HashSecret secret = regions.superblock().secret;
  if (extent_checksum(header, content, secret) != header.checksum) return std::nullopt;
  return content;
}

}  // namespace flowkeep
