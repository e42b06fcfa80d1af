#include "dataplane/supervisor/death_watch.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "dataplane/worker_end.h"

namespace flowkeep {
namespace {

constexpr size_t kWords = kMaxProcesses + 1;  // lives_changed comes first
static_assert(kWords <= FUTEX_WAITV_MAX);

futex_waitv waiter(const std::atomic<uint32_t>& word, uint32_t seen) {
  futex_waitv one{};
  one.val = seen;
  one.uaddr = reinterpret_cast<uintptr_t>(&word);
  one.flags = FUTEX_32;
  return one;
}

}  // namespace

DeathWatch::DeathWatch(ArenaHeader& header, std::function<void()> on_death)
    : header_(header), on_death_(std::move(on_death)), thread_([this] { run(); }) {
  sched_param parameters{};
  parameters.sched_priority = kUrgentPriority;
  pthread_setschedparam(thread_.native_handle(), SCHED_RR, &parameters);
}

DeathWatch::~DeathWatch() {
  stopping_.store(true);
  header_.lives_changed.fetch_add(1);
  futex_wake(header_.lives_changed);
  thread_.join();
}

void DeathWatch::run() {
  while (!stopping_.load()) {
    futex_waitv words[kWords];
    words[0] = waiter(header_.lives_changed, header_.lives_changed.load());
    uint32_t count = 1;
    for (const WorkerProcess& process : header_.processes) {
      const uint32_t seen = process.life.load();
      if (seen != 0 && (seen & FUTEX_OWNER_DIED) == 0) words[count++] = waiter(process.life, seen);
    }
    if (look()) on_death_();
    const long woken = syscall(SYS_futex_waitv, words, count, 0, nullptr, 0);
    if (woken < 0 && errno != EAGAIN && errno != EINTR) return;
  }
}

// Has a worker ended since the last look?
bool DeathWatch::look() {
  bool found = false;
  for (size_t i = 0; i < kMaxProcesses; ++i) {
    const bool ended = has_ended(header_.processes[i]);
    found |= ended && !told_[i];
    told_[i] = ended;
  }
  return found;
}

}  // namespace flowkeep
