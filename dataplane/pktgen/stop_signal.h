// StopSignal: SIGINT and SIGTERM as something to ask for instead of something that interrupts.
#pragma once

#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>

namespace flowkeep::pktgen {

// Blocks both signals in this thread and in those that it starts later: make it first.
class StopSignal {
 public:
  StopSignal() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    descriptor_ = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
  }
  ~StopSignal() { close(descriptor_); }
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  // Was one sent since the last call? A system call: not for every packet.
  bool arrived() {
    signalfd_siginfo signal;
    return read(descriptor_, &signal, sizeof(signal)) == static_cast<ssize_t>(sizeof(signal));
  }

 private:
  int descriptor_;
};

}  // namespace flowkeep::pktgen
