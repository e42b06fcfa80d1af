#include "state/pool_image.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <utility>
#include <vector>

#include "state/flow_table.h"
#include "state/redo_record.h"
#include "state/superblock.h"

namespace flowkeep {

namespace {

std::string os_error(int error) {
  return std::generic_category().message(error);
}

Result<void> read_at(const std::string& path, int fd, std::byte* to, uint64_t bytes, uint64_t at) {
  while (bytes != 0) {
    const ssize_t got = pread(fd, to, bytes, static_cast<off_t>(at));
    if (got < 0) return unavailable(path, "reading failed: " + os_error(errno));
    if (got == 0) return {};  // cut off meanwhile: zero
    to += got;
    at += static_cast<uint64_t>(got);
    bytes -= static_cast<uint64_t>(got);
  }
  return {};
}

Medium medium_of(int fd) {
  struct statfs file_system = {};
  if (fstatfs(fd, &file_system) != 0) return Medium::kDisk;
  if (file_system.f_type == TMPFS_MAGIC) return Medium::kTmpfs;
  if (file_system.f_type == HUGETLBFS_MAGIC) return Medium::kHugetlbfs;
  // As libpmem decides: a mapping that the file system keeps persistent by itself.
  void* page = mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0);
  if (page == MAP_FAILED) return Medium::kDisk;
  munmap(page, kPageBytes);
  return Medium::kDax;
}

}  // namespace

Result<PoolImage> PoolImage::read(const std::string& path, Access access) {
  PoolImage image;
  image.path_ = path;
  if (auto opened = image.open_file(access); !opened) return opened.error();
  if (auto sized = image.establish_size(); !sized) return sized.error();
  if (auto mapped = image.map(); !mapped) return mapped.error();
  return image;
}

PoolImage PoolImage::over(std::byte* base, uint64_t bytes) {
  PoolImage image;
  image.path_ = "memory";
  image.base_ = base;
  image.bytes_ = image.file_bytes_ = bytes;
  return image;
}

PoolImage::PoolImage(PoolImage&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      base_(std::exchange(other.base_, nullptr)),
      bytes_(other.bytes_),
      file_bytes_(other.file_bytes_),
      size_source_(other.size_source_),
      in_use_(other.in_use_),
      medium_(other.medium_) {}

PoolImage::~PoolImage() {
  if (fd_ < 0) return;
  if (base_ != nullptr) munmap(base_, bytes_);
  close(fd_);
}

Result<void> PoolImage::open_file(Access access) {
  const bool repair = access == Access::kRepair;
  if (path_.empty()) return invalid("path", "\"\" is no file name; accepted: the pool's file");
  fd_ = open(path_.c_str(), (repair ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) {
    const int error = errno;
    if (error == EISDIR || error == ENXIO) {
      return invalid(path_, "not a regular file; accepted: a pool's file");
    }
    return unavailable(path_, std::string("opening for reading ") + (repair ? "and writing " : "") +
                                  "failed: " + os_error(error));
  }
  struct stat status = {};
  if (fstat(fd_, &status) != 0) return unavailable(path_, "fstat failed: " + os_error(errno));
  if (!S_ISREG(status.st_mode)) {
    return invalid(path_, "not a regular file; accepted: a pool's file");
  }
  in_use_ = flock(fd_, (repair ? LOCK_EX : LOCK_SH) | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  if (repair && in_use_) {
    return unavailable(path_,
                       "the pool is in use by a node process; accepted: stop the node first, or "
                       "repair a copy");
  }
  if (!repair) flock(fd_, LOCK_UN);  // a node may start meanwhile
  // After the lock: what was there before may have been replaced.
  if (fstat(fd_, &status) != 0) return unavailable(path_, "fstat failed: " + os_error(errno));
  file_bytes_ = static_cast<uint64_t>(status.st_size);
  medium_ = medium_of(fd_);
  return {};
}

Result<void> PoolImage::establish_size() {
  if (file_bytes_ == 0) {
    return invalid(path_, "the file is empty; accepted: a pool (a node formats an empty file)");
  }
  std::vector<std::byte> head(2 * kPageBytes);
  if (auto got = read_at(path_, fd_, head.data(), head.size(), 0); !got) return got;
  const auto& first = *reinterpret_cast<const Superblock*>(head.data());
  const auto& copy = *reinterpret_cast<const Superblock*>(head.data() + kSuperblockCopyAt);
  if (const auto whole = whole_superblock(head.data(), head.size())) {
    bytes_ = whole->geometry.pool_bytes;
    const bool is_first = std::memcmp(&*whole, &first, sizeof(first)) == 0;
    size_source_ = is_first ? SizeSource::kSuperblock : SizeSource::kCopy;
    return {};
  }
  if (is_other_version(first)) {
    return invalid(path_ + ": superblock.version",
                   std::to_string(first.version) +
                       " is a version that this program does not know; "
                       "accepted: " +
                       std::to_string(kPoolFormatVersion) + "; " +
                       other_version_hint(first.version));
  }
  const bool is_size = file_bytes_ >= Pool::minimum_bytes() && file_bytes_ % kPageBytes == 0 &&
                       file_bytes_ <= Pool::maximum_bytes();
  if (is_size &&
      (resembles_superblock(first, file_bytes_) || resembles_superblock(copy, file_bytes_))) {
    bytes_ = file_bytes_;
    size_source_ = SizeSource::kFile;
    return {};
  }
  return invalid(
      path_, "not a flowkeep pool: neither the superblock nor its copy is whole, and with " +
                 std::to_string(file_bytes_) + " bytes nothing else establishes a pool's geometry");
}

Result<void> PoolImage::map() {
  void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return unavailable(path_, std::to_string(bytes_) + " bytes of memory: " + os_error(errno));
  }
  base_ = static_cast<std::byte*>(memory);
  const uint64_t present = std::min(bytes_, file_bytes_);
  // Huge pages would be reserved for each page that the image changes.
  if (medium_ == Medium::kHugetlbfs) return read_at(path_, fd_, base_, present, 0);
  if (mmap(base_, present, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd_,
           0) == MAP_FAILED) {
    return unavailable(path_, "mapping failed: " + os_error(errno));
  }
  return {};
}

void PoolImage::restore_superblock() {
  const auto whole = whole_superblock(base_, bytes_);
  if (whole) std::memcpy(base_, &*whole, sizeof(*whole));
}

void PoolImage::complete() {
  const auto pool = Pool::over(base_, bytes_);
  if (!pool->recover_all().refused) return;
  for (uint32_t log = 0; log < kMaxWorkerSlots; ++log) {
    const LogContents contents = read_log(regions(), log);
    if (contents.damaged()) continue;
    RedoLog redo(*pool, log);
    redo.apply_newest();
    redo.reclaim_pages();
    redo.retire(contents.newest());
  }
}

Result<void> PoolImage::write_back(bool in_place) {
  if (in_place) {
    if (file_bytes_ != bytes_ && ftruncate(fd_, static_cast<off_t>(bytes_)) != 0) {
      return unavailable(path_, "changing the size failed: " + os_error(errno));
    }
    return write_pages_to(fd_, true);
  }
  char* resolved = realpath(path_.c_str(), nullptr);
  if (resolved == nullptr) return unavailable(path_, "realpath failed: " + os_error(errno));
  const std::string target = resolved;
  std::free(resolved);
  std::string fresh = target + ".repair-XXXXXX";
  const int fd = mkostemp(fresh.data(), O_CLOEXEC);
  if (fd < 0) return unavailable(fresh, "making the file failed: " + os_error(errno));
  struct stat status = {};
  Result<void> written = {};
  if (const int error = posix_fallocate(fd, 0, static_cast<off_t>(bytes_)); error != 0) {
    written = unavailable(fresh, "allocating " + std::to_string(bytes_) +
                                     " bytes failed: " + os_error(error) +
                                     "; accepted: room for a second pool, or --in-place");
  } else if (fstat(fd_, &status) != 0 || fchown(fd, status.st_uid, status.st_gid) != 0 ||
             fchmod(fd, status.st_mode & 07777) != 0) {
    written = unavailable(fresh, "giving it owner and mode of the pool failed: " + os_error(errno));
  } else {
    written = write_pages_to(fd, false);
  }
  if (written && rename(fresh.c_str(), target.c_str()) != 0) {
    written = unavailable(target, "rename failed: " + os_error(errno));
  }
  if (!written) unlink(fresh.c_str());
  close(fd);
  return written;
}

// By mapping: a hugetlbfs file cannot be written otherwise.
Result<void> PoolImage::write_pages_to(int fd, bool changed_only) const {
  void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return unavailable(path_, "mapping failed: " + os_error(errno));
  auto* to = static_cast<std::byte*>(memory);
  for (uint64_t at = 0; at < bytes_; at += kPageBytes) {
    if (changed_only && std::memcmp(to + at, base_ + at, kPageBytes) == 0) continue;
    std::memcpy(to + at, base_ + at, kPageBytes);
  }
  Result<void> synced = {};
  if (msync(memory, bytes_, MS_SYNC) != 0 || fsync(fd) != 0) {
    synced = unavailable(path_, "writing failed: " + os_error(errno));
  }
  munmap(memory, bytes_);
  return synced;
}

}  // namespace flowkeep
