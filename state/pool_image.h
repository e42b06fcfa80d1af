// PoolImage: a pool file's bytes in private memory, for programs that look at a pool or repair it.
// Whatever happens to the image, the file stays as it is until write_back().
//
// The file may be damaged in any way: too short, too long, without a whole superblock. What
// is missing at its end reads as zero.
#pragma once

#include <cstdint>
#include <string>

#include "state/layout.h"
#include "state/pool.h"
#include "state/result.h"

namespace flowkeep {

class PoolImage {
 public:
  // Where the pool's size is known from.
  enum class SizeSource { kSuperblock, kCopy, kFile };
  enum class Access {
    kLook,    // beside a running node too
    kRepair,  // refused while another process holds the pool; locks the file
  };

  // Errors: no file that can be read, nothing that is a flowkeep pool, another format version, and
  // for a repair a pool in use.
  static Result<PoolImage> read(const std::string& path, Access access);
  // Of memory that belongs to the caller; for tests.
  static PoolImage over(std::byte* base, uint64_t bytes);
  ~PoolImage();
  PoolImage(PoolImage&& other) noexcept;
  PoolImage& operator=(PoolImage&&) = delete;

  const std::string& path() const { return path_; }
  std::byte* base() const { return base_; }
  uint64_t bytes() const { return bytes_; }            // of the pool
  uint64_t file_bytes() const { return file_bytes_; }  // differs if the file was cut or grew
  SizeSource size_source() const { return size_source_; }
  bool in_use() const { return in_use_; }  // a node holds it
  Medium medium() const { return medium_; }
  Regions regions() const { return {base_, Geometry::of(bytes_)}; }

  // Puts the superblock's copy in place of a damaged superblock: nothing can be judged without its
  // secret.
  void restore_superblock();
  // Completes what a crash has left, as far as redo logs are whole: the image is then a pool
  // between two bursts. Not beside a running node.
  void complete();

  // The image becomes the file's content, of the pool's size. `in_place`: page by page; otherwise
  // as a new file beside it that takes its name when it is complete, so that the old content or the
  // new is there whatever happens.
  Result<void> write_back(bool in_place);

 private:
  PoolImage() = default;
  Result<void> open_file(Access access);
  Result<void> establish_size();
  Result<void> map();
  Result<void> write_pages_to(int fd, bool changed_only) const;

  std::string path_;
  int fd_ = -1;  // none: the memory is somebody else's
  std::byte* base_ = nullptr;
  uint64_t bytes_ = 0;
  uint64_t file_bytes_ = 0;
  SizeSource size_source_ = SizeSource::kSuperblock;
  bool in_use_ = false;
  Medium medium_ = Medium::kDisk;
};

}  // namespace flowkeep
