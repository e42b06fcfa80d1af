// Reads a function's configuration from JSON into its protobuf message. An unknown field or a value
// of the wrong type is named by its path.
#pragma once

#include <string>
#include <string_view>

#include "state/result.h"

namespace google::protobuf {
class Message;
}

namespace flowkeep {

// `field`: path of the configuration, put in front of the path within it. Empty JSON is an empty
// message.
Result<void> read_json_config(std::string_view json, const std::string& field,
                              google::protobuf::Message& into);

}  // namespace flowkeep
