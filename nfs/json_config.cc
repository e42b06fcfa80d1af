#include "nfs/json_config.h"

#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cctype>

namespace flowkeep {
namespace {

bool is_field_name(std::string_view text) {
  return std::ranges::all_of(text, [](unsigned char c) { return std::isalnum(c) || c == '_'; });
}

// protobuf reports "(rules[0]) sorce: Cannot find field.", "(rules[0].source): invalid value 7 ..."
// or "rule: Cannot find field."; what it says about the place becomes the tail of our path.
Error error_of(const std::string& field, std::string_view report) {
  std::string path = field;
  std::string_view rest = report;
  const size_t close = report.find(')');
  if (report.starts_with('(') && close != std::string_view::npos) {
    path.append(1, '.').append(report.substr(1, close - 1));
    rest.remove_prefix(close + 1);
    if (rest.starts_with(' ')) rest.remove_prefix(1);
  }
  const size_t colon = rest.find(": ");
  const std::string_view name = rest.substr(0, colon);
  if (colon == std::string_view::npos || !is_field_name(name)) {
    return invalid(field, "is no valid JSON configuration: " + std::string(report));
  }
  if (!name.empty()) path.append(1, '.').append(name);
  const std::string what(rest.substr(colon + 2));
  if (!what.starts_with("Cannot find field")) return invalid(path, what);
  return invalid(path, "unknown field \"" + std::string(name) + '"');
}

}  // namespace

Result<void> read_json_config(std::string_view json, const std::string& field,
                              google::protobuf::Message& into) {
  if (json.empty()) return {};
  const auto status = google::protobuf::util::JsonStringToMessage(
      google::protobuf::StringPiece(json.data(), json.size()), &into);
  if (status.ok()) return {};
  return error_of(field, {status.message().data(), status.message().size()});
}

}  // namespace flowkeep
