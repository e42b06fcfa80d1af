// For fuzzers: a protobuf message filled at random, whatever its fields are: those that a
// function's configuration gets later, too.
#pragma once

#include <google/protobuf/message.h>

#include <string>

#include "nfs/fuzz_script.h"

namespace flowkeep {

class RandomMessage {
 public:
  explicit RandomMessage(FuzzScript& script) : script_(script) {}

  void fill(google::protobuf::Message& message, int depth = 0) {
    const auto& descriptor = *message.GetDescriptor();
    for (int i = 0; i < descriptor.field_count(); ++i) {
      const auto& field = *descriptor.field(i);
      if (script_.one_in(3)) continue;
      const uint32_t times = field.is_repeated() ? script_.below(depth == 0 ? 8 : 3) : 1;
      for (uint32_t n = 0; n < times; ++n) set(message, field, depth);
    }
  }

 private:
  using Field = google::protobuf::FieldDescriptor;

  // What means something to some field.
  static constexpr std::string_view kTexts[] = {"",
                                                "a",
                                                "accept",
                                                "drop",
                                                "reject",
                                                "log",
                                                "tcp",
                                                "udp",
                                                "icmp",
                                                "icmpv6",
                                                "any",
                                                "from_inside",
                                                "80",
                                                "1000-2000",
                                                "65535",
                                                "0-65535",
                                                "70000",
                                                "9-8",
                                                "10.0.0.0/8",
                                                "10.0.0.0/33",
                                                "0.0.0.0/0",
                                                "10.0.0.2",
                                                "192.0.2.1",
                                                "203.0.113.10",
                                                "2001:db8::/32",
                                                "::/0",
                                                "203.0.113.0/28",
                                                "203.0.113.11",
                                                "syn",
                                                "from_outside",
                                                "endpoint_independent",
                                                "address_and_port_dependent",
                                                "echo-request",
                                                "/",
                                                "-",
                                                "1-",
                                                "/dev/null"};
  static constexpr uint32_t kNumbers[] = {
      0,    1,     2,     7,    53,   63,    64,    80,       1023,       1024,      2048,
      2111, 65535, 65536, 2111, 4096, 60000, 86400, 1u << 20, 0x7fffffff, 0xffffffff};

  std::string text() {
    return script_.one_in(4) ? script_.text(24) : std::string(script_.one_of(kTexts));
  }
  uint32_t number() { return script_.one_in(4) ? script_.below(65536) : script_.one_of(kNumbers); }

  void set(google::protobuf::Message& message, const Field& field, int depth) {
    const auto& access = *message.GetReflection();
    const bool many = field.is_repeated();
    switch (field.cpp_type()) {
      case Field::CPPTYPE_MESSAGE:
        if (depth > 3) return;
        fill(many ? *access.AddMessage(&message, &field) : *access.MutableMessage(&message, &field),
             depth + 1);
        return;
      case Field::CPPTYPE_STRING:
        many ? access.AddString(&message, &field, text())
             : access.SetString(&message, &field, text());
        return;
      case Field::CPPTYPE_UINT32:
        many ? access.AddUInt32(&message, &field, number())
             : access.SetUInt32(&message, &field, number());
        return;
      case Field::CPPTYPE_UINT64:
        many ? access.AddUInt64(&message, &field, number())
             : access.SetUInt64(&message, &field, number());
        return;
      case Field::CPPTYPE_INT32:
        many ? access.AddInt32(&message, &field, static_cast<int32_t>(number()))
             : access.SetInt32(&message, &field, static_cast<int32_t>(number()));
        return;
      case Field::CPPTYPE_BOOL:
        many ? access.AddBool(&message, &field, script_.one_in(2))
             : access.SetBool(&message, &field, script_.one_in(2));
        return;
      case Field::CPPTYPE_ENUM: {
        const auto& values = *field.enum_type();
        const int value =
            values
                .value(static_cast<int>(script_.below(static_cast<uint32_t>(values.value_count()))))
                ->number();
        many ? access.AddEnumValue(&message, &field, value)
             : access.SetEnumValue(&message, &field, value);
        return;
      }
      default:
        return;
    }
  }

  FuzzScript& script_;
};

}  // namespace flowkeep
