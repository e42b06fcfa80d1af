// WorkerSandbox: a worker may sleep on a futex and end; any other system call kills it.
#include "dataplane/sandbox.h"

#include <gtest/gtest.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

namespace flowkeep {
namespace {

// How a child ends that does `action` in the sandbox.
template <typename Action>
int status_of(const WorkerSandbox& sandbox, Action&& action) {
  const pid_t pid = fork();
  if (pid == 0) {
    sandbox.enter();
    action();
    _exit(0);
  }
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return status;
}

TEST(WorkerSandbox, AllowsToSleepAndToEnd) {
  const Result<WorkerSandbox> sandbox = WorkerSandbox::compile();
  ASSERT_TRUE(sandbox.ok());
  const int status = status_of(*sandbox, [] {
    uint32_t word = 1;
    syscall(SYS_futex, &word, FUTEX_WAIT, 0, nullptr, nullptr, 0);
  });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST(WorkerSandbox, KillsForAnyOtherSystemCall) {
  const Result<WorkerSandbox> sandbox = WorkerSandbox::compile();
  ASSERT_TRUE(sandbox.ok());
  for (const long call : {SYS_getpid, SYS_write, SYS_mmap, SYS_openat, SYS_socket, SYS_clone}) {
    const int status = status_of(*sandbox, [call] { syscall(call, -1, nullptr, 0); });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << call << ": " << status;
  }
}

}  // namespace
}  // namespace flowkeep
