// Interrupts: Ctrl-C as something to act upon. While it lives, SIGINT reaches no handler; `acted`
// is called for the first one, `insisted` for the second, on a thread of its own.
//
// hold_interrupts() comes first, before there are other threads: they inherit the blocked signal.
#pragma once

#include <functional>
#include <thread>

namespace flowkeep {

// SIGINT waits until there is an Interrupts, in this thread and in those that it starts.
void hold_interrupts();

class Interrupts {
 public:
  Interrupts(std::function<void()> acted, std::function<void()> insisted);
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

 private:
  void wait(const std::function<void()>& acted, const std::function<void()>& insisted) const;

  int signal_fd_ = -1;
  int end_fd_ = -1;
  std::thread thread_;
};

}  // namespace flowkeep
