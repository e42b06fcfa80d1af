// Zygotes: where workers come from.
//
// The zygote root is forked from the supervisor before anything heavy happens in it. For each
// revision of a chain the supervisor has it fork a zygote, which builds the revision once (rules
// parsed, patterns compiled) and then forks worker processes on demand; they share all of it
// copy-on-write.
//
// All of them are forked with CLONE_PARENT, so that each is a child of the supervisor, which alone
// waits for them. None of them is a DPDK process: a zygote runs a private EAL (no huge pages, no
// ports) only so that rte_acl can build its tables in it; workers use those tables read-only.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "dataplane/arena.h"
#include "state/pool.h"
#include "state/result.h"
#include "state/state_layout.h"

namespace flowkeep {

struct ZygoteMessage {
  enum Kind : uint32_t { kMakeZygote, kZygotePid, kBuilt, kRefused, kForkWorker, kWorkerPid };
  Kind kind{};
  uint32_t chain = 0;    // index in the arena
  uint32_t process = 0;  // kForkWorker, kWorkerPid: index in the arena
  uint32_t birth = 0;    // kForkWorker: WorkerProcess::births
  int32_t pid = 0;
  double build_ms = 0;  // kBuilt
  uint32_t scope = 0;   // kBuilt: Scope to steer by
  uint32_t external_count = 0;
  uint32_t external[kMaxExternalAddresses] = {};  // network order
  StateLayout layout;                             // kBuilt
  bool passes_untranslated = false;               // kBuilt
  uint32_t forward_count = 0;                     // kBuilt
  Forward forwards[kMostForwards] = {};
  char field[160] = {};  // kRefused
  char text[512] = {};
};

// SEQPACKET helpers; `fds` (at most 2) travel along. receive returns false when the peer is gone,
// or with errno EAGAIN when a socket that does not wait has nothing.
bool send_message(int socket, const ZygoteMessage& message, const int* fds = nullptr,
                  size_t fd_count = 0);
bool receive_message(int socket, ZygoteMessage& message, int* fds = nullptr, size_t fd_count = 0);

// The supervisor's side.
class ZygoteRoot {
 public:
  // Forks the root. Errors: fork or socketpair failed.
  static Result<ZygoteRoot> start(const Arena& arena, Pool& pool);
  int pid() const { return pid_; }
  void close_socket();  // it is dead
  // Asks for a zygote that builds the serialized ChainRevision. Returns the socket on which it will
  // report kBuilt or kRefused and take kForkWorker; `pid` is the zygote's.
  Result<int> make_zygote(uint32_t chain, const std::string& serialized_revision, pid_t& pid);

 private:
  int pid_ = 0;
  int socket_ = -1;
};

// Forks a sibling: the child's parent is the caller's parent. Returns as fork() does.
pid_t fork_sibling();
// In a child: die when the supervisor does; default signal handling; a name for ps.
void become(const char* name, pid_t supervisor);

}  // namespace flowkeep
