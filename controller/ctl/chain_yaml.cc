#include "controller/ctl/chain_yaml.h"

#include <yaml-cpp/depthguard.h>

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <utility>

#include "controller/ctl/yaml_documents.h"

namespace flowkeep {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr int kMaxDepth = 64;
constexpr int kMaxValues = 1'000'000;  // aliases can make a small file large

// What is thrown inside this file and caught at its edge.
struct Refusal {
  Error error;
};

std::string kind_of(const YAML::Node& node) {
  switch (node.Type()) {
    case YAML::NodeType::Map:
      return "a map";
    case YAML::NodeType::Sequence:
      return "a list";
    case YAML::NodeType::Scalar:
      return "\"" + node.Scalar() + "\"";
    default:
      return "nothing";
  }
}

bool is_quoted(const YAML::Node& node) {
  return node.Tag() == "!";
}

std::string accepted_fields(const Descriptor& descriptor) {
  std::string names;
  for (int i = 0; i < descriptor.field_count(); ++i)
    names += (i == 0 ? "" : ", ") + descriptor.field(i)->name();
  return names;
}

class Reader {
 public:
  Reader(ChainDocument& document, const ReadFile& read)
      : document_(document), read_(read), file_(document.file) {}

  void read(const YAML::Node& root);

 private:
  using Entry = void (Reader::*)(const YAML::Node&, const std::string&);

  [[noreturn]] void refuse(const YAML::Node& node, const std::string& path,
                           const std::string& message) const {
    const std::string line =
        node.Mark().line < 0 ? "" : std::to_string(node.Mark().line + 1) + ": ";
    throw Refusal{invalid(file_ + ":" + line + path, message)};
  }
  void enter(const YAML::Node& node, const std::string& path) {
    if (++values_ > kMaxValues) refuse(node, path, "the document is too large");
    document_.places[path] = {file_, node.Mark().line + 1};
  }
  // Calls `handle(key, value)` for each entry; keys are scalars and distinct.
  template <typename Handle>
  void for_each_entry(const YAML::Node& map, const std::string& path, Handle handle);
  std::string text(const YAML::Node& node, const std::string& path) const;

  void fill_message(Message& message, const YAML::Node& node, const std::string& path);
  void fill_field(Message& message, const FieldDescriptor& field, const YAML::Node& node,
                  const std::string& path);
  void fill_value(Message& message, const FieldDescriptor& field, const YAML::Node& node,
                  const std::string& path);
  void fill_struct(google::protobuf::Struct& into, const YAML::Node& node, const std::string& path,
                   int depth);
  void fill_any(google::protobuf::Value& into, const YAML::Node& node, const std::string& path,
                int depth);
  static void fill_scalar(google::protobuf::Value& into, const YAML::Node& node);
  void include_rules(google::protobuf::Struct& config, const YAML::Node& node,
                     const std::string& path);

  ChainDocument& document_;
  const ReadFile& read_;
  std::string file_;  // that is being read
  int values_ = 0;
};

std::string joined(const std::string& path, const std::string& key) {
  return path.empty() ? key : path + "." + key;
}

template <typename Handle>
void Reader::for_each_entry(const YAML::Node& map, const std::string& path, Handle handle) {
  if (!map.IsMap()) refuse(map, path, "is " + kind_of(map) + "; a map is needed");
  std::set<std::string> seen;
  for (const auto& entry : map) {
    if (!entry.first.IsScalar()) refuse(entry.first, path, "has a key that is no word");
    const std::string key = entry.first.Scalar();
    if (!seen.insert(key).second) refuse(entry.first, joined(path, key), "is given twice");
    handle(entry.first, key, entry.second);
  }
}

std::string Reader::text(const YAML::Node& node, const std::string& path) const {
  if (!node.IsScalar()) refuse(node, path, "is " + kind_of(node) + "; a text is needed");
  return node.Scalar();
}

void Reader::fill_message(Message& message, const YAML::Node& node, const std::string& path) {
  const Descriptor& descriptor = *message.GetDescriptor();
  for_each_entry(node, path,
                 [&](const YAML::Node& key_node, const std::string& key, const YAML::Node& value) {
                   const FieldDescriptor* field = descriptor.FindFieldByName(key);
                   if (field == nullptr) {
                     refuse(key_node, joined(path, key),
                            "unknown field; accepted: " + accepted_fields(descriptor));
                   }
                   fill_field(message, *field, value, joined(path, key));
                 });
}

void Reader::fill_field(Message& message, const FieldDescriptor& field, const YAML::Node& node,
                        const std::string& path) {
  enter(node, path);
  if (!field.is_repeated()) {
    fill_value(message, field, node, path);
    return;
  }
  if (!node.IsSequence()) refuse(node, path, "is " + kind_of(node) + "; a list is needed");
  for (size_t i = 0; i < node.size(); ++i) {
    const std::string element = path + "[" + std::to_string(i) + "]";
    enter(node[i], element);
    fill_value(message, field, node[i], element);
  }
}

// The kinds of fields that a chain's specification has: text, number without sign, message.
void Reader::fill_value(Message& message, const FieldDescriptor& field, const YAML::Node& node,
                        const std::string& path) {
  const auto& reflection = *message.GetReflection();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    Message& inner = field.is_repeated() ? *reflection.AddMessage(&message, &field)
                                         : *reflection.MutableMessage(&message, &field);
    if (auto* config = dynamic_cast<google::protobuf::Struct*>(&inner)) {
      fill_struct(*config, node, path, 0);
      if (node["rules_file"]) include_rules(*config, node["rules_file"], path);
    } else {
      fill_message(inner, node, path);
    }
  } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_UINT32) {
    const std::string digits = text(node, path);
    uint32_t number = 0;
    const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (code != std::errc() || end != digits.data() + digits.size()) {
      refuse(node, path, "is " + kind_of(node) + "; a whole number from 0 is needed");
    }
    reflection.SetUInt32(&message, &field, number);
  } else {
    reflection.SetString(&message, &field, text(node, path));
  }
}

void Reader::fill_struct(google::protobuf::Struct& into, const YAML::Node& node,
                         const std::string& path, int depth) {
  for_each_entry(node, path,
                 [&](const YAML::Node&, const std::string& key, const YAML::Node& value) {
                   fill_any((*into.mutable_fields())[key], value, joined(path, key), depth + 1);
                 });
}

// A file beside the chain's: a list of rules, as under "rules".
void Reader::include_rules(google::protobuf::Struct& config, const YAML::Node& node,
                           const std::string& path) {
  const std::string at = joined(path, "rules_file");
  if (config.fields().contains("rules"))
    refuse(node, at, "and rules are both given; accepted: one of them");
  const std::filesystem::path named = text(node, at);
  const std::filesystem::path beside = std::filesystem::path(document_.file).parent_path();
  const std::string name = (beside / named).string();
  if (!read_) refuse(node, at, "cannot be followed here");
  const Result<std::string> content = read_(name);
  if (!content) refuse(node, at, content.error().text());
  config.mutable_fields()->erase("rules_file");
  const std::string outer = std::exchange(file_, name);
  std::vector<YAML::Node> documents;
  try {
    documents = yaml_documents(*content);
  } catch (const YAML::Exception& exception) {
    throw Refusal{invalid(name + ":" + std::to_string(exception.mark.line + 1),
                          "is not YAML: " + exception.msg)};
  }
  const std::string into = joined(path, "rules");
  if (documents.size() != 1) {
    throw Refusal{invalid(name, "holds " + std::to_string(documents.size()) +
                                    " documents; one list of rules is needed")};
  }
  const YAML::Node& rules = documents.front();
  if (!rules.IsSequence())
    refuse(rules, into, "is " + kind_of(rules) + "; a list of rules is needed");
  fill_any((*config.mutable_fields())["rules"], rules, into, 1);
  file_ = outer;
}

void Reader::fill_any(google::protobuf::Value& into, const YAML::Node& node,
                      const std::string& path, int depth) {
  if (depth > kMaxDepth) refuse(node, path, "is nested too deeply");
  enter(node, path);
  if (node.IsMap()) {
    fill_struct(*into.mutable_struct_value(), node, path, depth);
  } else if (node.IsSequence()) {
    auto& list = *into.mutable_list_value();
    for (size_t i = 0; i < node.size(); ++i) {
      fill_any(*list.add_values(), node[i], path + "[" + std::to_string(i) + "]", depth + 1);
    }
  } else {
    fill_scalar(into, node);
  }
}

// YAML 1.2's core schema: plain true, false, null and decimal numbers are not text.
void Reader::fill_scalar(google::protobuf::Value& into, const YAML::Node& node) {
  if (node.IsNull()) {
    into.set_null_value(google::protobuf::NULL_VALUE);
    return;
  }
  const std::string& text = node.Scalar();
  if (!is_quoted(node)) {
    if (text == "true" || text == "false") {
      into.set_bool_value(text == "true");
      return;
    }
    double number = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (code == std::errc() && end == text.data() + text.size() && std::isfinite(number)) {
      into.set_number_value(number);
      return;
    }
  }
  into.set_string_value(text);
}

void Reader::read(const YAML::Node& root) {
  if (root.IsMap() && !root["kind"]) refuse(root, "kind", "is missing; accepted: Chain");
  for_each_entry(
      root, "", [&](const YAML::Node& key_node, const std::string& key, const YAML::Node& value) {
        if (key == "apiVersion") {
          if (text(value, key) != "flowkeep.v1")
            refuse(value, key, "is " + kind_of(value) + "; accepted: flowkeep.v1");
        } else if (key == "kind") {
          if (text(value, key) != "Chain")
            refuse(value, key, "is " + kind_of(value) + "; accepted: Chain");
        } else if (key == "metadata") {
          for_each_entry(
              value, key,
              [&](const YAML::Node& inner_key, const std::string& name, const YAML::Node& inner) {
                if (name != "name")
                  refuse(inner_key, "metadata." + name, "unknown field; accepted: name");
                document_.chain.set_name(text(inner, "metadata.name"));
                enter(inner, "name");
              });
        } else if (key == "spec") {
          enter(value, key);
          fill_message(*document_.chain.mutable_spec(), value, key);
        } else {
          refuse(key_node, key, "unknown field; accepted: apiVersion, kind, metadata, spec");
        }
      });
  if (document_.chain.name().empty()) refuse(root, "metadata.name", "is missing");
  if (!document_.chain.has_spec()) refuse(root, "spec", "is missing");
}

}  // namespace

std::string ChainDocument::place(const std::string& error_text) const {
  std::string path = error_text.substr(0, error_text.find(": "));
  while (!path.empty()) {
    const auto found = places.find(path);
    if (found != places.end())
      return found->second.file + ":" + std::to_string(found->second.line) + ": ";
    const size_t last = path.find_last_of(".[");
    path.resize(last == std::string::npos ? 0 : last);
  }
  return file + ": ";
}

Result<std::vector<ChainDocument>> parse_chains(const std::string& text, const std::string& file,
                                                const ReadFile& read) {
  std::vector<ChainDocument> documents;
  try {
    for (const YAML::Node& root : yaml_documents(text)) {
      if (root.IsNull()) continue;  // "---" at the end of a file
      ChainDocument document;
      document.file = file;
      Reader(document, read).read(root);
      documents.push_back(std::move(document));
    }
  } catch (const Refusal& refusal) {
    return refusal.error;
  } catch (const YAML::DeepRecursion& exception) {
    return invalid(file + ":" + std::to_string(exception.mark.line + 1), "is nested too deeply");
  } catch (const YAML::Exception& exception) {
    return invalid(file + ":" + std::to_string(exception.mark.line + 1),
                   "is not YAML: " + exception.msg);
  }
  if (documents.empty()) return invalid(file, "holds no document");
  return documents;
}

}  // namespace flowkeep
