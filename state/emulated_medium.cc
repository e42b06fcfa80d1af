#include "state/emulated_medium.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <random>
#include <system_error>

#include "state/layout.h"

namespace flowkeep {

struct EmulatedMedium::Header {
  static constexpr uint64_t kMagic = 0x31304d444d454b46ULL;  // "FKEMDM01"
  uint64_t magic;
  uint64_t pool_bytes;
  HashSecret pool_secret;  // tells this pool from another one in its place
  uint64_t seed;           // of an ordered cut; 0: none
};

struct EmulatedMedium::Flushed {
  static constexpr uint32_t kMostLines = 16383;
  std::atomic<uint32_t> count;
  uint32_t lines[kMostLines];
};

namespace {

constexpr size_t kHeaderBytes = kPageBytes;

std::string os_error() {
  return std::generic_category().message(errno);
}

void copy_line(std::byte* to, const std::byte* from) {
  for (size_t at = 0; at < kLineBytes; at += sizeof(uint64_t)) {
    const auto* source = reinterpret_cast<const uint64_t*>(from + at);
    // Other processes may store to the line meanwhile: word by word, each whole.
    __atomic_store_n(reinterpret_cast<uint64_t*>(to + at),
                     __atomic_load_n(source, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
  }
}

}  // namespace

EmulatedMedium::Header& EmulatedMedium::header() const {
  return *reinterpret_cast<Header*>(mapped_);
}
EmulatedMedium::Flushed& EmulatedMedium::flushed(uint32_t process) const {
  return reinterpret_cast<Flushed*>(mapped_ + kHeaderBytes)[process % kMostProcesses];
}
std::byte* EmulatedMedium::certain() const {
  return mapped_ + kHeaderBytes + kMostProcesses * sizeof(Flushed);
}

Result<std::unique_ptr<EmulatedMedium>> EmulatedMedium::open(const std::string& pool_path,
                                                             Pool& pool) {
  const std::string path = path_of(pool_path);
  if (!pool.emulated()) {
    return invalid("pool.power_cut_drills",
                   "the pool lies on " + std::string(medium_name(pool.medium())) +
                       " and is not emulated; accepted: an emulated medium");
  }
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return unavailable(path, "opening failed: " + os_error());
  std::unique_ptr<EmulatedMedium> medium(new EmulatedMedium(pool));
  medium->mapped_bytes_ = kHeaderBytes + kMostProcesses * sizeof(Flushed) + pool.bytes();
  void* mapped = MAP_FAILED;
  if (ftruncate(fd, static_cast<off_t>(medium->mapped_bytes_)) == 0) {
    mapped = mmap(nullptr, medium->mapped_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  const std::string error = os_error();
  close(fd);
  if (mapped == MAP_FAILED) return unavailable(path, "mapping failed: " + error);
  medium->mapped_ = static_cast<std::byte*>(mapped);
  const Header& header = medium->header();
  const HashSecret secret = pool.hash_secret();
  const bool is_of_pool = header.magic == Header::kMagic && header.pool_bytes == pool.bytes() &&
                          std::memcmp(&header.pool_secret, &secret, sizeof(secret)) == 0;
  if (is_of_pool && header.seed != 0) medium->carry_out_cut(header.seed);
  return medium;
}

EmulatedMedium::~EmulatedMedium() {
  if (pool_.persistence().observer() == this) pool_.persistence().observe(nullptr);
  if (mapped_ != nullptr) munmap(mapped_, mapped_bytes_);
}

void EmulatedMedium::begin() {
  for (uint32_t process = 0; process < kMostProcesses; ++process) flushed(process).count = 0;
  for (uint64_t at = 0; at < pool_.bytes(); at += kPageBytes) {
    // Pages that are alike, most often because nothing is on them, take no memory.
    if (std::memcmp(certain() + at, pool_.base() + at, kPageBytes) != 0)
      std::memcpy(certain() + at, pool_.base() + at, kPageBytes);
  }
  header() = {Header::kMagic, pool_.bytes(), pool_.hash_secret(), 0};
  pool_.persistence().observe(this);
}

Result<void> EmulatedMedium::order_cut(const std::string& pool_path, uint64_t seed) {
  const std::string path = path_of(pool_path);
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return internal_error(path, "opening failed: " + os_error());
  const ssize_t written = pwrite(fd, &seed, sizeof(seed), offsetof(Header, seed));
  const std::string error = os_error();
  close(fd);
  if (written != sizeof(seed)) return internal_error(path, "writing failed: " + error);
  return {};
}

// A full list makes lines certain too early: one of the images that a cut can leave, too.
void EmulatedMedium::flushing(const void* address, size_t bytes) {
  if (bytes == 0) return;
  const auto at = static_cast<uint64_t>(static_cast<const std::byte*>(address) - pool_.base());
  Flushed& list = flushed(process_);
  for (uint64_t line = at / kLineBytes; line <= (at + bytes - 1) / kLineBytes; ++line) {
    const uint32_t count = list.count.load(std::memory_order_relaxed);
    if (count == Flushed::kMostLines) {
      make_certain(line);
      continue;
    }
    list.lines[count] = static_cast<uint32_t>(line);
    list.count.store(count + 1, std::memory_order_release);
  }
}

void EmulatedMedium::settle(uint32_t process) {
  Flushed& list = flushed(process);
  const uint32_t count = list.count.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < count; ++i) make_certain(list.lines[i]);
  list.count.store(0, std::memory_order_release);
}

void EmulatedMedium::make_certain(uint64_t line) {
  copy_line(certain() + line * kLineBytes, pool_.base() + line * kLineBytes);
}

// Each line that differs is kept, lost or torn between words. Lines in which store64_last() gives
// an order are not torn.
void EmulatedMedium::carry_out_cut(uint64_t seed) {
  enum class Fate { kKept, kLost, kTorn, kTornToo };
  std::mt19937_64 random(seed);
  const Geometry geometry = Geometry::of(pool_.bytes());
  cut_ = EmulatedCut{.seed = seed};
  for (uint64_t at = 0; at < pool_.bytes(); at += kLineBytes) {
    auto* seen = reinterpret_cast<uint64_t*>(pool_.base() + at);
    const auto* sure = reinterpret_cast<const uint64_t*>(certain() + at);
    if (std::memcmp(seen, sure, kLineBytes) == 0) continue;
    const bool in_log_header = at >= geometry.logs_at && at < geometry.page_table_at &&
                               (at - geometry.logs_at) % kLogBytes < sizeof(LogHeader);
    const auto fate = static_cast<Fate>(random() % (in_log_header ? 2 : 4));
    for (size_t word = 0; word < kLineBytes / sizeof(uint64_t); ++word) {
      if (seen[word] == sure[word]) continue;
      ++cut_->words_at_risk;
      if (fate == Fate::kKept || (fate != Fate::kLost && random() % 2 == 0)) continue;
      seen[word] = sure[word];
      ++cut_->words_lost;
    }
  }
}

}  // namespace flowkeep
