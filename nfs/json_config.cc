#include "nfs/json_config.h"

#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>

namespace flowkeep {
namespace {

// protobuf reports "(rules[0]) sorce: Cannot find field." Its path becomes the tail of ours.
Error error_of(const std::string& field, std::string_view report) {
  const size_t open = report.find('(');
  const size_t close = report.find(") ");
  const size_t colon = report.find(": ", close == std::string_view::npos ? 0 : close);
  if (open != 0 || close == std::string_view::npos || colon == std::string_view::npos) {
    return invalid(field, "is no valid JSON configuration: " + std::string(report));
  }
  std::string path = field;
  const auto add = [&path](std::string_view part) {
    if (!part.empty()) path.append(1, '.').append(part);
  };
  add(report.substr(1, close - 1));
  const std::string_view subject = report.substr(close + 2, colon - close - 2);
  const std::string_view what = report.substr(colon + 2);
  if (what.find("Cannot find field") == std::string_view::npos) {
    return invalid(path, std::string(what) + ": " + std::string(subject));
  }
  add(subject);
  return invalid(path, "unknown field \"" + std::string(subject) + "\"");
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
