#include <iostream>

#include "state/tool/pool_tool.h"

int main(int argc, char** argv) {
  return flowkeep::run_pool_tool({argv + 1, argv + argc}, std::cout, std::cerr);
}
