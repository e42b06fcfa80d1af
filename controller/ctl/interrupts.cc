#include "controller/ctl/interrupts.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>

namespace flowkeep {
namespace {

sigset_t interrupt_alone() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

void hold_interrupts() {
  const sigset_t set = interrupt_alone();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

Interrupts::Interrupts(std::function<void()> acted, std::function<void()> insisted) {
  hold_interrupts();
  const sigset_t set = interrupt_alone();
  signal_fd_ = signalfd(-1, &set, SFD_CLOEXEC);
  end_fd_ = eventfd(0, EFD_CLOEXEC);
  thread_ = std::thread(
      [this, acted = std::move(acted), insisted = std::move(insisted)] { wait(acted, insisted); });
}

Interrupts::~Interrupts() {
  const uint64_t one = 1;
  if (write(end_fd_, &one, sizeof(one)) == sizeof(one)) thread_.join();
  close(signal_fd_);
  close(end_fd_);
  const sigset_t set = interrupt_alone();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void Interrupts::wait(const std::function<void()>& acted,
                      const std::function<void()>& insisted) const {
  for (int count = 0;;) {
    pollfd waited[2] = {{signal_fd_, POLLIN, 0}, {end_fd_, POLLIN, 0}};
    if (poll(waited, 2, -1) < 0) continue;
    if (waited[1].revents != 0) return;
    signalfd_siginfo signal{};
    if (read(signal_fd_, &signal, sizeof(signal)) != sizeof(signal)) return;
    ++count == 1 ? acted() : insisted();
  }
}

}  // namespace flowkeep
