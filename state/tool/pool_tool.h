// flowkeep-pool: looks at a state pool's file, checks it, lists its flows and repairs it.
// Everything goes through the streams, so that tests can read it.
#pragma once

#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "state/pool_findings.h"
#include "state/pool_image.h"
#include "state/result.h"

namespace flowkeep {

enum PoolToolExit : int {
  kPoolFine = 0,
  kPoolFindings = 1,    // check: something is wrong. repair: something was given up
  kPoolUnreadable = 2,  // wrong usage, or nothing that can be read as a pool
};

struct PoolToolOptions {
  std::string command;
  std::string path;
  bool json = false;
  bool dry_run = false;
  bool in_place = false;
  std::string chain;   // dump: of this chain only
  std::string filter;  // dump: FlowFilter
};
Result<PoolToolOptions> parse_pool_tool_options(const std::vector<std::string>& arguments);

// The whole program: returns its exit code.
int run_pool_tool(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err);

// One for each command; print what they find.
int run_info(const PoolToolOptions& options, PoolImage& image, std::ostream& out);
int run_check(const PoolToolOptions& options, PoolImage& image, std::ostream& out,
              std::ostream& err);
int run_dump(const PoolToolOptions& options, PoolImage& image, std::ostream& out,
             std::ostream& err);
int run_repair(const PoolToolOptions& options, PoolImage& image, std::ostream& out,
               std::ostream& err);

std::string json_of(const Finding& finding);
std::string text_of(const Finding& finding);

}  // namespace flowkeep
