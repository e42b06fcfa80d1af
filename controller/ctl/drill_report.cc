#include "controller/ctl/drill_report.h"

#include <algorithm>
#include <string>
#include <vector>

#include "controller/ctl/table.h"

namespace flowkeep {
namespace {

constexpr int kInjectionsShown = 10;
constexpr size_t kPlotLines = 4;
constexpr size_t kLabelWidth = 11;

void print_fact(std::ostream& out, const std::string& name, const std::string& value) {
  constexpr size_t kWidth = 20;
  out << "  " << name << std::string(kWidth > name.size() ? kWidth - name.size() : 1, ' ') << value
      << '\n';
}

std::string count_text(uint64_t count, const char* what) {
  return std::to_string(count) + " " + what;
}

std::string medium_text(const v1::DrillReport& report) {
  if (report.medium().empty()) return "unknown";
  return report.medium() + ": survives " + report.medium_survives() +
         (report.emulated() ? "; flushes are emulated" : "");
}

bool fails_node(const v1::DrillReport& report) {
  return report.kind() == "kill-node" || report.kind() == "power-cut";
}

void print_faults(std::ostream& out, const v1::DrillReport& report) {
  std::string faults = std::to_string(report.kills());
  if (report.standby_kills() > 0) faults += ", " + count_text(report.standby_kills(), "standbys");
  if (report.successor_kills() > 0)
    faults += ", " + count_text(report.successor_kills(), "workers that had just taken over");
  print_fact(out, "faults",
             faults + " in " + number_text(report.duration_s(), 1) + " s" +
                 (report.stopped() ? ", ended on request" : ""));
  if (report.seed() != 0) print_fact(out, "seed", std::to_string(report.seed()));
  print_fact(out, "bursts",
             count_text(report.bursts_redone(), "redone, ") +
                 count_text(report.bursts_completed(), "completed, ") +
                 count_text(report.bursts_none(), "between bursts"));
}

void print_facts(std::ostream& out, const v1::DrillReport& report) {
  const bool is_node = fails_node(report);
  print_fact(out, "what failed", report.what_failed());
  if (!is_node) print_faults(out, report);
  if (!is_node) print_fact(out, "packets lost", std::to_string(report.packets_lost()));
  print_fact(out, "flows",
             std::to_string(report.flows_resumed()) + " of " +
                 std::to_string(report.flows_before()) + " with the same mapping");
  if (report.kind() == "power-cut") {
    print_fact(out, "seed", std::to_string(report.seed()));
    print_fact(out, "words lost",
               std::to_string(report.words_lost()) + " of " +
                   std::to_string(report.words_at_risk()) + " that no fence covered");
  }
  print_fact(out, "state", report.state_verified() ? "verified" : "NOT VERIFIED");
  if (report.buffers_total() > 0)
    print_fact(out, "packet buffers",
               std::to_string(report.buffers_total()) + ", " +
                   std::to_string(report.buffers_missing()) + " neither free nor in a ring");
  print_fact(out, "state pool", medium_text(report));
}

void print_percentiles(std::ostream& out, const v1::DrillReport& report) {
  Table table({"AFTER THE FAULT", ">COUNT", ">P50", ">P90", ">P99", ">P99.9", ">MAX"});
  const auto add = [&](const char* name, const v1::DrillPercentiles& figures) {
    table.add({name, std::to_string(figures.count()), microseconds_text(figures.p50()),
               microseconds_text(figures.p90()), microseconds_text(figures.p99()),
               microseconds_text(figures.p999()), microseconds_text(figures.max())});
  };
  add("detected", report.detect_us());
  add(fails_node(report) ? "node back" : "taken over", report.takeover_us());
  add("first packet", report.first_packet_us());
  out << '\n';
  table.print(out);
}

void print_chains(std::ostream& out, const v1::DrillReport& report) {
  if (report.chains_size() < 2) return;
  Table table({"CHAIN", ">FAULTS", ">FLOWS", ">SAME MAPPING", ">OTHER MAPPING", ">LOST", "STATE"});
  for (const v1::DrillChain& chain : report.chains()) {
    table.add({chain.chain(), std::to_string(chain.kills()), std::to_string(chain.flows_before()),
               std::to_string(chain.flows_resumed()), std::to_string(chain.flows_changed()),
               std::to_string(chain.packets_lost()), chain.state()});
  }
  out << '\n';
  table.print(out);
}

std::string padded(const std::string& text) {
  return std::string(kLabelWidth > text.size() ? kLabelWidth - text.size() : 0, ' ') + text;
}

double greatest(const std::vector<double>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

void print_plot(std::ostream& out, const std::string& title, const std::vector<double>& values,
                double top, Characters characters) {
  if (greatest(values) <= 0) {
    out << "  " << title << ": none\n";
    return;
  }
  out << "  " << title << '\n';
  const std::vector<std::string> lines = plot_columns(values, top, kPlotLines, characters);
  for (size_t i = 0; i < lines.size(); ++i) {
    std::string line = padded(i == 0 ? rate_text(top) : "") + " |" + lines[i];
    line.erase(line.find_last_not_of(' ') + 1);
    out << line << '\n';
  }
  out << padded("0") << " +" << std::string(values.size(), '-') << '\n';
}

// Marks under the columns, each at its place.
void print_marks(std::ostream& out, const std::vector<std::pair<size_t, std::string>>& marks) {
  std::string line(kLabelWidth + 2, ' ');
  for (const auto& [column, text] : marks) {
    line.resize(std::max(line.size(), kLabelWidth + 2 + column), ' ');
    line += text;
  }
  out << line << '\n';
}

template <typename Repeated>
std::vector<double> values_of(const Repeated& repeated) {
  return {repeated.begin(), repeated.end()};
}

void print_around_faults(std::ostream& out, const v1::DrillTimeline& timeline,
                         Characters characters) {
  const std::vector<double> mean = values_of(timeline.mean_pps());
  const std::vector<double> median = values_of(timeline.median_pps());
  const std::vector<double> worst = values_of(timeline.worst_pps());
  const double top = std::max(greatest(mean), greatest(median));
  if (top <= 0) return;
  const auto zero = static_cast<size_t>(-timeline.first_ms() / timeline.bin_ms());
  const double end_ms =
      timeline.first_ms() + timeline.bin_ms() * static_cast<double>(median.size());
  const std::vector<std::pair<size_t, std::string>> marks = {
      {0, number_text(timeline.first_ms(), 0) + " ms"},
      {zero, "^ fault"},
      {median.size() - 6, "+" + number_text(end_ms, 0) + " ms"}};
  out << "\nPackets forwarded each second, in bins of " << number_text(timeline.bin_ms(), 0)
      << " ms\n";
  print_plot(out, "around a fault, mean", mean, top, characters);
  print_plot(out, "around a fault, median", median, top, characters);
  print_plot(out, "around a fault, the worst of all in each bin", worst, top, characters);
  print_marks(out, marks);
}

void print_timeline(std::ostream& out, const v1::DrillReport& report, Characters characters) {
  const v1::DrillTimeline& timeline = report.timeline();
  print_around_faults(out, timeline, characters);
  const std::vector<double> run = values_of(timeline.run_pps());
  if (greatest(run) <= 0) return;
  print_plot(out, "over the drill, each column " + number_text(timeline.run_bin_ms(), 0) + " ms",
             run, greatest(run), characters);
  print_plot(out, "over the drill, the worst millisecond of each column",
             values_of(timeline.run_worst_pps()), greatest(run), characters);
}

void print_injections(std::ostream& out, const v1::DrillReport& report) {
  if (report.injections().empty()) return;
  const bool worst = report.kind() == "storm";
  out << '\n' << (worst ? "The worst\n" : "");
  Table table({">AT", "VICTIM", "CHAIN", ">SLOT", ">PID", ">REPLACEMENT", ">DETECTED",
               ">TAKEN-OVER", ">FIRST-PACKET", ">WAITED", "BURST"});
  for (int i = 0; i < std::min(kInjectionsShown, report.injections_size()); ++i) {
    const v1::DrillInjection& injection = report.injections(i);
    table.add({number_text(injection.at_s(), 3) + " s", injection.victim(), injection.chain(),
               injection.slot() < 0 ? "-" : std::to_string(injection.slot()),
               std::to_string(injection.victim_pid()),
               injection.replacement_pid() == 0 ? "-" : std::to_string(injection.replacement_pid()),
               microseconds_text(injection.detect_us()), microseconds_text(injection.takeover_us()),
               microseconds_text(injection.first_packet_us()),
               std::to_string(injection.inbox_packets()), injection.burst()});
  }
  table.print(out);
  if (report.injections_size() > kInjectionsShown)
    out << "  and " << report.injections_size() - kInjectionsShown << " more\n";
}

void print_checks(std::ostream& out, const v1::DrillReport& report) {
  const auto number = [](double value) {
    return number_text(value, value == static_cast<double>(static_cast<int64_t>(value)) ? 0 : 3);
  };
  Table checks({"CHECK", "RESULT", ">MEASURED", ">REQUIRED", "UNIT"});
  for (const v1::DrillCheck& check : report.checks()) {
    checks.add({check.name(), check.ok() ? "ok" : "FAILED", number(check.measured()),
                number(check.required()), check.unit()});
  }
  out << '\n';
  checks.print(out);
}

}  // namespace

void print_drill_report(std::ostream& out, const v1::DrillReport& report, Characters characters) {
  out << "Drill " << report.kind() << (report.chain().empty() ? "" : " on chain " + report.chain())
      << '\n';
  print_facts(out, report);
  print_percentiles(out, report);
  print_chains(out, report);
  print_timeline(out, report, characters);
  if (!fails_node(report)) print_injections(out, report);
  print_checks(out, report);
}

}  // namespace flowkeep
