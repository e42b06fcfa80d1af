#include "state/tool/pool_tool.h"

namespace flowkeep {

int run_repair(const PoolToolOptions&, PoolImage&, std::ostream&, std::ostream& err) {
  err << "flowkeep-pool: repair: not there yet\n";
  return kPoolUnreadable;
}

}  // namespace flowkeep
