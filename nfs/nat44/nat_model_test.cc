// nat44 in each configuration against a naive model of a NAT, on random traffic: what passes, with
// which translation, and what is refused why; and how many flows there are. Then the same traffic
// with a worker that dies in every burst, and with nothing different.
#include <filesystem>
#include <map>
#include <random>
#include <set>

#include "nfs/nat44/nat_fixture.h"

namespace flowkeep {
namespace {

struct Configuration {
  const char* name;
  const char* fields;
  Filtering filtering;
  uint32_t mappings_per_host;  // 0: no limit
  uint32_t ports_per_host;     // of each protocol; 0: no limit
};
const Configuration kConfigurations[] = {
    {"EndpointIndependent", R"("filtering":"endpoint_independent")",
     Filtering::kEndpointIndependent, 0, 0},
    {"AddressDependent", R"("filtering":"address_dependent")", Filtering::kAddressDependent, 0, 0},
    {"AddressAndPortDependent", R"("preserve_ports":true)", Filtering::kAddressAndPortDependent, 0,
     0},
    {"Limited", R"("mappings_per_host":12)", Filtering::kAddressAndPortDependent, 12, 0},
    {"Blocks", R"("port_blocks":{"ports":64},"filtering":"endpoint_independent")",
     Filtering::kEndpointIndependent, 0, 64},
    {"Deterministic", R"("deterministic":{"inside":"10.0.0.0/24"},"filtering":"address_dependent")",
     Filtering::kAddressDependent, 0, 192},
};

using End = std::pair<std::string, uint16_t>;

class NatModel {
 public:
  explicit NatModel(const Configuration& configuration) : configuration_(configuration) {}

  // Why a packet from the inside is refused; empty: it passes.
  std::string_view refusal_out(const End& inside) const {
    const auto mapping = mappings_.find(inside);
    if (mapping != mappings_.end()) return "";
    const auto of_host = static_cast<uint32_t>(std::ranges::count_if(
        mappings_, [&](const auto& other) { return other.first.first == inside.first; }));
    if (configuration_.mappings_per_host != 0 && of_host >= configuration_.mappings_per_host)
      return "nat_host_limit";
    if (configuration_.ports_per_host != 0 && of_host >= configuration_.ports_per_host)
      return "nat_ports_exhausted";
    return "";
  }
  // What the packet must look like, or nothing if the choice is the NAT's.
  std::optional<End> external_of(const End& inside) const {
    const auto mapping = mappings_.find(inside);
    if (mapping == mappings_.end()) return std::nullopt;
    return mapping->second.external;
  }
  // Why a packet from the outside is refused that lets_in() does not let in.
  std::string_view refusal_in(const End& external) const {
    if (!leased_.contains(block_of(external))) return "no_port_lease";
    return is_taken(external) ? "nat_filtered" : "nat_no_mapping";
  }
  bool is_taken(const End& external) const { return owners_.contains(external); }
  // Whose packet from the outside this is, if it passes.
  std::optional<End> lets_in(const End& external, const End& remote) const {
    const auto owner = owners_.find(external);
    if (owner == owners_.end()) return std::nullopt;
    for (const auto& [contact, seen] : mappings_.at(owner->second).flows) {
      if (contact == remote) return owner->second;
      if (configuration_.filtering == Filtering::kAddressDependent &&
          contact.first == remote.first) {
        return owner->second;
      }
    }
    if (configuration_.filtering == Filtering::kEndpointIndependent) return owner->second;
    return std::nullopt;
  }
  void see(const End& inside, const End& external, const End& remote, uint32_t now_s) {
    mappings_[inside].external = external;
    mappings_[inside].flows[remote] = now_s;
    owners_[external] = inside;
    leased_.insert(block_of(external));
  }
  void pass_time(uint32_t now_s) {
    for (auto mapping = mappings_.begin(); mapping != mappings_.end();) {
      std::erase_if(mapping->second.flows,
                    [&](const auto& flow) { return now_s - flow.second > 300; });
      if (mapping->second.flows.empty()) {
        owners_.erase(mapping->second.external);
        mapping = mappings_.erase(mapping);
      } else {
        ++mapping;
      }
    }
    // What nobody has a port of is given back.
    leased_.clear();
    for (const auto& [external, inside] : owners_) leased_.insert(block_of(external));
  }
  uint64_t flows() const {
    uint64_t flows = 0;
    for (const auto& [inside, mapping] : mappings_) flows += mapping.flows.size();
    return flows;
  }
  const std::map<End, End>& owners() const { return owners_; }
  std::map<std::string_view, uint64_t> fates;  // of packets from the outside

 private:
  struct Mapping {
    End external;
    std::map<End, uint32_t> flows;  // remote end: last seen
  };
  static int block_of(const End& external) { return external.second / 64; }

  const Configuration& configuration_;
  std::map<End, Mapping> mappings_;  // by inside end
  std::map<End, End> owners_;        // external end: inside end
  std::set<int> leased_;             // blocks of ports, as far as what left to the outside tells
};

class NatModelTest : public testing::TestWithParam<std::tuple<Configuration, uint32_t>> {
 protected:
  // What became of each packet.
  std::vector<Departure> play(const PoolDirectory& directory, Crash crash) {
    const auto& [configuration, seed] = GetParam();
    const ChainSpec spec{"test",
                         1,
                         {{"nat44", R"({"external_addresses":["203.0.113.10"],)" +
                                        std::string(configuration.fields) + "}"}}};
    ChainHarness harness(spec, directory, crash);
    NatModel model(configuration);
    std::mt19937 random(seed);
    const auto below = [&random](size_t n) { return static_cast<uint32_t>(random() % n); };
    std::vector<Departure> all;
    for (int step = 0; step < 3000 && !HasFailure(); ++step) {
      SCOPED_TRACE("step " + std::to_string(step));
      const End remote{below(2) == 0 ? kRemote : kOtherRemote, static_cast<uint16_t>(1 + below(3))};
      if (below(3) != 0 || model.owners().empty()) {
        const End inside{below(2) == 0 ? kHost : kOtherHost,
                         static_cast<uint16_t>(2000 + below(250))};
        all.push_back(send_out(harness, model, inside, remote));
      } else {
        End external = std::next(model.owners().begin(), below(model.owners().size()))->first;
        if (below(8) == 0) external.second ^= 1;
        if (below(8) == 0) external.second = static_cast<uint16_t>(random());
        all.push_back(send_in(harness, model, external, remote));
      }
      if (below(100) == 0) {
        harness.now_s += std::array{100u, 200u, 301u}[below(3)];
        while (harness.sweep_all() != 0) {
        }
        model.pass_time(harness.now_s);
        EXPECT_EQ(harness.flows(), model.flows());
      }
    }
    // The traffic must have reached every fate, or the test would show little.
    for (const char* fate : {"none", "nat_no_mapping", "no_port_lease"}) {
      EXPECT_GT(model.fates[fate], 20U) << fate;
    }
    if (configuration.filtering == Filtering::kEndpointIndependent) {
      EXPECT_EQ(model.fates["nat_filtered"], 0U);
    } else {
      EXPECT_GT(model.fates["nat_filtered"], 20U);
    }
    return all;
  }

 private:
  static Departure send_out(ChainHarness& harness, NatModel& model, const End& inside,
                            const End& remote) {
    const auto packet = [&](const End& from) {
      return PacketBuilder::udp(from.first, from.second, remote.first, remote.second).build();
    };
    const std::string_view refused = model.refusal_out(inside);
    Departure departure = harness.send(Side::kInside, packet(inside));
    EXPECT_EQ(drop_reason_name(departure.reason), refused.empty() ? "none" : refused);
    if (departure.reason != DropReason::kNone) return departure;
    PacketMeta meta;
    parse(departure.frame.data(), static_cast<uint16_t>(departure.frame.size()), Side::kInside, {},
          meta);
    const End external{to_string(meta.key.src), meta.key.src_port.host()};
    const auto expected = model.external_of(inside);
    if (expected) {
      EXPECT_EQ(external, *expected);
    } else {
      EXPECT_FALSE(model.is_taken(external)) << external.second << " is another's";
    }
    EXPECT_EQ(departure.frame, packet(external));
    model.see(inside, external, remote, harness.now_s);
    return departure;
  }
  static Departure send_in(ChainHarness& harness, NatModel& model, const End& external,
                           const End& remote) {
    const auto packet = [&](const End& to) {
      return PacketBuilder::udp(remote.first, remote.second, to.first, to.second).build();
    };
    const auto inside = model.lets_in(external, remote);
    Departure departure = harness.send(Side::kOutside, packet(external));
    EXPECT_EQ(drop_reason_name(departure.reason), inside ? "none" : model.refusal_in(external));
    ++model.fates[drop_reason_name(departure.reason)];
    if (departure.reason != DropReason::kNone || !inside) return departure;
    EXPECT_EQ(departure.frame, packet(*inside));
    model.see(*inside, external, remote, harness.now_s);
    return departure;
  }
};
INSTANTIATE_TEST_SUITE_P(All, NatModelTest,
                         testing::Combine(testing::ValuesIn(kConfigurations),
                                          testing::Values(1u, 20240607u)),
                         [](const auto& info) {
                           return std::get<0>(info.param).name +
                                  std::to_string(std::get<1>(info.param));
                         });

// And with the handover after every burst; the name is that of docs/nat44.md.
TEST_P(NatModelTest, NatDoesWhatTheModelSaysAlsoWithACrashInEveryBurst) {
  PoolDirectory formatted;
  open_pool(formatted, ChainHarness::kPoolBytes);
  std::vector<Departure> plain;
  for (const Mode mode : kEveryMode) {
    SCOPED_TRACE("mode " + std::to_string(static_cast<int>(mode)));
    // The same pool for each, and so the same hash secret, on which the choice of ports depends.
    PoolDirectory directory;
    std::filesystem::copy_file(formatted.file(), directory.file());
    const std::vector<Departure> departures = play(directory, mode);
    if (mode == Mode::kPlain) plain = departures;
    EXPECT_TRUE(departures == plain);
  }
}

}  // namespace
}  // namespace flowkeep
