#include "dataplane/zygote.h"

#include <fcntl.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <memory>

#include "dataplane/acl_classifier.h"
#include "dataplane/chain_revision.h"
#include "dataplane/sandbox.h"
#include "dataplane/worker.h"
#include "dataplane/worker_end.h"
#include "nfs/chain.h"
#include "state/persistence.h"

namespace flowkeep {
namespace {

constexpr time_t kRootPatienceS = 2;  // a root that does not fork in that time is as good as dead

void copy_text(char* target, size_t bytes, const std::string& text) {
  const size_t length = std::min(text.size(), bytes - 1);
  std::memcpy(target, text.data(), length);
  target[length] = '\0';
}

std::string read_all(int fd) {
  struct stat status {};
  fstat(fd, &status);
  std::string text(static_cast<size_t>(status.st_size), '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t got = pread(fd, text.data() + done, text.size() - done, static_cast<off_t>(done));
    if (got <= 0) break;
    done += static_cast<size_t>(got);
  }
  text.resize(done);
  return text;
}

// The child side of kForkWorker: never returns.
[[noreturn]] void worker_main(const Arena& arena, Pool& pool, const Chain& chain,
                              uint32_t chain_index, uint32_t process, uint32_t birth,
                              const WorkerSandbox& sandbox) {
  become("flowkeep-worker", static_cast<pid_t>(arena.header().supervisor_pid.load()));
  syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0);
  pool.persistence().used_by(process);
  WorkerProcess& entry = arena.header().processes[process];
  if (entry.births.load() != birth) _exit(0);  // nobody waits for it any more
  WorkerEnd end;
  end.announce(arena.header(), entry);
  Worker worker(arena, pool, chain, process, chain_index);
  if (entry.births.load() != birth) _exit(0);  // else the worker has seen the same
  worker.prepare();
  sandbox.enter();
  worker.run();
  entry.state.store(ProcessState::kLeft);
  _exit(0);  // before ~Worker, whose munmap() the sandbox would not forgive
}

[[noreturn]] void zygote_main(const Arena& arena, Pool& pool, uint32_t chain_index, int config,
                              int socket) {
  become("flowkeep-zygote", static_cast<pid_t>(arena.header().supervisor_pid.load()));
  const auto begin = std::chrono::steady_clock::now();
  ZygoteMessage answer;
  answer.chain = chain_index;

  const auto refuse = [&](const Error& error) {
    answer.kind = ZygoteMessage::kRefused;
    copy_text(answer.field, sizeof(answer.field), error.field);
    copy_text(answer.text, sizeof(answer.text), error.message);
    send_message(socket, answer);
    _exit(0);
  };
  Result<ChainSpec> spec = chain_spec_from_bytes(read_all(config));
  close(config);
  if (!spec) refuse(spec.error());
  FunctionContext context;
  context.make_classifier = [] { return std::make_unique<AclClassifier>(); };
  Result<std::unique_ptr<Chain>> chain = Chain::build(*spec, context);
  if (!chain) refuse(chain.error());
  protect_acl_tables();
  Result<WorkerSandbox> sandbox = WorkerSandbox::compile();
  if (!sandbox) refuse(sandbox.error());

  answer.kind = ZygoteMessage::kBuilt;
  answer.build_ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  answer.scope = static_cast<uint32_t>((*chain)->steering_scope());
  for (Be32 address : (*chain)->external_addresses())
    answer.external[answer.external_count++] = address.raw;
  answer.passes_untranslated = (*chain)->passes_untranslated();
  answer.layout = (*chain)->state_layout();
  for (const Forward& forward : (*chain)->forwards())
    answer.forwards[answer.forward_count++] = forward;
  send_message(socket, answer);

  for (ZygoteMessage request; receive_message(socket, request);) {
    if (request.kind != ZygoteMessage::kForkWorker) continue;
    const pid_t pid = fork_sibling();
    if (pid == 0) {
      close(socket);
      worker_main(arena, pool, **chain, chain_index, request.process, request.birth, *sandbox);
    }
    request.kind = ZygoteMessage::kWorkerPid;
    request.pid = pid;
    send_message(socket, request);
  }
  _exit(0);
}

[[noreturn]] void root_main(const Arena& arena, Pool& pool, int socket) {
  become("flowkeep-root", static_cast<pid_t>(arena.header().supervisor_pid.load()));
  int fds[2] = {-1, -1};
  for (ZygoteMessage request; receive_message(socket, request, fds, 2);) {
    const pid_t pid = fork_sibling();
    if (pid == 0) {
      close(socket);
      zygote_main(arena, pool, request.chain, fds[0], fds[1]);
    }
    close(fds[0]);
    close(fds[1]);
    request.kind = ZygoteMessage::kZygotePid;
    request.pid = pid;
    send_message(socket, request);
  }
  _exit(0);
}

}  // namespace

bool send_message(int socket, const ZygoteMessage& message, const int* fds, size_t fd_count) {
  iovec part{const_cast<ZygoteMessage*>(&message), sizeof(message)};
  alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (fd_count > 0) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
    std::memcpy(CMSG_DATA(rights), fds, fd_count * sizeof(int));
  }
  return sendmsg(socket, &header, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof(message));
}

bool receive_message(int socket, ZygoteMessage& message, int* fds, size_t fd_count) {
  iovec part{&message, sizeof(message)};
  alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  ssize_t got = 0;
  errno = 0;
  do {
    got = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got != static_cast<ssize_t>(sizeof(message))) return false;
  const cmsghdr* rights = CMSG_FIRSTHDR(&header);
  if (rights != nullptr && fds != nullptr) {
    const size_t bytes = std::min(rights->cmsg_len - CMSG_LEN(0), fd_count * sizeof(int));
    std::memcpy(fds, CMSG_DATA(rights), bytes);
  }
  return true;
}

pid_t fork_sibling() {
  return static_cast<pid_t>(
      syscall(SYS_clone, CLONE_PARENT | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
}

void become(const char* name, pid_t supervisor) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != supervisor) _exit(0);  // it died before we asked to be told
  prctl(PR_SET_NAME, name);
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  for (const int signal_number : {SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGPIPE})
    signal(signal_number, SIG_DFL);
  signal(SIGINT, SIG_IGN);  // Ctrl-C reaches the whole process group; the supervisor decides
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

Result<ZygoteRoot> ZygoteRoot::start(const Arena& arena, Pool& pool) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return internal_error("zygote root", std::string("socketpair: ") + std::strerror(errno));
  }
  const pid_t pid = fork();
  if (pid < 0) return internal_error("zygote root", std::string("fork: ") + std::strerror(errno));
  if (pid == 0) {
    close(ends[0]);
    root_main(arena, pool, ends[1]);
  }
  close(ends[1]);
  const timeval patience{kRootPatienceS, 0};
  setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  ZygoteRoot root;
  root.pid_ = pid;
  root.socket_ = ends[0];
  return root;
}

void ZygoteRoot::close_socket() {
  close(socket_);
  socket_ = -1;
}

Result<int> ZygoteRoot::make_zygote(uint32_t chain, const std::string& serialized_revision,
                                    pid_t& pid) {
  const int config = memfd_create("flowkeep-revision", MFD_CLOEXEC);
  int ends[2] = {-1, -1};
  const bool written =
      config >= 0 && write(config, serialized_revision.data(), serialized_revision.size()) ==
                         static_cast<ssize_t>(serialized_revision.size());
  if (!written || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    if (config >= 0) close(config);
    return internal_error("zygote",
                          std::string("cannot hand over the revision: ") + std::strerror(errno));
  }
  ZygoteMessage request;
  request.kind = ZygoteMessage::kMakeZygote;
  request.chain = chain;
  fcntl(ends[0], F_SETFL, O_NONBLOCK);  // the supervisor waits for nobody
  const int fds[2] = {config, ends[1]};
  const bool answered = send_message(socket_, request, fds, 2) && receive_message(socket_, request);
  close(config);
  close(ends[1]);
  if (!answered || request.pid < 0) {
    close(ends[0]);
    kill(pid_,
         SIGKILL);  // its late answer would be taken for the next one's; its death brings another
    return unavailable("zygote root", "did not fork a zygote");
  }
  pid = request.pid;
  return ends[0];
}

}  // namespace flowkeep
