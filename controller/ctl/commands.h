// What flowkeepctl does for each command. Everything goes through the streams, so tests can read
// it.
#pragma once

#include <istream>
#include <ostream>
#include <string>
#include <vector>

#include "controller/ctl/command_line.h"
#include "controller/ctl/connection.h"

namespace flowkeep {

struct Session {
  const CommandLine& line;
  Connection& connection;
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
};

// The whole program: returns its exit code.
int run_flowkeepctl(const std::vector<std::string>& arguments,
                    const std::string& environment_controller, std::istream& in, std::ostream& out,
                    std::ostream& err);

// Prints the error; returns the exit code for it.
int report_failure(std::ostream& err, const Error& error);

// Proto JSON with the proto's field names and every field present.
void print_json(std::ostream& out, const google::protobuf::Message& message);

int run_top(const Session& session);
int run_drill(const Session& session);

}  // namespace flowkeep
