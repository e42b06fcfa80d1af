#include "dataplane/worker_end.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>

namespace flowkeep {
namespace {

// A signal handler has no other way to its process's entry.
std::atomic<uint32_t>* noted_signal = nullptr;

void note_and_exit(int number) {
  noted_signal->store(static_cast<uint32_t>(number), std::memory_order_release);
  _exit(128 + number);
}

}  // namespace

void WorkerEnd::announce(ArenaHeader& header, WorkerProcess& process) {
  note_fatal_signals(process);
  list_.list.next = &entry_;
  entry_.next = &list_.list;
  list_.futex_offset = static_cast<long>(reinterpret_cast<intptr_t>(&process.life) -
                                         reinterpret_cast<intptr_t>(&entry_));
  list_.list_op_pending = nullptr;
  process.pid.store(static_cast<int32_t>(getpid()));
  process.life.store(static_cast<uint32_t>(syscall(SYS_gettid)) | FUTEX_WAITERS,
                     std::memory_order_release);
  syscall(SYS_set_robust_list, &list_, sizeof(list_));
  header.lives_changed.fetch_add(1, std::memory_order_release);
  futex_wake(header.lives_changed);
}

void WorkerEnd::note_fatal_signals(WorkerProcess& process) {
  noted_signal = &process.fatal_signal;
  stack_t stack{};
  stack.ss_sp = signal_stack_.data();
  stack.ss_size = signal_stack_.size();
  sigaltstack(&stack, nullptr);
  struct sigaction action {};
  action.sa_handler = note_and_exit;
  action.sa_flags = static_cast<int>(SA_ONSTACK | SA_RESETHAND);
  for (const int number : kFatalSignals) sigaction(number, &action, nullptr);
}

}  // namespace flowkeep
