#include "state/pool.h"

#include <libpmem.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "state/flow_table.h"
#include "state/pool_check.h"
#include "state/pool_file.h"
#include "state/pool_impl.h"
#include "state/redo_record.h"
#include "state/superblock.h"

namespace flowkeep {

namespace {

constexpr uint64_t kMinimumPages = 64;

Error refusal(const std::string& path, const Findings& findings) {
  const auto first = std::ranges::find(findings.listed(), Severity::kDamage, &Finding::severity);
  if (first == findings.listed().end()) return invalid(path, "is damaged; " + repair_hint(path));
  return invalid(
      path + ": " + first->where + ": " + first->what,
      first->found + " is not accepted; accepted: " + first->expected + "; " + repair_hint(path));
}

}  // namespace

std::string_view medium_name(Medium medium) {
  switch (medium) {
    case Medium::kDax:
      return "dax";
    case Medium::kTmpfs:
      return "tmpfs";
    case Medium::kHugetlbfs:
      return "hugetlbfs";
    case Medium::kDisk:
      return "disk";
  }
  return "unknown";
}

std::string_view medium_survives(Medium medium) {
  switch (medium) {
    case Medium::kDax:
      return "power failure";
    case Medium::kTmpfs:
    case Medium::kHugetlbfs:
      return "worker and node-process death";
    case Medium::kDisk:
      return "worker and node-process death; an orderly reboot, not a power failure";
  }
  return "nothing";
}

Pool::Impl::~Impl() {
  if (mapped_bytes != 0) pmem_unmap(regions.base(), mapped_bytes);
  if (fd >= 0) close(fd);
}

Pool::Pool(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Pool::~Pool() = default;

uint64_t Pool::minimum_bytes() {
  // One page of page table is more than enough for so few pages.
  return Geometry::of(0).page_table_at + (1 + kMinimumPages) * kPageBytes;
}

uint64_t Pool::maximum_bytes() {
  return kMaxPoolBytes;
}

Result<std::unique_ptr<Pool>> Pool::open(const PoolOptions& options) {
  auto file = PoolFile::open(options);
  if (!file) return file.error();
  size_t mapped_bytes = 0;
  int is_pmem = 0;
  void* mapped = pmem_map_file(options.path.c_str(), 0, 0, 0, &mapped_bytes, &is_pmem);
  if (mapped == nullptr) {
    return unavailable(options.path, std::string("mapping failed: ") + pmem_errormsg());
  }
  auto* base = static_cast<std::byte*>(mapped);
  Medium medium = file->medium();
  // The variable makes libpmem call any medium persistent.
  const bool forced = std::getenv("PMEM_IS_PMEM_FORCE") != nullptr;
  if (medium == Medium::kDisk && is_pmem != 0 && !forced) medium = Medium::kDax;

  const bool flushes = medium == Medium::kDax || options.emulate_pmem;
  auto impl = std::make_unique<Impl>(flushes, options.delay);
  impl->path = options.path;
  impl->mapped_bytes = mapped_bytes;
  impl->medium = medium;
  impl->emulated = options.emulate_pmem && medium != Medium::kDax;
  impl->regions = Regions(base, Geometry::of(options.bytes));
  if (mapped_bytes != options.bytes) {
    return unavailable(options.path, "the file changed its size while it was opened");
  }
  impl->formatted = file->fresh() || is_unfinished_format(base, options.bytes);
  if (impl->formatted) {
    auto formatted = format_pool(options.path, base, options.bytes, impl->persistence);
    if (!formatted) return formatted.error();
  } else {
    auto checked = check_superblock(options.path, impl->regions.superblock(), options.bytes);
    if (!checked) return checked.error();
  }
  impl->fd = file->release();
  return std::unique_ptr<Pool>(new Pool(std::move(impl)));
}

std::unique_ptr<Pool> Pool::over(std::byte* base, uint64_t bytes) {
  auto impl = std::make_unique<Impl>(false, InjectedDelay{});
  impl->path = "memory";
  impl->medium = Medium::kTmpfs;
  impl->regions = Regions(base, Geometry::of(bytes));
  return std::unique_ptr<Pool>(new Pool(std::move(impl)));
}

RecoveryReport Pool::recover_all() {
  RecoveryReport report;
  Findings findings;
  check_logs(impl_->regions, findings);
  check_chain_directory(impl_->regions, findings);
  if (findings.count(Severity::kDamage) != 0) {
    report.refused = refusal(impl_->path, findings);
    return report;
  }
  for (uint32_t log = 0; log < kMaxWorkerSlots; ++log) {
    const LogContents contents = read_log(impl_->regions, log);
    if (contents.torn()) ++report.redo_records_torn;
    RedoLog redo(*this, log);
    if (contents.valid[1] > contents.retired) {
      redo.apply_newest();
      ++report.redo_records_applied;
    }
    report.pages_reclaimed += redo.reclaim_pages();
    redo.retire(contents.newest());
  }
  finish_dropping_chains();
  return report;
}

Medium Pool::medium() const {
  return impl_->medium;
}
bool Pool::emulated() const {
  return impl_->emulated;
}
std::string Pool::flush_text() const {
  std::string text = impl_->emulated ? "emulated" : "as the medium gives it";
  const InjectedDelay& delay = impl_->delay;
  if (delay.fence_ns != 0) text += ", +" + std::to_string(delay.fence_ns) + " ns per fence";
  if (delay.line_ns != 0) text += ", +" + std::to_string(delay.line_ns) + " ns per line";
  return text;
}
bool Pool::was_formatted() const {
  return impl_->formatted;
}
HashSecret Pool::hash_secret() const {
  return impl_->regions.superblock().secret;
}
uint64_t Pool::total_pages() const {
  return impl_->regions.geometry().pages;
}
std::span<std::byte> Pool::fixed_regions() const {
  return {impl_->regions.base(), impl_->regions.geometry().pages_at};
}

Pool::PageRun Pool::next_pages_in_use(uint64_t first, uint64_t most) const {
  const Regions& regions = impl_->regions;
  const auto in_use = [table = regions.page_table()](uint64_t page) {
    return __atomic_load_n(&table[page], __ATOMIC_RELAXED) != 0;
  };
  const uint64_t pages = regions.geometry().pages;
  while (first < pages && !in_use(first)) ++first;
  uint64_t end = first;
  while (end < pages && end - first < most && in_use(end)) ++end;
  std::byte* begin = regions.base() + (regions.first_page() + first) * kPageBytes;
  return {{begin, (end - first) * kPageBytes}, end};
}
uint64_t Pool::page_claims() const {
  const PageHints& hints = impl_->regions.page_hints();
  return __atomic_load_n(&hints.next_page, __ATOMIC_RELAXED) +
         __atomic_load_n(&hints.releases, __ATOMIC_RELAXED);
}

void Pool::restore_soft(uint32_t record_id, std::span<const uint8_t, kSoftStateBytes> state) {
  if (!impl_->regions.is_record(record_id)) return;
  persistence().store(impl_->regions.record(record_id).soft, state.data(), state.size());
}

std::byte* Pool::base() const {
  return impl_->regions.base();
}
uint64_t Pool::bytes() const {
  return impl_->regions.geometry().pool_bytes;
}
Persistence& Pool::persistence() const {
  return impl_->persistence;
}

uint64_t Pool::free_pages() const {
  const uint64_t* table = impl_->regions.page_table();
  return static_cast<uint64_t>(std::count(table, table + total_pages(), uint64_t{0}));
}

}  // namespace flowkeep
