#include "state/pool_repair.h"
#include "state/tool/json.h"
#include "state/tool/pool_tool.h"

namespace flowkeep {

namespace {

void print_json(const RepairReport& report, const std::string& outcome, std::ostream& out) {
  std::vector<std::string> steps;
  for (const RepairStep& step : report.steps) {
    steps.push_back(JsonObject()
                        .add("kind", repair_kind_text(step.kind))
                        .add("where", step.where)
                        .add("what", step.what)
                        .text());
  }
  out << JsonObject()
             .add("outcome", outcome)
             .add("flows_kept", report.flows_kept)
             .add("flows_given_up", report.flows_given_up)
             .add_json("steps", json_list(steps))
             .text()
      << "\n";
}

void print_text(const RepairReport& report, const std::string& outcome, std::ostream& out) {
  for (const RepairStep& step : report.steps) {
    out << repair_kind_text(step.kind) << "  " << step.where << ": " << step.what << "\n";
  }
  out << outcome << ": " << report.flows_kept << " flows kept, " << report.flows_given_up
      << " given up\n";
}

}  // namespace

int run_repair(const PoolToolOptions& options, PoolImage& image, std::ostream& out,
               std::ostream& err) {
  if (image.in_use()) {
    err << "flowkeep-pool: " << image.path() << " is in use; stop the node, or repair a copy\n";
    return kPoolUnreadable;
  }
  const RepairReport report = repair(image);
  if (!report.remaining.clean()) {
    err << "flowkeep-pool: " << image.path()
        << ": the repair failed and was not written. Left over:\n";
    for (const Finding& finding : report.remaining.listed()) err << text_of(finding) << "\n";
    return kPoolUnreadable;
  }
  std::string outcome = "nothing to repair";
  if (report.changed() && options.dry_run) outcome = "would be repaired, nothing was written";
  if (report.changed() && !options.dry_run) {
    if (const auto written = image.write_back(options.in_place); !written) {
      err << "flowkeep-pool: " << written.error().text() << "\n";
      return kPoolUnreadable;
    }
    outcome = "repaired";
  }
  (options.json ? print_json : print_text)(report, outcome, out);
  return report.lost_anything() ? kPoolFindings : kPoolFine;
}

}  // namespace flowkeep
