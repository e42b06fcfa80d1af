// Result<T>: how control paths report failure. Never used on the packet path.
//
// An Error names the thing that was wrong, its value, and what would have been accepted, because
// whoever reads it has to repair the input.
#pragma once

#include <cassert>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace flowkeep {

struct Error {
  enum class Kind { kInvalid, kNotFound, kExists, kUnavailable, kInternal };
  Kind kind = Kind::kInternal;
  std::string
      field;  // path of the offending field or object: "spec.functions[0].config.rules[2].source"
  std::string message;  // full sentence without the field: "\"10.0.0.0/33\" is no IPv4 prefix;
                        // accepted: ..."

  // "field: message", the form in which people see it.
  std::string text() const { return field.empty() ? message : field + ": " + message; }
};

inline Error invalid(std::string field, std::string message) {
  return {Error::Kind::kInvalid, std::move(field), std::move(message)};
}
inline Error unavailable(std::string field, std::string message) {
  return {Error::Kind::kUnavailable, std::move(field), std::move(message)};
}
inline Error internal_error(std::string field, std::string message) {
  return {Error::Kind::kInternal, std::move(field), std::move(message)};
}

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value)
      : held_(std::in_place_index<0>, std::move(value)) {}  // NOLINT(google-explicit-constructor)
  Result(Error error)
      : held_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return held_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & {
    assert(ok());
    return std::get<0>(held_);
  }
  const T& value() const& {
    assert(ok());
    return std::get<0>(held_);
  }
  T&& value() && {
    assert(ok());
    return std::get<0>(std::move(held_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const Error& error() const {
    assert(!ok());
    return std::get<1>(held_);
  }

 private:
  std::variant<T, Error> held_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)
  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const {
    assert(!ok());
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

}  // namespace flowkeep
