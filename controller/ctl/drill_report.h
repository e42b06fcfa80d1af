// A drill's report as text for people: facts, percentiles, throughput around the failures, the
// worst injections, checks.
#pragma once

#include <ostream>

#include "controller/ctl/plot.h"
#include "flowkeep/v1/flowkeep.pb.h"

namespace flowkeep {

void print_drill_report(std::ostream& out, const v1::DrillReport& report, Characters characters);

}  // namespace flowkeep
