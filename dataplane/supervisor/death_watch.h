// DeathWatch: a thread of the supervisor's that sleeps on the life words of all workers
// (dataplane/worker_end.h) and calls when one of them has ended.
//
// The call comes from that thread: a failover that had to wake another thread first would take
// twice as long. What is called takes the supervisor's turn; nothing else here locks or allocates,
// so the supervisor may fork while it has its turn. On a kernel without futex_waitv (before
// Linux 5.16) the thread ends at once; the supervisor then learns of deaths from pidfds alone.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <thread>

#include "dataplane/arena.h"

namespace flowkeep {

class DeathWatch {
 public:
  // `on_death` is called when a worker has ended that had not ended before.
  DeathWatch(ArenaHeader& header, std::function<void()> on_death);
  ~DeathWatch();
  DeathWatch(const DeathWatch&) = delete;
  DeathWatch& operator=(const DeathWatch&) = delete;

 private:
  void run();
  bool look();

  ArenaHeader& header_;
  const std::function<void()> on_death_;
  std::atomic<bool> stopping_{false};
  std::array<bool, kMaxProcesses> told_{};
  std::thread thread_;
};

}  // namespace flowkeep
