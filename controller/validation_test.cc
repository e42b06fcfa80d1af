#include "controller/validation.h"

#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include "controller/function_validation.h"

namespace flowkeep {
namespace {

v1::RegisterRequest node(const std::string& name) {
  v1::RegisterRequest node;
  node.set_name(name);
  node.set_agent_address("127.0.0.1:1");
  for (const char* role : {"inside", "outside"}) {
    v1::Port& port = *node.add_ports();
    port.set_name(role);
    port.set_role(role);
  }
  node.add_ports()->set_name("spare");
  return node;
}

StoredChain chain_from(const std::string& spec_json, const std::string& name = "edge") {
  StoredChain chain{name, {}, 1, 0, 0};
  const auto status = google::protobuf::util::JsonStringToMessage(spec_json, &chain.spec);
  EXPECT_TRUE(status.ok()) << status.ToString();
  const auto complete = complete_spec(chain.spec, "", {node("node-1")});
  EXPECT_TRUE(complete.ok());
  if (complete) chain.spec = *complete;
  return chain;
}

std::string refusal(const StoredChain& chain, const std::vector<StoredChain>& others = {}) {
  const auto valid = check_chain(chain, node("node-1"), others, validate_functions);
  return valid ? "accepted" : valid.error().text();
}

constexpr const char* kNat =
    R"(functions: [{type: "nat44", config: {external_addresses: ["203.0.113.10"]}}])";

TEST(Validation, AcceptsAChainAndFillsInItsDefaults) {
  const StoredChain chain =
      chain_from(std::string(R"({inside: "inside", outside: "outside", )") + kNat + "}");
  EXPECT_EQ(refusal(chain), "accepted");
  EXPECT_EQ(chain.spec.node(), "node-1");
  EXPECT_EQ(chain.spec.workers(), 1u);
  EXPECT_EQ(chain.spec.buckets(), 256u);
}

TEST(Validation, NamesTheFieldTheValueAndWhatIsAccepted) {
  const struct {
    std::string fields, expected;
  } kCases[] = {
      {R"(outside: "outside", )",
       "spec.inside: is missing; the name of a port of the node is needed"},
      {R"(inside: "inside", )",
       "spec.outside: is missing; the name of a port of the node is needed"},
      {R"(inside: "foo", outside: "outside", )",
       "spec.inside: port \"foo\" does not exist on node \"node-1\"; it has: inside, outside, "
       "spare"},
      {R"(inside: "inside", outside: "inside", )",
       "spec.outside: port \"inside\" is the inside port too; two ports are needed"},
      {R"(inside: "outside", outside: "inside", )",
       "spec.inside: port \"outside\" of node \"node-1\" has the role \"outside\"; a port with the "
       "role "
       "\"inside\" is needed"},
      {R"(inside: "inside", outside: "outside", workers: 9, )",
       "spec.workers: 9 is out of range; accepted: 1 to 8"},
      {R"(inside: "inside", outside: "outside", buckets: 100, )",
       "spec.buckets: 100 is not accepted; accepted: a power of two from 16 to 1024"},
      {R"(inside: "inside", outside: "outside", buckets: 2048, )",
       "spec.buckets: 2048 is not accepted; accepted: a power of two from 16 to 1024"},
  };
  for (const auto& [fields, expected] : kCases) {
    EXPECT_EQ(refusal(chain_from("{" + fields + kNat + "}")), expected);
  }
}

TEST(Validation, PortWithoutARoleServesEither) {
  EXPECT_EQ(
      refusal(chain_from(std::string(R"({inside: "spare", outside: "outside", )") + kNat + "}")),
      "accepted");
}

TEST(Validation, AsksTheFunctionsThemselves) {
  const auto with = [](const std::string& functions) {
    return refusal(
        chain_from(R"({inside: "inside", outside: "outside", functions: [)" + functions + "]}"));
  };
  EXPECT_EQ(with(""), "spec.functions: is empty; a chain needs at least one function");
  EXPECT_EQ(with("{}"), "spec.functions[0].type: is missing");
  EXPECT_TRUE(with(R"({type: "ips"})").starts_with("spec.functions[0].type: "))
      << with(R"({type: "ips"})");
  const std::string prefix = with(R"({type: "firewall", config: {rules: [
      {name: "a", action: "accept", source: ["10.0.0.0/33"]}]}})");
  EXPECT_TRUE(prefix.starts_with("spec.functions[0].config.rules[0].source")) << prefix;
  const std::string unknown = with(R"({type: "firewall", config: {rulez: []}})");
  EXPECT_TRUE(unknown.starts_with("spec.functions[0].config")) << unknown;
  EXPECT_NE(unknown.find("rulez"), std::string::npos) << unknown;
}

TEST(Validation, PortBelongsToOneChain) {
  const StoredChain chain =
      chain_from(std::string(R"({inside: "inside", outside: "outside", )") + kNat + "}");
  StoredChain other = chain;
  EXPECT_EQ(refusal(chain, {other}), "accepted");  // itself
  other.name = "other";
  EXPECT_EQ(refusal(chain, {other}),
            "spec.inside: port \"inside\" of node \"node-1\" is already used by chain \"other\"");
  other.spec.set_inside("spare");
  EXPECT_EQ(refusal(chain, {other}),
            "spec.outside: port \"outside\" of node \"node-1\" is already used by chain \"other\"");
  other.spec.set_node("node-2");
  EXPECT_EQ(refusal(chain, {other}), "accepted");
}

TEST(Validation, Names) {
  for (const std::string& name :
       std::vector<std::string>{"a", "edge", "edge-2", "0", std::string(63, 'a')}) {
    EXPECT_TRUE(check_name("name", name).ok()) << name;
  }
  for (const std::string& name : std::vector<std::string>{"", "-a", "a-", "Edge", "a.b", "a b",
                                                          "\xc3\xa4", std::string(64, 'a')}) {
    const auto valid = check_name("name", name);
    ASSERT_FALSE(valid.ok()) << name;
    EXPECT_TRUE(valid.error().text().starts_with("name: "));
  }
}

TEST(Validation, ChoosesTheOnlyNode) {
  v1::ChainSpec spec;
  const auto none = complete_spec(spec, "", {});
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().kind, Error::Kind::kUnavailable);
  EXPECT_EQ(none.error().text(),
            "spec.node: no node is registered with this controller; start a node first");
  const std::vector<v1::RegisterRequest> two = {node("node-1"), node("node-2")};
  EXPECT_EQ(complete_spec(spec, "", two).error().text(),
            "spec.node: is missing, and there are several nodes: node-1, node-2");
  EXPECT_EQ(complete_spec(spec, "node-2", two)->node(), "node-2");
  spec.set_node("node-3");
  EXPECT_EQ(complete_spec(spec, "", two).error().text(),
            "spec.node: node \"node-3\" is not registered; registered: node-1, node-2");
}

TEST(Validation, Registrations) {
  EXPECT_TRUE(check_registration(node("node-1")).ok());
  v1::RegisterRequest request = node("node-1");
  request.set_agent_address("nowhere");
  EXPECT_EQ(check_registration(request).error().text(),
            "agent_address: \"nowhere\" is no address; accepted: \"host:port\"");
  request = node("node-1");
  request.mutable_ports(1)->set_name("inside");
  EXPECT_EQ(check_registration(request).error().text(), "ports[1].name: \"inside\" is given twice");
  request.mutable_ports(1)->set_name("b");
  request.mutable_ports(1)->set_role("middle");
  EXPECT_EQ(check_registration(request).error().text(),
            "ports[1].role: \"middle\" is no role; accepted: inside, outside, or none");
}

}  // namespace
}  // namespace flowkeep
