#include "dataplane/supervisor/ending.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace flowkeep {
namespace {

constexpr std::array kFatal = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP};

}  // namespace

Ending ending_of(const siginfo_t& info, bool left) {
  if (info.si_code == CLD_EXITED)
    return {"exit status " + std::to_string(info.si_status), !left || info.si_status != 0};
  const char* name = sigabbrev_np(info.si_status);
  return {std::string("SIG") + (name == nullptr ? "?" : name),
          std::find(kFatal.begin(), kFatal.end(), info.si_status) != kFatal.end()};
}

}  // namespace flowkeep
