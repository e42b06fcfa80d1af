#include "controller/ctl/command_line.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>

namespace flowkeep {
namespace {

constexpr const char* kDefaultController = "127.0.0.1:7470";

struct Option {
  enum class Value { kNone, kText, kNumber, kRate, kSeconds };
  const char* name;
  Value value;
};
constexpr std::array kOptions = {
    Option{"--controller", Option::Value::kText},    Option{"--output", Option::Value::kText},
    Option{"--timeout", Option::Value::kSeconds},    Option{"--help", Option::Value::kNone},
    Option{"--file", Option::Value::kText},          Option{"--once", Option::Value::kNone},
    Option{"--interval", Option::Value::kSeconds},   Option{"--filter", Option::Value::kText},
    Option{"--limit", Option::Value::kNumber},       Option{"--chain", Option::Value::kText},
    Option{"--node", Option::Value::kText},          Option{"--count", Option::Value::kNumber},
    Option{"--interval-ms", Option::Value::kNumber}, Option{"--json", Option::Value::kText},
    Option{"--watch", Option::Value::kNone},         Option{"--kills", Option::Value::kNumber},
    Option{"--seed", Option::Value::kNumber},        Option{"--rate", Option::Value::kRate},
    Option{"--victims", Option::Value::kText},       Option{"--at-step", Option::Value::kText},
};
const std::set<std::string> kGlobalOptions = {"--controller", "--output", "--timeout", "--help"};

struct Command {
  const char* name;
  size_t min_words;
  size_t max_words;
  std::set<std::string> options;
  const char* usage;
};
const std::array<Command, 13>& commands() {
  static const std::array<Command, 13> kCommands = {{
      {"apply", 0, 0, {"--file"}, "apply -f FILE"},
      {"check", 1, 1, {}, "check FILE"},
      {"logs", 0, 1, {"--watch", "--limit"}, "logs [CHAIN] [--watch] [--limit N]"},
      {"get", 1, 2, {"--node", "--chain", "--limit"}, "get chains|nodes|workers|events [NAME]"},
      {"describe", 2, 2, {}, "describe chain|node NAME"},
      {"delete", 0, 2, {"--file"}, "delete chain NAME, or delete -f FILE"},
      {"top", 0, 0, {"--once", "--interval", "--chain", "--node"}, "top [--once] [--interval S]"},
      {"flows",
       0,
       1,
       {"--filter", "--limit", "--chain"},
       "flows [CHAIN] [--filter EXPR] [--limit N]"},
      {"stats", 0, 1, {"--chain", "--node"}, "stats [CHAIN]"},
      {"drill",
       1,
       1,
       {"--chain", "--node", "--count", "--interval-ms", "--at-step", "--json", "--kills", "--seed",
        "--rate", "--victims"},
       "drill kill-worker|hang-worker|storm|kill-node|power-cut [options]"},
      {"events", 0, 0, {"--watch", "--limit", "--chain"}, "events [--watch] [--limit N]"},
      {"version", 0, 0, {}, "version"},
      {"help", 0, 1, {}, "help"},
  }};
  return kCommands;
}

Error usage(const std::string& message) {
  return invalid("", message + "; see flowkeepctl help");
}

template <typename Number>
bool is_number(const std::string& text, Number& number) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  return code == std::errc() && end == text.data() + text.size();
}

std::string long_name(const std::string& argument) {
  if (argument == "-f") return "--file";
  if (argument == "-o") return "--output";
  if (argument == "-h") return "--help";
  return argument;
}

Result<void> check_value(const Option& option, const std::string& value) {
  uint32_t whole = 0;
  double seconds = 0;
  if (option.value == Option::Value::kNumber && !(is_number(value, whole) && whole > 0)) {
    return usage(std::string(option.name) + ": \"" + value + "\" is no whole number above 0");
  }
  if (option.value == Option::Value::kRate &&
      !(is_number(value, whole) && whole > 0 && whole <= 10'000)) {
    return usage(std::string(option.name) + ": \"" + value +
                 "\" is not accepted; accepted: kills a second, 1 to 10000");
  }
  if (option.value == Option::Value::kSeconds &&
      !(is_number(value, seconds) && seconds >= 0.05 && seconds <= 86'400)) {
    return usage(std::string(option.name) + ": \"" + value +
                 "\" is not accepted; accepted: seconds, 0.05 to 86400");
  }
  return {};
}

}  // namespace

Result<CommandLine> CommandLine::parse(const std::vector<std::string>& arguments,
                                       const std::string& environment_controller) {
  CommandLine line;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument.size() < 2 || argument.front() != '-') {
      if (line.command_.empty()) {
        line.command_ = argument;
      } else {
        line.words_.push_back(argument);
      }
      continue;
    }
    const size_t equals = argument.starts_with("--") ? argument.find('=') : std::string::npos;
    const std::string name = long_name(argument.substr(0, equals));
    const auto* option = std::find_if(kOptions.begin(), kOptions.end(),
                                      [&](const Option& o) { return name == o.name; });
    if (option == kOptions.end()) return usage("unknown option " + name);
    std::string value;
    if (option->value == Option::Value::kNone) {
      if (equals != std::string::npos) return usage(name + " takes no value");
    } else if (equals != std::string::npos) {
      value = argument.substr(equals + 1);
    } else {
      if (i + 1 == arguments.size()) return usage(name + " needs a value");
      value = arguments[++i];
    }
    const auto valid = check_value(*option, value);
    if (!valid) return valid.error();
    line.options_[name] = value;
  }
  line.controller_ = line.has("--controller")          ? line.value("--controller")
                     : !environment_controller.empty() ? environment_controller
                                                       : kDefaultController;
  if (line.has("--help")) line.command_ = "help";
  const auto valid = line.check();
  if (!valid) return valid.error();
  return line;
}

Result<void> CommandLine::check() const {
  if (command_.empty()) return usage("no command was given");
  const auto& known = commands();
  const auto* command = std::find_if(known.begin(), known.end(),
                                     [&](const Command& c) { return command_ == c.name; });
  if (command == known.end()) return usage("unknown command \"" + command_ + "\"");
  if (command_ == "help") return {};
  if (words_.size() < command->min_words || words_.size() > command->max_words) {
    return usage(std::string("usage: flowkeepctl ") + command->usage);
  }
  for (const auto& [name, value] : options_) {
    if (kGlobalOptions.contains(name) || command->options.contains(name)) continue;
    return usage(command_ + " does not take " + name + "; usage: flowkeepctl " + command->usage);
  }
  const std::string output = value("--output");
  if (has("--output") && output != "table" && output != "json") {
    return usage("--output: \"" + output + "\" is not accepted; accepted: table, json");
  }
  return {};
}

std::string CommandLine::value(const std::string& option) const {
  const auto found = options_.find(option);
  return found == options_.end() ? "" : found->second;
}

uint32_t CommandLine::number(const std::string& option, uint32_t otherwise) const {
  uint32_t number = otherwise;
  if (has(option)) is_number(value(option), number);
  return number;
}

std::chrono::milliseconds CommandLine::timeout() const {
  double seconds = 10;
  if (has("--timeout")) {
    is_number(value("--timeout"), seconds);
  } else if (command_ == "apply" || command_ == "delete" || command_ == "flows") {
    seconds = 40;  // longer than the controller waits for a node
  } else if (command_ == "drill") {
    const double injections = number("--kills", number("--count", 1));
    seconds = 120 + injections * (2 + number("--interval-ms", 100) / 1e3);
  }
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1e3));
}

const char* help_text() {
  return R"(usage: flowkeepctl [global options] COMMAND [arguments]

Deploys chains through a flowkeep controller and shows what they do.

Commands
  apply -f FILE                    create or update the chains in a YAML file ("-": standard input)
  check FILE                       name firewall rules that are never reached or redundant
  get chains|nodes|workers [NAME]  list; NAME picks a chain, a node, or a chain's workers
  get events [CHAIN]               list events
  describe chain|node NAME         everything about one
  delete chain NAME                stop a chain and forget it; also: delete -f FILE
  top [--once] [--interval S]      live rates of chains and workers; --once measures once
  flows [CHAIN] [--filter EXPR] [--limit N]
                                   open flows; EXPR such as "proto=tcp dst=192.0.2.1 dport=443"
                                   (also src, sport, external, phase)
  logs [CHAIN] [--watch] [--limit N]
                                   what the chain's functions told: rules with a log, ...
  stats [CHAIN]                    counters of chains, ports and nodes, drops by reason
  drill kill-worker [--chain C] [--count N] [--interval-ms M] [--at-step STEP]
  drill hang-worker [--chain C] [--count N] [--interval-ms M]
  drill storm [--kills N] [--seed S] [--rate R] [--victims V,...] [--chain C]
                                   random victims at random moments, R a second on average
                                   (83); V: worker, standby, successor, several; without
                                   --chain over all chains; Ctrl-C ends it
  drill kill-node [--node N]       inject a fault and report what it did; --json FILE also
                                   writes the report as JSON
  drill power-cut [--node N] [--seed S]
                                   as kill-node, and the node's next start finds its state
                                   pool as a power cut could have left it
  events [--watch] [--limit N]     what happened; --watch goes on
  version                          print the version
  help                             print this
Chain and node may be left out where there is only one.

Global options
  --controller HOST:PORT  default: $FLOWKEEP_CONTROLLER, else 127.0.0.1:7470
  -o, --output table|json default table; json is the API's message with its field names
  --timeout S             how long to wait for the controller; default 10 (apply, delete, flows: 40;
                          drill: 120 and what its repetitions take)

Exit codes
  0  done
  1  failed: an internal error, or the node failed
  2  wrong arguments
  3  refused: the input is wrong, or the state does not allow it; nothing was changed
  4  there is no such chain or node
  5  the controller cannot be reached
  6  a drill ran, and a check of it failed; or check found rules that do not matter
)";
}

}  // namespace flowkeep
