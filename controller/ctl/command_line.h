// The command line of flowkeepctl: which commands and options there are, and what was asked for.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "state/result.h"

namespace flowkeep {

enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,
  kExitUsage = 2,
  kExitRefused = 3,
  kExitNotFound = 4,
  kExitUnreachable = 5,
  kExitCheckFailed = 6,
};

class CommandLine {
 public:
  // `environment_controller`: value of FLOWKEEP_CONTROLLER, or empty. Every error is one of usage.
  static Result<CommandLine> parse(const std::vector<std::string>& arguments,
                                   const std::string& environment_controller);

  const std::string& command() const { return command_; }
  // Arguments after the command that are no options; empty where there is none.
  std::string word(size_t index) const { return index < words_.size() ? words_[index] : ""; }
  bool has(const std::string& option) const { return options_.contains(option); }
  std::string value(const std::string& option) const;
  uint32_t number(const std::string& option, uint32_t otherwise) const;

  const std::string& controller() const { return controller_; }
  bool json() const { return value("--output") == "json"; }
  std::chrono::milliseconds timeout() const;  // --timeout, or what suits the command

 private:
  Result<void> check() const;

  std::string command_;
  std::vector<std::string> words_;
  std::map<std::string, std::string> options_;
  std::string controller_;
};

const char* help_text();

}  // namespace flowkeep
