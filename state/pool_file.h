// PoolFile: the file that a pool lies in, opened, locked and of the right size, before it is
// mapped.
#pragma once

#include <cstdint>
#include <string>

#include "state/pool.h"
#include "state/result.h"

namespace flowkeep {

class PoolFile {
 public:
  // Creates the file if there is none; gives an empty one its size. Refuses whatever is not a
  // regular file of `options.bytes` that this process alone may use.
  static Result<PoolFile> open(const PoolOptions& options);
  ~PoolFile();
  PoolFile(PoolFile&& other) noexcept : fd_(other.fd_), fresh_(other.fresh_) { other.fd_ = -1; }
  PoolFile& operator=(PoolFile&&) = delete;

  // The lock lives as long as this descriptor, here and in every process forked since.
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  bool fresh() const { return fresh_; }  // was empty or not there: to be formatted
  // As far as the file system tells; a DAX file is recognised by its mapping.
  Medium medium() const;

 private:
  explicit PoolFile(int fd) : fd_(fd) {}
  Result<void> check_and_size(const PoolOptions& options);

  int fd_ = -1;
  bool fresh_ = false;
};

}  // namespace flowkeep
