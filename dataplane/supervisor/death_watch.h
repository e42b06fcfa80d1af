// DeathWatch: a thread of the supervisor's that sleeps on the life words of all workers
// (dataplane/worker_end.h) and makes a descriptor readable when one of them has ended.
//
// It only reads words and waits: it allocates nothing and takes no lock, so the supervisor may fork
// beside it. On a kernel without futex_waitv (before Linux 5.16) it ends at once; the supervisor
// then learns of deaths from pidfds alone.
#pragma once

#include <array>
#include <atomic>
#include <thread>

#include "dataplane/arena.h"

namespace flowkeep {

class DeathWatch {
 public:
  // `event_fd` is written when a worker has ended that had not ended before.
  DeathWatch(ArenaHeader& header, int event_fd);
  ~DeathWatch();
  DeathWatch(const DeathWatch&) = delete;
  DeathWatch& operator=(const DeathWatch&) = delete;

 private:
  void run();
  bool look();

  ArenaHeader& header_;
  const int event_fd_;
  std::atomic<bool> stopping_{false};
  std::array<bool, kMaxProcesses> told_{};
  std::thread thread_;
};

}  // namespace flowkeep
