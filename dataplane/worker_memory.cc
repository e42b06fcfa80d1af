#include "dataplane/worker_memory.h"

#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace flowkeep {
namespace {

constexpr size_t kPieceBytes = size_t{32} << 10;      // of 4 KiB pages
constexpr size_t kHugePieceBytes = size_t{64} << 20;  // of huge pages
constexpr uint64_t kPiecePages = kPieceBytes / 4096;

void map_for_reading(std::span<std::byte> range) {
  madvise(range.data(), range.size(), MADV_POPULATE_READ);
}

// One byte of each page.
void read_pages(std::span<const std::byte> range) {
  constexpr size_t kPageBytes = 4096;
  for (size_t at = 0; at < range.size(); at += kPageBytes)
    static_cast<void>(*static_cast<const volatile std::byte*>(&range[at]));
}

// Stack that a burst may use below its caller's frame.
[[gnu::noinline]] void write_stack() {
  volatile std::byte room[32 * 1024];
  for (size_t at = 0; at < sizeof(room); at += 1024) room[at] = std::byte{0};
}

bool runs_in_bursts(std::string_view object) {
  return object.empty() ||  // the program itself
         std::ranges::any_of(
             std::array{"librte_acl", "librte_ring", "libpmem"},
             [object](auto name) { return object.find(name) != std::string_view::npos; });
}

// dl_iterate_phdr(3): the executable segments of the program and of the libraries that it bursts
// with.
int add_code(dl_phdr_info* object, size_t, void* ranges) {
  constexpr uintptr_t kPageMask = 4095;
  if (!runs_in_bursts(object->dlpi_name)) return 0;
  auto& list = *static_cast<std::vector<std::span<std::byte>>*>(ranges);
  for (const auto& segment : std::span(object->dlpi_phdr, object->dlpi_phnum)) {
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
    const uintptr_t begin = (object->dlpi_addr + segment.p_vaddr) & ~kPageMask;
    const uintptr_t end = object->dlpi_addr + segment.p_vaddr + segment.p_memsz;
    list.emplace_back(reinterpret_cast<std::byte*>(begin), (end - begin + kPageMask) & ~kPageMask);
  }
  return 0;
}

}  // namespace

WorkerMemory::WorkerMemory(const Arena& arena, const Pool& pool) : arena_(arena), pool_(pool) {
  const size_t piece = arena.huge() ? kHugePieceBytes : kPieceBytes;
  std::span<std::byte> packets(arena.base() + arena.header().packet_offset,
                               arena.header().packet_bytes);
  for (; !packets.empty(); packets = packets.subspan(std::min(piece, packets.size())))
    packets_.push_back(packets.first(std::min(piece, packets.size())));
  std::reverse(packets_.begin(), packets_.end());
  dl_iterate_phdr(add_code, &code_);
}

void WorkerMemory::map_essentials() const {
  madvise(arena_.base(), arena_.header().packet_offset, MADV_POPULATE_WRITE);
  map_for_reading(pool_.fixed_regions());
}

bool WorkerMemory::read_more() {
  constexpr size_t kPiece = size_t{256} << 10;
  write_stack();
  while (!code_.empty() && code_.back().empty()) code_.pop_back();
  if (code_.empty()) return false;
  const size_t bytes = std::min(kPiece, code_.back().size());
  map_for_reading(code_.back().first(bytes));
  read_pages(code_.back().first(bytes));
  code_.back() = code_.back().subspan(bytes);
  return true;
}

bool WorkerMemory::map_more() {
  if (!packets_.empty()) {
    map_for_reading(packets_.back());
    packets_.pop_back();
    return true;
  }
  if (next_page_ == 0) {
    const uint64_t claims = pool_.page_claims();
    if (claims == claims_) return false;
    claims_ = claims;
  }
  const Pool::PageRun run = pool_.next_pages_in_use(next_page_, kPiecePages);
  map_for_reading(run.bytes);
  next_page_ = run.bytes.empty() ? 0 : run.end;
  return !run.bytes.empty();
}

}  // namespace flowkeep
