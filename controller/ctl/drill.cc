// flowkeepctl drill: runs a drill and prints its report.
#include <algorithm>
#include <fstream>
#include <sstream>

#include "controller/ctl/commands.h"
#include "controller/ctl/table.h"

namespace flowkeep {
namespace {

std::string percentiles(const v1::DrillReport& report, double p50, double p99,
                        const char* otherwise) {
  if (p50 < 0 || report.injections().empty()) return otherwise;
  if (report.injections_size() == 1) return microseconds_text(p50);
  return microseconds_text(p50) + " median, " + microseconds_text(p99) + " at the 99th percentile";
}

void print_fact(std::ostream& out, const std::string& name, const std::string& value) {
  constexpr size_t kWidth = 26;
  out << "  " << name << std::string(kWidth > name.size() ? kWidth - name.size() : 1, ' ') << value
      << '\n';
}

void print_injections(std::ostream& out, const v1::DrillReport& report) {
  constexpr int kShown = 20;
  if (report.injections().empty()) return;
  out << '\n';
  Table table(
      {">VICTIM", ">REPLACEMENT", ">DETECTED", ">TAKEN-OVER", ">FIRST-PACKET", ">WAITED", "BURST"});
  for (int i = 0; i < std::min(kShown, report.injections_size()); ++i) {
    const v1::DrillInjection& injection = report.injections(i);
    table.add({std::to_string(injection.victim_pid()), std::to_string(injection.replacement_pid()),
               microseconds_text(injection.detect_us()), microseconds_text(injection.takeover_us()),
               microseconds_text(injection.first_packet_us()),
               std::to_string(injection.inbox_packets()),
               injection.burst_redone() ? "redone" : "-"});
  }
  table.print(out);
  if (report.injections_size() > kShown)
    out << "  and " << report.injections_size() - kShown << " more\n";
}

void print_report(std::ostream& out, const v1::DrillReport& report) {
  const bool is_node = report.kind() == "kill-node";
  out << "Drill " << report.kind() << (report.chain().empty() ? "" : " on chain " + report.chain())
      << '\n';
  print_fact(out, "what failed", report.what_failed());
  print_fact(out, "injections", std::to_string(report.injections_size()));
  print_fact(out, "detected after",
             percentiles(report, report.detect_us_p50(), report.detect_us_p99(), "not detected"));
  print_fact(out, "first packet after",
             percentiles(report, report.first_packet_us_p50(), report.first_packet_us_p99(),
                         "no packet came"));
  if (is_node && !report.injections().empty()) {
    print_fact(out, "node back after", microseconds_text(report.injections(0).takeover_us()));
  }
  if (!is_node) print_fact(out, "packets lost", std::to_string(report.packets_lost()));
  print_fact(out, "flows",
             std::to_string(report.flows_resumed()) + " of " +
                 std::to_string(report.flows_before()) + " resumed");
  print_fact(out, "state", report.state_verified() ? "verified" : "NOT VERIFIED");
  print_injections(out, report);
  out << '\n';
  Table checks({"CHECK", "RESULT", ">MEASURED", ">REQUIRED", "UNIT"});
  for (const v1::DrillCheck& check : report.checks()) {
    const auto number = [](double value) {
      return number_text(value, value == static_cast<double>(static_cast<int64_t>(value)) ? 0 : 3);
    };
    checks.add({check.name(), check.ok() ? "ok" : "FAILED", number(check.measured()),
                number(check.required()), check.unit()});
  }
  checks.print(out);
}

bool passed(const v1::DrillReport& report) {
  return std::all_of(report.checks().begin(), report.checks().end(),
                     [](const v1::DrillCheck& check) { return check.ok(); });
}

}  // namespace

int run_drill(const Session& session) {
  v1::RunDrillRequest request;
  request.set_kind(session.line.word(0));
  request.set_chain(session.line.value("--chain"));
  request.set_node(session.line.value("--node"));
  request.set_count(session.line.number("--count", 0));
  request.set_interval_ms(session.line.number("--interval-ms", 0));
  request.set_at_step(session.line.value("--at-step"));
  const auto report = session.connection.drill(request);
  if (!report) return report_failure(session.err, report.error());
  session.line.json() ? print_json(session.out, *report) : print_report(session.out, *report);
  if (session.line.has("--json")) {
    std::ofstream file(session.line.value("--json"));
    print_json(file, *report);
    file.close();
    if (!file)
      return report_failure(session.err,
                            internal_error(session.line.value("--json"), "cannot be written"));
  }
  return passed(*report) ? kExitOk : kExitCheckFailed;
}

}  // namespace flowkeep
