// How a process ended, and whether that was its own doing: a SIGKILL comes from outside, a SIGSEGV
// from its code. (One sent with kill(1) cannot be told from a real one.)
#pragma once

#include <csignal>
#include <string>

namespace flowkeep {

struct Ending {
  std::string text;  // "SIGSEGV", "exit status 1"
  bool own_fault = false;
};

std::string signal_text(int signal);  // "SIGSEGV"

// `left`: it was asked to leave and said that it does.
Ending ending_of(const siginfo_t& info, bool left);

}  // namespace flowkeep
