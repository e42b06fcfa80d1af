// flowkeep-pktgen: see docs/pktgen.md.
#include <cstdio>
#include <string>
#include <vector>

#include "dataplane/pktgen/measurement.h"

namespace flowkeep::pktgen {
namespace {

enum ExitStatus { kMeasured = 0, kFailed = 1, kUsage = 2, kNotLossless = 3 };

int fail(const Error& error, int status) {
  std::fprintf(stderr, "flowkeep-pktgen: %s\n", error.text().c_str());
  return status;
}

bool write_file(const std::string& path, const std::string& text) {
  FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) return false;
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  return std::fclose(file) == 0 && written;
}

Result<Report> measure(const Options& options) {
  StopSignal stop;
  std::vector<std::string> devices = {options.tx_device};
  if (!options.single_port()) devices.push_back(options.rx_device);
  auto eal = Eal::start(devices, options.threads, options.cores);
  if (!eal.ok()) return eal.error();
  return Measurement(options, **eal, stop).run();
}

int deliver(const Options& options, const Report& report) {
  const bool json_to_stdout = options.json_path == "-";
  std::fputs(to_table(report).c_str(), json_to_stdout ? stderr : stdout);
  if (json_to_stdout) {
    std::fputs(to_json(report).c_str(), stdout);
  } else if (!options.json_path.empty() && !write_file(options.json_path, to_json(report))) {
    return fail(unavailable("--json", "\"" + options.json_path + "\" cannot be written"), kFailed);
  }
  return options.require_lossless && !report.lossless() ? kNotLossless : kMeasured;
}

int run(const std::vector<std::string>& arguments) {
  const auto options = parse_options(arguments);
  if (!options.ok()) return fail(options.error(), kUsage);
  if (options->help) {
    std::fputs(usage(), stdout);
    return kMeasured;
  }
  if (!options->size_note.empty()) std::fprintf(stderr, "%s\n", options->size_note.c_str());
  const auto report = measure(*options);
  return report.ok() ? deliver(*options, *report) : fail(report.error(), kFailed);
}

}  // namespace
}  // namespace flowkeep::pktgen

int main(int argc, char** argv) {
  return flowkeep::pktgen::run(std::vector<std::string>(argv + 1, argv + argc));
}
