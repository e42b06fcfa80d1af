// flowkeepctl without a controller: YAML, arguments, tables, and what it says when nobody answers.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "controller/ctl/chain_yaml.h"
#include "controller/ctl/commands.h"
#include "controller/ctl/drill_report.h"
#include "controller/ctl/plot.h"
#include "controller/ctl/table.h"

namespace flowkeep {
namespace {

std::string error_of(const std::string& yaml) {
  const auto parsed = parse_chains(yaml, "edge.yaml");
  return parsed ? "accepted" : parsed.error().text();
}

TEST(ChainYaml, ReadsEveryDocument) {
  const auto parsed = parse_chains(R"(apiVersion: flowkeep.v1
kind: Chain
metadata: {name: edge}
spec:
  node: node-1
  inside: inside
  outside: outside
  workers: 2
  functions:
    - type: nat44
      config: {external_addresses: [203.0.113.10], port_range: {first: 1024, last: 2047}, on: true, off: "true", n: ~}
---
kind: Chain
metadata:
  name: second
spec: {inside: a, outside: b}
---
)",
                                   "edge.yaml");
  ASSERT_TRUE(parsed.ok()) << parsed.error().text();
  ASSERT_EQ(parsed->size(), 2u);
  const v1::Chain& chain = parsed->front().chain;
  EXPECT_EQ(chain.name(), "edge");
  EXPECT_EQ(chain.spec().workers(), 2u);
  const auto& fields = chain.spec().functions(0).config().fields();
  EXPECT_EQ(fields.at("external_addresses").list_value().values(0).string_value(), "203.0.113.10");
  EXPECT_EQ(fields.at("port_range").struct_value().fields().at("last").number_value(), 2'047);
  EXPECT_TRUE(fields.at("on").bool_value());
  EXPECT_EQ(fields.at("off").string_value(), "true");
  EXPECT_TRUE(fields.at("n").has_null_value());
  EXPECT_EQ((*parsed)[1].chain.name(), "second");
}

TEST(ChainYaml, NamesFileLineAndPath) {
  const std::string head = "kind: Chain\nmetadata: {name: edge}\n";
  const struct {
    std::string yaml, expected;
  } kCases[] = {
      {"", "edge.yaml: holds no document"},
      {"kind: Chain\nspec: {", "edge.yaml:2: is not YAML: "},
      {"- a", "edge.yaml:1: : is a list; a map is needed"},
      {"spec: {}", "edge.yaml:1: kind: is missing; accepted: Chain"},
      {"kind: Pod", "edge.yaml:1: kind: is \"Pod\"; accepted: Chain"},
      {"apiVersion: v2\nkind: Chain", "edge.yaml:1: apiVersion: is \"v2\"; accepted: flowkeep.v1"},
      {"kind: Chain\nspec: {}", "edge.yaml:1: metadata.name: is missing"},
      {head, "edge.yaml:1: spec: is missing"},
      {"kind: Chain\nmetadata: {nmae: edge}",
       "edge.yaml:2: metadata.nmae: unknown field; accepted: name"},
      {head + "status: {}",
       "edge.yaml:3: status: unknown field; accepted: apiVersion, kind, metadata, spec"},
      {head + "spec:\n  inside: a\n  functoins: []",
       "edge.yaml:5: spec.functoins: unknown field; accepted: node, inside, outside, workers, "
       "buckets, functions"},
      {head + "spec:\n  workers: many",
       "edge.yaml:4: spec.workers: is \"many\"; a whole number from 0 is needed"},
      {head + "spec:\n  workers: -1",
       "edge.yaml:4: spec.workers: is \"-1\"; a whole number from 0 is needed"},
      {head + "spec:\n  inside: [a]", "edge.yaml:4: spec.inside: is a list; a text is needed"},
      {head + "spec:\n  functions: nat44",
       "edge.yaml:4: spec.functions: is \"nat44\"; a list is needed"},
      {head + "spec:\n  inside: a\n  inside: b", "edge.yaml:5: spec.inside: is given twice"},
      {head + "spec:\n  functions:\n    - tpye: nat44",
       "edge.yaml:5: spec.functions[0].tpye: unknown field; accepted: type, config"},
      {head + "spec:\n  functions:\n    - config: 7",
       "edge.yaml:5: spec.functions[0].config: is \"7\"; a map is needed"},
      {head + "spec: {functions: [{config: &a {b: *a}}]}", "edge.yaml:"},
  };
  for (const auto& [yaml, expected] : kCases) {
    EXPECT_TRUE(error_of(yaml).starts_with(expected))
        << error_of(yaml) << "\nexpected: " << expected;
  }
}

TEST(ChainYaml, BoundsDepthAndAliases) {
  for (const size_t depth : {70, 5'000}) {  // beyond our limit, and beyond the parser's
    std::string deep = "kind: Chain\nmetadata: {name: edge}\nspec: {functions: [{config: {a: ";
    deep += std::string(depth, '[') + std::string(depth, ']') + "}}]}";
    EXPECT_NE(error_of(deep).find("is nested too deeply"), std::string::npos) << error_of(deep);
  }
  std::string bomb =
      "kind: Chain\nmetadata: {name: edge}\nspec: {functions: [{config: {a0: &a0 "
      "[x,x,x,x,x,x,x,x,x,x]";
  for (int i = 1; i < 9; ++i) {
    bomb += ", a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int j = 0; j < 10; ++j) bomb += (j == 0 ? "*a" : ",*a") + std::to_string(i - 1);
    bomb += "]";
  }
  bomb += "}}]}";
  EXPECT_NE(error_of(bomb).find("the document is too large"), std::string::npos) << error_of(bomb);
}

// yaml-cpp makes empty documents of these for ever.
TEST(ChainYaml, EndsWhereNoNodeCanBegin) {
  EXPECT_EQ(error_of(",ll e"), "edge.yaml:1: is not YAML: unexpected character");
  EXPECT_EQ(error_of("kind: Chain\n---\n# next\n, a"),
            "edge.yaml:4: is not YAML: unexpected character");
  EXPECT_EQ(error_of("---\n---\n---\n"), "edge.yaml: holds no document");
}

TEST(ChainYaml, FindsTheLineOfAPathOrOfWhatHoldsIt) {
  const auto parsed = parse_chains(
      "kind: Chain\nmetadata: {name: edge}\nspec:\n  functions:\n    - type: firewall\n      "
      "config:\n        rules:\n"
      "          - name: web\n            source: [10.0.0.0/33]\n",
      "edge.yaml");
  ASSERT_TRUE(parsed.ok()) << parsed.error().text();
  const ChainDocument& document = parsed->front();
  EXPECT_EQ(document.place("spec.functions[0].config.rules[0].source[0]: bad"), "edge.yaml:9: ");
  EXPECT_EQ(document.place("spec.functions[0].config.rules[0].action: is missing"),
            "edge.yaml:8: ");
  EXPECT_EQ(document.place("spec.inside: is missing"), "edge.yaml:4: ");
  EXPECT_EQ(document.place("name: bad"), "edge.yaml:2: ");
  EXPECT_EQ(document.place("something else"), "edge.yaml: ");
}

constexpr char kWithRulesFile[] =
    "kind: Chain\nmetadata: {name: edge}\nspec:\n  functions:\n    - type: firewall\n"
    "      config: {rules_file: rules/web.yaml}\n";

TEST(ChainYaml, RulesOfAFileTakeItsPlace) {
  const auto read = [](const std::string& name) -> Result<std::string> {
    if (name == "chains/rules/web.yaml")
      return std::string(
          "# the web\n- {name: web, action: accept}\n- name: rest\n  action: drop\n");
    return invalid(name, "cannot be read");
  };
  const auto parsed = parse_chains(kWithRulesFile, "chains/edge.yaml", read);
  ASSERT_TRUE(parsed.ok()) << parsed.error().text();
  const ChainDocument& document = parsed->front();
  const auto& fields = document.chain.spec().functions(0).config().fields();
  EXPECT_FALSE(fields.contains("rules_file"));
  EXPECT_EQ(fields.at("rules").list_value().values_size(), 2);
  EXPECT_EQ(document.place("spec.functions[0].config.rules[1].action: bad"),
            "chains/rules/web.yaml:4: ");
  EXPECT_EQ(document.place("spec.functions[0].type: bad"), "chains/edge.yaml:5: ");

  EXPECT_EQ(parse_chains(kWithRulesFile, "other/edge.yaml", read).error().text(),
            "other/edge.yaml:6: spec.functions[0].config.rules_file: "
            "other/rules/web.yaml: cannot be read");
  const auto text = [&](const std::string& content) {
    return parse_chains(kWithRulesFile, "edge.yaml",
                        [&](const std::string&) -> Result<std::string> { return content; })
        .error()
        .text();
  };
  EXPECT_EQ(
      text("rules: []"),
      "rules/web.yaml:1: spec.functions[0].config.rules: is a map; a list of rules is needed");
  EXPECT_NE(text("- {a: [}").find("rules/web.yaml:1: is not YAML"), std::string::npos);
  EXPECT_EQ(text(", a"), "rules/web.yaml:1: is not YAML: unexpected character");
  EXPECT_EQ(text("- {name: web}\n---\n- {name: mail}\n"),
            "rules/web.yaml: holds 2 documents; one list of rules is needed");
}

TEST(ChainYaml, TheChainOfTheDemoIsRead) {
  std::ifstream file(std::string(FLOWKEEP_SOURCE) + "/configs/chains/edge.yaml");
  std::ostringstream text;
  text << file.rdbuf();
  const auto parsed = parse_chains(text.str(), "edge.yaml");
  ASSERT_TRUE(parsed.ok()) << parsed.error().text();
  EXPECT_EQ(parsed->front().chain.spec().functions_size(), 2);
}

// ---- The program
// ------------------------------------------------------------------------------------

struct Ended {
  int code;
  std::string out, err;
};

Ended run(const std::vector<std::string>& arguments, const std::string& environment = "",
          const std::string& input = "") {
  std::istringstream in(input);
  std::ostringstream out, err;
  const int code = run_flowkeepctl(arguments, environment, in, out, err);
  return {code, out.str(), err.str()};
}

TEST(Ctl, CheckNamesRulesThatDoNotMatter) {
  const std::string head =
      "kind: Chain\nmetadata: {name: edge}\nspec:\n  functions:\n    - type: firewall\n"
      "      config:\n        rules:\n          - {name: net, action: accept}\n";
  const Ended found = run({"check", "-"}, "",
                          head + "          - {name: host, action: drop, source: [10.0.0.1]}\n");
  EXPECT_EQ(found.code, kExitCheckFailed);
  EXPECT_EQ(
      found.out,
      "-:9: rule \"host\" is never reached: rule \"net\" before it matches all that it does\n");
  const Ended clean = run({"check", "-"}, "", head);
  EXPECT_EQ(clean.code, kExitOk);
}

TEST(Ctl, CheckNamesRulesThatWouldBeRefused) {
  const std::string head =
      "kind: Chain\nmetadata: {name: edge}\nspec:\n  functions:\n    - type: firewall\n"
      "      config:\n        rules:\n          - {name: net, action: accept}\n";
  for (const char* rule : {"          - {name: bad, action: drop, source: [10.0.0.1/33]}\n",
                           "          - {name: bad, action: drop, sauce: [10.0.0.1]}\n"}) {
    const Ended ended = run({"check", "-"}, "", head + rule);
    EXPECT_EQ(ended.code, kExitRefused) << rule;
    EXPECT_EQ(ended.out, "") << rule;
    EXPECT_NE(ended.err.find("flowkeepctl: -:9: spec.functions[0].config"), std::string::npos)
        << ended.err;
  }
}

TEST(Ctl, WrongUsageIsTwo) {
  const std::vector<std::vector<std::string>> kWrong = {
      {},
      {"frobnicate"},
      {"get"},
      {"get", "pods"},
      {"get", "chains", "a", "b"},
      {"get", "chains", "--count", "1"},
      {"apply"},
      {"apply", "-f"},
      {"delete", "chain"},
      {"describe", "worker", "1"},
      {"drill"},
      {"drill", "kill-worker", "--count", "0"},
      {"drill", "kill-worker", "--count", "many"},
      {"drill", "storm", "--rate", "0"},
      {"drill", "storm", "--rate", "20000"},
      {"drill", "storm", "--seed", "first"},
      {"top", "--interval", "0"},
      {"top", "--once=yes"},
      {"get", "chains", "-o", "xml"},
      {"--unknown", "get", "chains"},
  };
  for (const auto& arguments : kWrong) {
    const Ended ended = run(arguments);
    EXPECT_EQ(ended.code, kExitUsage) << (arguments.empty() ? "" : arguments[0]) << ended.err;
    EXPECT_TRUE(ended.err.starts_with("flowkeepctl: ")) << ended.err;
    EXPECT_EQ(ended.out, "");
  }
}

TEST(Ctl, HelpNeedsNoController) {
  EXPECT_EQ(run({"help"}).code, kExitOk);
  EXPECT_EQ(run({"get", "chains", "--help"}).code, kExitOk);
  EXPECT_NE(run({"help"}).out.find("Exit codes"), std::string::npos);
  EXPECT_EQ(run({"version"}).out, "flowkeepctl " FLOWKEEP_VERSION "\n");
}

TEST(Ctl, SaysThatNoControllerAnswersAndWhatToDo) {
  const std::string expected =
      "flowkeepctl: controller at 127.0.0.1:1 cannot be reached (connection refused); start it "
      "with ./flowkeep up; "
      "the dataplane keeps running without it\n";
  const std::vector<std::vector<std::string>> kCommands = {{"get", "chains"},
                                                           {"top", "--once"},
                                                           {"drill", "kill-worker"},
                                                           {"events", "--watch"},
                                                           {"flows"}};
  for (auto arguments : kCommands) {
    EXPECT_EQ(run(arguments, "127.0.0.1:1").code, kExitUnreachable);
    arguments.insert(arguments.begin(), {"--controller", "127.0.0.1:1"});
    const Ended ended = run(arguments, "127.0.0.1:2");
    EXPECT_EQ(ended.code, kExitUnreachable);
    EXPECT_EQ(ended.err, expected);
  }
}

TEST(Ctl, WrongYamlIsRefusedBeforeTheControllerIsAsked) {
  const Ended ended = run({"apply", "-f", "-"}, "127.0.0.1:1", "kind: Chain\nspce: {}\n");
  EXPECT_EQ(ended.code, kExitRefused);
  EXPECT_EQ(ended.err,
            "flowkeepctl: standard input:2: spce: unknown field; accepted: apiVersion, kind, "
            "metadata, spec\n");
  EXPECT_EQ(run({"apply", "-f", "/nonexistent.yaml"}).code, kExitRefused);
}

TEST(Ctl, TimeoutsSuitTheCommand) {
  EXPECT_EQ(CommandLine::parse({"get", "chains"}, "")->timeout().count(), 10'000);
  EXPECT_EQ(CommandLine::parse({"get", "chains", "--timeout=2.5"}, "")->timeout().count(), 2'500);
  EXPECT_EQ(CommandLine::parse({"drill", "kill-worker", "--count", "100"}, "")->timeout().count(),
            330'000);
  EXPECT_EQ(CommandLine::parse({"get", "chains"}, "")->controller(), "127.0.0.1:7470");
}

TEST(Plot, DrawsColumnsInBothCharacterSets) {
  const std::vector<double> values = {0, 5, 10, -1, 20};
  EXPECT_EQ(plot_columns(values, 20, 2, Characters::kUnicode),
            (std::vector<std::string>{"    █", " ▄█ █"}));
  EXPECT_EQ(plot_columns(values, 20, 2, Characters::kAscii),
            (std::vector<std::string>{"    #", " .# #"}));
  EXPECT_EQ(plot_columns({0, 0}, 0, 1, Characters::kAscii), (std::vector<std::string>{"  "}));
  EXPECT_EQ(rate_text(1'210'000), "1.21 M");
  EXPECT_EQ(rate_text(240'000), "240.0 k");
}

TEST(DrillReport, ShowsPercentilesPlotsAndTheWorst) {
  v1::DrillReport report;
  report.set_kind("storm");
  report.set_kills(10'000);
  report.set_seed(42);
  report.set_medium("tmpfs");
  report.set_medium_survives("worker and node-process death");
  report.set_emulated(true);
  report.mutable_detect_us()->set_count(10'000);
  report.mutable_detect_us()->set_p999(2'500);
  for (int bin = 0; bin < 60; ++bin) report.mutable_timeline()->add_median_pps(bin == 20 ? 0 : 1e6);
  for (int bin = 0; bin < 60; ++bin) report.mutable_timeline()->add_worst_pps(5e5);
  report.mutable_timeline()->set_bin_ms(1);
  report.mutable_timeline()->set_first_ms(-20);
  report.add_injections()->set_victim("successor");
  v1::DrillCheck& check = *report.add_checks();
  check.set_name("packets lost");
  check.set_measured(3);
  std::ostringstream out;
  print_drill_report(out, report, Characters::kAscii);
  for (const char* expected :
       {"Drill storm\n", "faults              10000", "seed                42",
        "tmpfs: survives worker and node-process death; flushes are emulated", "2.50 ms",
        "     1.00 M |#################### #######################################\n", "-20 ms",
        "^ fault", "successor", "packets lost   FAILED          3"}) {
    EXPECT_NE(out.str().find(expected), std::string::npos) << expected << "\nin\n" << out.str();
  }
}

TEST(Table, AlignsItsColumns) {
  Table table({"NAME", ">COUNT", "STATE"});
  table.add({"a", "1", ""});
  table.add({"longer", "20000", "ok"});
  std::ostringstream out;
  table.print(out);
  EXPECT_EQ(out.str(),
            "NAME     COUNT   STATE\n"
            "a            1\n"
            "longer   20000   ok\n");
}

TEST(Table, ShortFormsOfQuantities) {
  EXPECT_EQ(age_text(0, 100), "-");
  EXPECT_EQ(age_text(100, 142.9), "42s");
  EXPECT_EQ(age_text(0.5, 200.5), "3m20s");
  EXPECT_EQ(age_text(1, 1 + 5 * 3'600 + 600), "5h10m");
  EXPECT_EQ(age_text(1, 1 + 12 * 86'400), "12d");
  EXPECT_EQ(bytes_text(256ull << 20), "256.0 MiB");
  EXPECT_EQ(microseconds_text(-1), "-");
  EXPECT_EQ(microseconds_text(87), "87 us");
  EXPECT_EQ(microseconds_text(1'200), "1.20 ms");
  EXPECT_EQ(microseconds_text(2.31e6), "2.31 s");
}

}  // namespace
}  // namespace flowkeep
