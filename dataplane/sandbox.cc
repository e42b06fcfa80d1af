#include "dataplane/sandbox.h"

#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>

namespace flowkeep {

Result<WorkerSandbox> WorkerSandbox::compile() {
  scmp_filter_ctx context = seccomp_init(SCMP_ACT_TRAP);
  if (context == nullptr) return internal_error("worker sandbox", "seccomp_init failed");
  int failed = 0;
  for (const int allowed : {SCMP_SYS(futex), SCMP_SYS(exit_group), SCMP_SYS(exit),
                            SCMP_SYS(rt_sigreturn), SCMP_SYS(restart_syscall)}) {
    failed |= seccomp_rule_add(context, SCMP_ACT_ALLOW, allowed, 0);
  }
  // A standby maps pages that have come into use: it could as well touch them.
  const scmp_arg_cmp populate = SCMP_A2(SCMP_CMP_EQ, MADV_POPULATE_READ, 0);
  failed |= seccomp_rule_add_array(context, SCMP_ACT_ALLOW, SCMP_SYS(madvise), 1, &populate);
  // A worker that has taken over goes down to the normal priority.
  const scmp_arg_cmp normal[] = {SCMP_A0(SCMP_CMP_EQ, 0, 0), SCMP_A1(SCMP_CMP_EQ, SCHED_OTHER, 0)};
  failed |=
      seccomp_rule_add_array(context, SCMP_ACT_ALLOW, SCMP_SYS(sched_setscheduler), 2, normal);
  const int file = memfd_create("flowkeep-seccomp", MFD_CLOEXEC);
  WorkerSandbox sandbox;
  if (failed == 0 && file >= 0 && seccomp_export_bpf(context, file) == 0) {
    const off_t bytes = lseek(file, 0, SEEK_END);
    sandbox.filter_.resize(static_cast<size_t>(bytes) / sizeof(sock_filter));
    if (pread(file, sandbox.filter_.data(), static_cast<size_t>(bytes), 0) != bytes)
      sandbox.filter_.clear();
  }
  if (file >= 0) close(file);
  seccomp_release(context);
  if (sandbox.filter_.empty())
    return internal_error("worker sandbox", "the seccomp filter cannot be compiled");
  return sandbox;
}

void WorkerSandbox::enter() const {
  const sock_fprog program{static_cast<unsigned short>(filter_.size()),
                           const_cast<sock_filter*>(filter_.data())};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    std::perror("flowkeep-worker: seccomp");
    _exit(1);
  }
}

}  // namespace flowkeep
