// JsonObject: one line of JSON, member by member.
#pragma once

#include <concepts>
#include <string>
#include <string_view>
#include <vector>

namespace flowkeep {

inline std::string json_text(std::string_view text) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string quoted = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') {
      (quoted += '\\') += letter;
    } else if (letter < ' ' || letter > '~') {
      const auto byte = static_cast<unsigned char>(letter);
      ((quoted += "\\u00") += kDigits[byte >> 4]) += kDigits[byte & 15];
    } else {
      quoted += letter;
    }
  }
  return quoted += '"';
}

inline std::string json_list(const std::vector<std::string>& values) {
  std::string list = "[";
  for (const std::string& value : values) {
    if (list.size() > 1) list += ", ";
    list += value;
  }
  return list += "]";
}

class JsonObject {
 public:
  // `value`: JSON already.
  JsonObject& add_json(std::string_view name, std::string_view value) {
    if (!members_.empty()) members_ += ", ";
    ((members_ += json_text(name)) += ": ") += value;
    return *this;
  }
  JsonObject& add(std::string_view name, std::string_view value) {
    return add_json(name, json_text(value));
  }
  JsonObject& add(std::string_view name, const char* value) {
    return add(name, std::string_view(value));
  }
  JsonObject& add(std::string_view name, std::integral auto value) {
    return add_json(name, std::to_string(value));
  }
  JsonObject& add(std::string_view name, bool value) {
    return add_json(name, value ? "true" : "false");
  }
  std::string text() const { return "{" + members_ + "}"; }

 private:
  std::string members_;
};

}  // namespace flowkeep
