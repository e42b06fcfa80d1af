// The worker's seccomp sandbox. A running worker makes no system call at all; an idle one sleeps on
// a futex. Anything else is a SIGSYS, of which the worker ends; it is then failed over like any
// other death.
#pragma once

#include <linux/filter.h>

#include <vector>

#include "state/result.h"

namespace flowkeep {

class WorkerSandbox {
 public:
  // In the zygote: compiles the filter once, so that a worker only has to load it.
  static Result<WorkerSandbox> compile();
  // In the worker: no way back. Ends the process if the kernel refuses.
  void enter() const;

 private:
  std::vector<sock_filter> filter_;
};

}  // namespace flowkeep
