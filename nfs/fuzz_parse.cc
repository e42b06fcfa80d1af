// libFuzzer target: parse() on anything, from both sides. What it accepts goes on through the
// rewrites of nat44, which trust its offsets: the address sanitizer sees if they should not have.
//
//   ./flowkeep fuzz parse
#include <cstdlib>
#include <vector>

#include "nfs/function.h"
#include "nfs/nat44/rewrite.h"
#include "nfs/parse.h"

namespace flowkeep {
namespace {

void rewrite(std::vector<uint8_t> frame, const PacketMeta& meta) {
  const Endpoint endpoint{Be32::from_host(0xcb00710a), Be16::from_host(4242), {}};
  const std::vector<uint8_t> before = frame;
  const bool error = meta.inner_l3_offset != 0;
  if (meta.side == Side::kInside) {
    (error ? rewrite_error_from_inside : rewrite_source)(frame.data(), meta, endpoint);
  } else {
    (error ? rewrite_error_from_outside : rewrite_destination)(frame.data(), meta, endpoint);
  }
  // Nothing beyond what the undo log saves may have changed.
  for (size_t i = editable_bytes(meta); i < frame.size(); ++i) {
    if (frame[i] != before[i]) std::abort();
  }
}

}  // namespace
}  // namespace flowkeep

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace flowkeep;
  if (size > 9000) return 0;
  for (const Side side : {Side::kInside, Side::kOutside}) {
    PacketMeta meta;
    if (parse(bytes, static_cast<uint16_t>(size), side, {1, 2}, meta) == DropReason::kNone) {
      rewrite(std::vector<uint8_t>(bytes, bytes + size), meta);
    }
  }
  return 0;
}
