#include "dataplane/chain_revision.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace flowkeep {
namespace {

namespace fs = std::filesystem;
using node::v1::ChainRevision;

NodeConfig two_ports() {
  NodeConfig config;
  config.name = "edge-1";
  config.worker_slots = 4;
  for (const auto& [name, role] :
       {std::pair{"lan", Side::kInside}, {"wan", Side::kOutside}, {"wan2", Side::kOutside}}) {
    PortConfig port;
    port.name = name;
    port.role = role;
    config.ports.push_back(port);
  }
  return config;
}

ChainRevision good_revision(const std::string& chain = "edge") {
  ChainRevision revision;
  revision.set_chain(chain);
  revision.set_revision(3);
  revision.set_inside("lan");
  revision.set_outside("wan");
  revision.set_workers(2);
  revision.set_buckets(64);
  node::v1::Function& nat = *revision.add_functions();
  nat.set_type("nat44");
  (*nat.mutable_config()->mutable_fields())["external_addresses"]
      .mutable_list_value()
      ->add_values()
      ->set_string_value("203.0.113.10");
  return revision;
}

// ---- check_revision()

struct Mistake {
  const char* name;
  void (*make)(ChainRevision&);
  const char* field;
  const char* message;
};
void PrintTo(const Mistake& mistake, std::ostream* out) {
  *out << mistake.name;
}
class RevisionMistake : public testing::TestWithParam<Mistake> {};

TEST_P(RevisionMistake, ErrorNamesFieldValueAndWhatIsAccepted) {
  ChainRevision revision = good_revision();
  GetParam().make(revision);
  const Result<void> checked = check_revision(revision, two_ports());
  ASSERT_FALSE(checked.ok());
  EXPECT_EQ(checked.error().kind, Error::Kind::kInvalid);
  EXPECT_EQ(checked.error().field, GetParam().field);
  EXPECT_EQ(checked.error().message, GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    All, RevisionMistake,
    testing::Values(
        Mistake{"NameEmpty", [](ChainRevision& r) { r.set_chain(""); }, "metadata.name",
                "\"\" is not accepted; 1 to 63 of a-z, 0-9 and - are"},
        Mistake{"NameIsAPath", [](ChainRevision& r) { r.set_chain("../etc"); }, "metadata.name",
                "\"../etc\" is not accepted; 1 to 63 of a-z, 0-9 and - are"},
        Mistake{"NameUpperCase", [](ChainRevision& r) { r.set_chain("Edge"); }, "metadata.name",
                "\"Edge\" is not accepted; 1 to 63 of a-z, 0-9 and - are"},
        Mistake{"NameLong", [](ChainRevision& r) { r.set_chain(std::string(64, 'a')); },
                "metadata.name",
                "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\" is not "
                "accepted; 1 to 63 of a-z, 0-9 "
                "and - are"},
        Mistake{"SamePort", [](ChainRevision& r) { r.set_outside("lan"); }, "spec.outside",
                "port \"lan\" is used twice; a chain needs two different ports"},
        Mistake{"InsideUnknown", [](ChainRevision& r) { r.set_inside("dmz"); }, "spec.inside",
                "port \"dmz\" does not exist on node \"edge-1\"; it has: lan, wan, wan2"},
        Mistake{"OutsideUnknown", [](ChainRevision& r) { r.set_outside(""); }, "spec.outside",
                "port \"\" does not exist on node \"edge-1\"; it has: lan, wan, wan2"},
        Mistake{"InsideRole", [](ChainRevision& r) { r.set_inside("wan2"); }, "spec.inside",
                "port \"wan2\" has the role outside; a port of the other role is accepted"},
        Mistake{"OutsideRole", [](ChainRevision& r) { r.set_inside("wan"), r.set_outside("lan"); },
                "spec.inside",
                "port \"wan\" has the role outside; a port of the other role is accepted"},
        Mistake{"Workers", [](ChainRevision& r) { r.set_workers(5); }, "spec.workers",
                "5 is not accepted; node \"edge-1\" has 4 worker slots"},
        Mistake{"BucketsFew", [](ChainRevision& r) { r.set_buckets(8); }, "spec.buckets",
                "8 is not accepted; a power of two from 16 to 1024 is"},
        Mistake{"BucketsMany", [](ChainRevision& r) { r.set_buckets(2048); }, "spec.buckets",
                "2048 is not accepted; a power of two from 16 to 1024 is"},
        Mistake{"BucketsOdd", [](ChainRevision& r) { r.set_buckets(96); }, "spec.buckets",
                "96 is not accepted; a power of two from 16 to 1024 is"}),
    [](const auto& test) { return test.param.name; });

TEST(ChainRevisionCheck, AcceptsWhatTheNodeCanRun) {
  const NodeConfig config = two_ports();
  EXPECT_TRUE(check_revision(good_revision(), config).ok());
  EXPECT_TRUE(check_revision(good_revision(std::string(63, 'z')), config).ok());
  ChainRevision revision = good_revision();
  for (const uint32_t buckets : {0U, 16U, 256U, 1024U}) {
    revision.set_buckets(buckets);
    EXPECT_TRUE(check_revision(revision, config).ok()) << buckets;
  }
  for (const uint32_t workers : {0U, 1U, 4U}) {
    revision.set_workers(workers);
    EXPECT_TRUE(check_revision(revision, config).ok()) << workers;
  }
}

// ---- chain_spec()

TEST(ChainSpecOfRevision, CarriesNameRevisionAndFunctionsInOrder) {
  ChainRevision revision = good_revision();
  revision.add_functions()->set_type("firewall");
  const Result<ChainSpec> spec = chain_spec(revision);
  ASSERT_TRUE(spec.ok()) << spec.error().text();
  EXPECT_EQ(spec->name, "edge");
  EXPECT_EQ(spec->revision, 3U);
  ASSERT_EQ(spec->functions.size(), 2U);
  EXPECT_EQ(spec->functions[0].type, "nat44");
  EXPECT_EQ(spec->functions[0].config_json, R"({"external_addresses":["203.0.113.10"]})");
  EXPECT_EQ(spec->functions[1].type, "firewall");
  EXPECT_EQ(spec->functions[1].config_json, "{}");
}

TEST(ChainSpecOfRevision, BytesGiveTheSame) {
  const Result<ChainSpec> spec = chain_spec_from_bytes(good_revision().SerializeAsString());
  ASSERT_TRUE(spec.ok()) << spec.error().text();
  EXPECT_EQ(spec->functions.at(0).config_json, R"({"external_addresses":["203.0.113.10"]})");
  EXPECT_FALSE(chain_spec_from_bytes("\xff\xff\xff").ok());
}

// ---- On disk

class RevisionsOnDisk : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "flowkeep-revisions-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { fs::remove_all(directory_); }
  // Sorted by chain, one line each.
  std::vector<std::string> loaded() {
    problems_.clear();
    std::vector<std::string> lines;
    for (const ChainRevision& revision : load_revisions(directory_.string(), problems_)) {
      lines.push_back(revision.chain() + " " + std::to_string(revision.revision()));
    }
    std::sort(lines.begin(), lines.end());
    return lines;
  }
  void write(const std::string& name, const std::string& bytes) {
    std::ofstream(directory_ / "chains" / name, std::ios::binary) << bytes;
  }

  fs::path directory_;
  std::vector<std::string> problems_;
};

using Lines = std::vector<std::string>;

TEST_F(RevisionsOnDisk, ANodeThatNeverRanAChainHasNone) {
  EXPECT_EQ(loaded(), Lines{});
  EXPECT_EQ(problems_, Lines{});
}

TEST_F(RevisionsOnDisk, WhatWasSavedIsLoadedWhole) {
  ASSERT_TRUE(save_revision(directory_.string(), good_revision()).ok());
  const std::vector<ChainRevision> revisions = load_revisions(directory_.string(), problems_);
  ASSERT_EQ(revisions.size(), 1U);
  EXPECT_EQ(revisions[0].DebugString(), good_revision().DebugString());
  EXPECT_EQ(problems_, Lines{});
}

TEST_F(RevisionsOnDisk, TheLastRevisionOfEachChainIsKept) {
  ChainRevision next = good_revision("a");
  ASSERT_TRUE(save_revision(directory_.string(), next).ok());
  ASSERT_TRUE(save_revision(directory_.string(), good_revision("b")).ok());
  next.set_revision(4);
  ASSERT_TRUE(save_revision(directory_.string(), next).ok());
  EXPECT_EQ(loaded(), (Lines{"a 4", "b 3"}));
}

TEST_F(RevisionsOnDisk, AForgottenChainIsGoneAndTheOthersStay) {
  for (const char* chain : {"a", "b"})
    ASSERT_TRUE(save_revision(directory_.string(), good_revision(chain)).ok());
  ASSERT_TRUE(forget_revision(directory_.string(), "a").ok());
  EXPECT_EQ(loaded(), Lines{"b 3"});
  EXPECT_TRUE(forget_revision(directory_.string(), "a").ok());  // it is not there: as wanted
}

TEST_F(RevisionsOnDisk, CorruptFilesAreSkippedAndNamed) {
  ASSERT_TRUE(save_revision(directory_.string(), good_revision("whole")).ok());
  const std::string torn = good_revision("torn").SerializeAsString();
  write("torn.revision", torn.substr(0, torn.size() - 1));
  write("noise.revision", "\xff\xff\xff\xff");
  EXPECT_EQ(loaded(), Lines{"whole 3"});
  ASSERT_EQ(problems_.size(), 2U);
  std::sort(problems_.begin(), problems_.end());
  EXPECT_TRUE(problems_[0].starts_with((directory_ / "chains" / "noise.revision").string()))
      << problems_[0];
  EXPECT_TRUE(problems_[1].starts_with((directory_ / "chains" / "torn.revision").string()))
      << problems_[1];
}

// A node killed while it saved: the old revision is what counts, the new one is overwritten.
TEST_F(RevisionsOnDisk, AnUnfinishedSaveIsIgnored) {
  ASSERT_TRUE(save_revision(directory_.string(), good_revision()).ok());
  write("edge.revision.new", "half of a rev");
  EXPECT_EQ(loaded(), Lines{"edge 3"});
  EXPECT_EQ(problems_, Lines{});
  ASSERT_TRUE(save_revision(directory_.string(), good_revision()).ok());
  EXPECT_FALSE(fs::exists(directory_ / "chains" / "edge.revision.new"));
}

TEST_F(RevisionsOnDisk, ADirectoryThatCannotBeWrittenIsNamed) {
  std::ofstream(directory_ / "file") << "in the way";
  const Result<void> saved = save_revision((directory_ / "file").string(), good_revision());
  ASSERT_FALSE(saved.ok());
  EXPECT_EQ(saved.error().field, "state_dir");
  EXPECT_NE(saved.error().message.find("edge.revision cannot be written"), std::string::npos)
      << saved.error().text();
}

}  // namespace
}  // namespace flowkeep
