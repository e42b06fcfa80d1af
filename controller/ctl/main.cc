// flowkeepctl: the command line of the controller.
#include <clocale>
#include <cstdlib>
#include <iostream>

#include "controller/ctl/commands.h"

int main(int argc, char** argv) {
  std::setlocale(LC_CTYPE, "");           // plots are drawn in the terminal's characters
  ::setenv("GRPC_VERBOSITY", "NONE", 0);  // its errors reach the user as ours
  const char* controller = std::getenv("FLOWKEEP_CONTROLLER");
  return flowkeep::run_flowkeepctl({argv + 1, argv + argc}, controller == nullptr ? "" : controller,
                                   std::cin, std::cout, std::cerr);
}
