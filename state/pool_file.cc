#include "state/pool_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "state/superblock.h"

namespace flowkeep {

namespace {

std::string os_error(int error) {
  return std::generic_category().message(error);
}

Result<void> check_size_option(const PoolOptions& options) {
  const uint64_t minimum = Pool::minimum_bytes();
  if (options.bytes >= minimum && options.bytes <= Pool::maximum_bytes() &&
      options.bytes % kPageBytes == 0) {
    return {};
  }
  return invalid(options.path + ": bytes",
                 std::to_string(options.bytes) + " is no pool size; accepted: multiples of " +
                     std::to_string(kPageBytes) + " from " + std::to_string(minimum) + " to " +
                     std::to_string(Pool::maximum_bytes()));
}

Result<void> lock(int fd, const std::string& path) {
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return {};
  const int error = errno;
  if (error == EWOULDBLOCK) {
    return unavailable(path,
                       "the pool is locked by another node process; accepted: one node a pool");
  }
  return unavailable(path, "flock failed: " + os_error(error));
}

// Every byte gets its storage now: a full file system must not become a SIGBUS later.
Result<void> allocate(int fd, const PoolOptions& options) {
  struct statfs file_system = {};
  if (fstatfs(fd, &file_system) == 0 && file_system.f_type == HUGETLBFS_MAGIC &&
      options.bytes % static_cast<uint64_t>(file_system.f_bsize) != 0) {
    return invalid(options.path + ": bytes",
                   std::to_string(options.bytes) +
                       " is no multiple of the huge page size; accepted: multiples of " +
                       std::to_string(file_system.f_bsize));
  }
  const int error = posix_fallocate(fd, 0, static_cast<off_t>(options.bytes));
  if (error == 0) return {};
  // Gives back what it got, so that the next attempt finds an empty file.
  if (ftruncate(fd, 0) != 0)
    return unavailable(options.path, "ftruncate failed: " + os_error(errno));
  return unavailable(options.path, "allocating " + std::to_string(options.bytes) +
                                       " bytes failed: " + os_error(error));
}

}  // namespace

Result<PoolFile> PoolFile::open(const PoolOptions& options) {
  if (options.path.empty())
    return invalid("path", "\"\" is no file name; accepted: the pool's file");
  if (auto size = check_size_option(options); !size) return size.error();
  // O_NONBLOCK: a FIFO in the file's place is refused below instead of waited for.
  constexpr int kFlags = O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK;
  const int fd = ::open(options.path.c_str(), kFlags, 0600);
  if (fd < 0) {
    const int error = errno;
    if (error == EISDIR || error == ENXIO) {
      return invalid(options.path, "not a regular file; accepted: a regular file");
    }
    return unavailable(options.path, "opening for reading and writing failed: " + os_error(error));
  }
  PoolFile file(fd);
  if (auto usable = file.check_and_size(options); !usable) return usable.error();
  return file;
}

Result<void> PoolFile::check_and_size(const PoolOptions& options) {
  struct stat status = {};
  if (fstat(fd_, &status) != 0)
    return unavailable(options.path, "fstat failed: " + os_error(errno));
  if (!S_ISREG(status.st_mode)) {
    return invalid(options.path, "not a regular file; accepted: a regular file");
  }
  if (auto locked = lock(fd_, options.path); !locked) return locked;
  // Again, now that nobody else can be formatting it.
  if (fstat(fd_, &status) != 0)
    return unavailable(options.path, "fstat failed: " + os_error(errno));
  if (status.st_size == 0) {
    fresh_ = true;
    return allocate(fd_, options);
  }
  if (static_cast<uint64_t>(status.st_size) == options.bytes) return {};
  return invalid(options.path + ": bytes",
                 "the file has " + std::to_string(status.st_size) +
                     " bytes; accepted: " + std::to_string(options.bytes) +
                     ", as configured; if it was cut short or grew, " + repair_hint(options.path));
}

PoolFile::~PoolFile() {
  if (fd_ >= 0) close(fd_);
}

Medium PoolFile::medium() const {
  struct statfs file_system = {};
  if (fstatfs(fd_, &file_system) != 0) return Medium::kDisk;
  if (file_system.f_type == TMPFS_MAGIC) return Medium::kTmpfs;
  if (file_system.f_type == HUGETLBFS_MAGIC) return Medium::kHugetlbfs;
  return Medium::kDisk;
}

}  // namespace flowkeep
