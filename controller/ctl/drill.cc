// flowkeepctl drill: runs a drill and prints its report (drill_report.cc).
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <random>
#include <sstream>

#include "controller/ctl/commands.h"
#include "controller/ctl/drill_report.h"
#include "controller/ctl/interrupts.h"
#include "controller/ctl/plot.h"
#include "controller/ctl/table.h"

namespace flowkeep {
namespace {

constexpr double kLineEvery_s = 10;  // of progress, where it cannot be overwritten

// One line, rewritten in place on a terminal.
class ProgressLine {
 public:
  explicit ProgressLine(std::ostream& err) : err_(err), in_place_(isatty(STDERR_FILENO) == 1) {}
  ~ProgressLine() {
    if (shown_ && in_place_) err_ << "\r\033[K" << std::flush;
  }

  void show(const v1::DrillProgress& progress) {
    if (progress.wanted() == 0) return;
    if (!in_place_ && progress.elapsed_s() < next_s_) return;
    next_s_ = progress.elapsed_s() + kLineEvery_s;
    shown_ = true;
    err_ << (in_place_ ? "\r\033[K" : "") << "  " << progress.injected() << " of "
         << progress.wanted() << " faults, " << number_text(progress.elapsed_s(), 0) << " s, "
         << rate_text(progress.forwarded_pps()) << " packets/s forwarded" << (in_place_ ? "" : "\n")
         << std::flush;
  }

 private:
  std::ostream& err_;
  bool in_place_;
  bool shown_ = false;
  double next_s_ = 0;
};

v1::RunDrillRequest request_of(const CommandLine& line) {
  v1::RunDrillRequest request;
  request.set_kind(line.word(0));
  request.set_chain(line.value("--chain"));
  request.set_node(line.value("--node"));
  request.set_at_step(line.value("--at-step"));
  request.set_count(line.number("--kills", line.number("--count", 0)));
  request.set_interval_ms(line.number("--interval-ms", 0));
  request.set_interval_us(line.number("--interval-ms", 0) * 1'000);
  if (line.has("--rate")) request.set_interval_us(1'000'000 / line.number("--rate", 1));
  std::istringstream victims(line.value("--victims"));
  for (std::string victim; std::getline(victims, victim, ',');) request.add_victims(victim);
  if (line.word(0) == "storm" || line.word(0) == "power-cut")
    request.set_seed(line.number("--seed", std::random_device()() | 1U));
  return request;
}

bool passed(const v1::DrillReport& report) {
  return std::all_of(report.checks().begin(), report.checks().end(),
                     [](const v1::DrillCheck& check) { return check.ok(); });
}

}  // namespace

int run_drill(const Session& session) {
  const v1::RunDrillRequest request = request_of(session.line);
  if (request.seed() != 0) session.err << "seed " << request.seed() << '\n';
  Result<v1::DrillReport> report = internal_error("", "the drill did not begin");
  {
    ProgressLine line(session.err);
    const Interrupts interrupts(
        [&session] {
          session.err << "\nEnding the drill; again Ctrl-C: without its report.\n";
          (void)session.connection.stop_drill();  // it may have ended meanwhile
        },
        [] { _exit(130); });
    report = session.connection.drill(
        request, [&line](const v1::DrillProgress& progress) { line.show(progress); });
  }
  if (!report) return report_failure(session.err, report.error());
  session.line.json() ? print_json(session.out, *report)
                      : print_drill_report(session.out, *report, terminal_characters());
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
