#include "state/tool/pool_tool.h"

#include <algorithm>
#include <array>

#include "state/tool/json.h"

namespace flowkeep {

namespace {

constexpr const char* kUsage = R"(usage: flowkeep-pool COMMAND [OPTIONS] PATH

  info PATH     what kind of pool it is, what its medium survives, and what it holds
  check PATH    looks at every byte that means something; status 0: nothing wrong, 1: findings
  dump PATH     its flows
  repair PATH   completes what a crash left, drops what cannot be trusted, rebuilds the rest, and
                says what it gave up; status 0: no flow was given up, 1: some were

  --json             for programs; dump prints one object a line
  --chain NAME       dump: the flows of one chain
  --filter "TERMS"   dump: proto=, src=, dst=, sport=, dport=, external=, phase=, bucket=; all must hold
  --dry-run          repair: says what it would do, and changes nothing
  --in-place         repair: writes into the file itself instead of into a new one that takes its place

info, check and dump read, and work beside a running node and on a copy; there, check may report what
a burst is changing at that moment. repair refuses a pool that a node holds. Status 2: wrong usage,
or nothing that can be read as a pool.
)";

constexpr std::array<std::string_view, 4> kCommands = {"info", "check", "dump", "repair"};

struct Option {
  std::string_view name;
  std::string_view command;  // empty: any
  bool has_value;
};
constexpr std::array<Option, 5> kOptions = {{{"--json", "", false},
                                             {"--chain", "dump", true},
                                             {"--filter", "dump", true},
                                             {"--dry-run", "repair", false},
                                             {"--in-place", "repair", false}}};

void set_option(PoolToolOptions& options, std::string_view name, const std::string& value) {
  if (name == "--json") options.json = true;
  if (name == "--chain") options.chain = value;
  if (name == "--filter") options.filter = value;
  if (name == "--dry-run") options.dry_run = true;
  if (name == "--in-place") options.in_place = true;
}

}  // namespace

Result<PoolToolOptions> parse_pool_tool_options(const std::vector<std::string>& arguments) {
  if (arguments.empty()) {
    return invalid("command", "is missing; accepted: info, check, dump, repair");
  }
  PoolToolOptions options;
  options.command = arguments[0];
  if (std::ranges::find(kCommands, options.command) == kCommands.end()) {
    return invalid("command", "\"" + options.command +
                                  "\" is not understood; accepted: info, check, dump, repair");
  }
  for (size_t i = 1; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (!argument.starts_with("-")) {
      if (!options.path.empty()) {
        return invalid("PATH", "\"" + argument + "\" is one too many; accepted: one pool's file");
      }
      options.path = argument;
      continue;
    }
    const auto* option = std::ranges::find(kOptions, argument, &Option::name);
    if (option == kOptions.end()) {
      return invalid(argument, "is no option; `flowkeep-pool help` lists them");
    }
    if (!option->command.empty() && option->command != options.command) {
      return invalid(argument, "is an option of " + std::string(option->command));
    }
    if (option->has_value && i + 1 == arguments.size()) {
      return invalid(argument, "needs a value after it");
    }
    set_option(options, option->name, option->has_value ? arguments[++i] : "");
  }
  if (options.path.empty()) return invalid("PATH", "is missing; accepted: a pool's file");
  return options;
}

int run_pool_tool(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err) {
  if (!arguments.empty() && (arguments[0] == "help" || arguments[0] == "--help")) {
    out << kUsage;
    return kPoolFine;
  }
  const auto options = parse_pool_tool_options(arguments);
  if (!options) {
    err << "flowkeep-pool: " << options.error().text() << "\n" << kUsage;
    return kPoolUnreadable;
  }
  // A rehearsal needs no right to write.
  const bool writes = options->command == "repair" && !options->dry_run;
  auto image = PoolImage::read(options->path,
                               writes ? PoolImage::Access::kRepair : PoolImage::Access::kLook);
  if (!image) {
    err << "flowkeep-pool: " << image.error().text() << "\n";
    return kPoolUnreadable;
  }
  if (options->command == "info") return run_info(*options, *image, out);
  if (options->command == "check") return run_check(*options, *image, out, err);
  if (options->command == "dump") return run_dump(*options, *image, out, err);
  return run_repair(*options, *image, out, err);
}

std::string json_of(const Finding& finding) {
  return JsonObject()
      .add("severity", severity_text(finding.severity))
      .add("where", finding.where)
      .add("what", finding.what)
      .add("found", finding.found)
      .add("expected", finding.expected)
      .text();
}

std::string text_of(const Finding& finding) {
  return std::string(severity_text(finding.severity)) + "  " + finding.where + ": " + finding.what +
         ": found " + finding.found + "; expected " + finding.expected;
}

}  // namespace flowkeep
