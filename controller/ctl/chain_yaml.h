// Chains from YAML. Strict: an unknown, repeated or ill-typed field is an error that names the
// file, the line and the path. What is inside a function's config is taken as it is; the controller
// judges it, and ChainDocument::place() finds the line for the path that it complains of.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "flowkeep/v1/flowkeep.pb.h"
#include "state/result.h"

namespace flowkeep {

struct ChainDocument {
  v1::Chain chain;  // name and spec
  std::string file;
  struct Place {
    std::string file;
    int line = 0;  // from 1
  };
  std::map<std::string, Place> places;  // by path: "spec.functions[0].config.rules[2].source"

  // "edge.yaml:12: " for the field at the start of the text "path: what is wrong", or for the
  // nearest one above it.
  std::string place(const std::string& error_text) const;
};

// The content of a file, or why it cannot be had.
using ReadFile = std::function<Result<std::string>(const std::string& name)>;

// All documents of the text; at least one. `read`: reads the files that a `rules_file` of a
// function's config names, from where `file` lies; their content is put in its place, so that what
// is sent needs no file.
Result<std::vector<ChainDocument>> parse_chains(const std::string& text, const std::string& file,
                                                const ReadFile& read = {});

}  // namespace flowkeep
