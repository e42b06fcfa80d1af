// nat44: source NAT for IPv4 (RFC 3022, 4787, 5382, 5508, 6888, 7857). docs/nat44.md has each
// requirement with the test that shows it.
//
// Mapping: an inside endpoint has one external endpoint towards everybody (RFC 4787 REQ-1), from
// its first flow to the end of its last, and shares it with nobody. The platform keeps it beside
// the endpoint's flows (state/index_keys.h), so it costs nothing of its own. Where its port comes
// from: nfs/nat44/port_choice.h; what is kept for each host: nfs/nat44/subscribers.h. Filtering: a
// packet from the outside that belongs to no flow opens one if filter_lets_in() says so.
// Hairpinning: a packet to an external address is translated as any other; the switch then takes it
// as a new arrival from the outside, and so its source is an external endpoint (RFC 4787 REQ-9a).
// Other families than IPv4 pass as they are. There are no application layer gateways.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nfs/function.h"
#include "nfs/nat44/nat44.pb.h"
#include "nfs/nat44/settings.h"
#include "nfs/nat44/subscribers.h"

namespace flowkeep {

class Nat44 {
 public:
  using Config = nfs::Nat44Config;
  static constexpr std::string_view kType = "nat44";
  static constexpr Scope kScope = Scope::kEndpoint;
  static constexpr bool kMapsEndpoints = true;
  // Version 1 did not note with a mapping what it had counted for it, so its counts are worth
  // nothing; flows go on.
  static constexpr uint32_t kStateVersion = 2;
  struct Hard {
    Endpoint external;  // losing it breaks open connections. Not translated: the inside endpoint

    // The flow is counted for its contact. In bytes of the endpoint that are zero otherwise.
    bool counts_contact() const { return external.zero.raw != 0; }
    void set_counts_contact() { external.zero.raw = 1; }
  };
  static_assert(sizeof(Hard) == 8);
  struct Soft {};

  static Result<Nat44> create(const Config& config, const FunctionContext& context);
  Soft make_soft() const { return {}; }
  Decision open(NewFlow<Nat44>& flow, Soft& soft) const;
  void close(EndingFlow<Nat44>& flow, Soft& soft) const;
  void process(Burst<Nat44>& burst, Soft& soft) const;
  std::optional<Hard> migrate(uint32_t from_version, std::span<const uint8_t> old) const;
  bool still_allowed(const FlowRecord& flow, const Hard& hard, const KeyedState& keyed,
                     Soft& soft) const;
  // Gives back leases of units without mappings.
  void sweep(SweptBucket& bucket, Soft& soft) const;

  FlowKey outside_key(const FlowKey& inside, const Hard& hard) const {
    return translated_key(inside, hard.external);
  }
  std::span<const Be32> external_addresses() const { return settings_->addresses; }
  std::span<const Forward> forwards() const { return settings_->forwards.all(); }
  bool passes_untranslated() const { return !settings_->untranslated.empty(); }
  // Whatever belongs to a host meets in its bucket.
  Scope scope() const {
    return settings_->counts_hosts() || settings_->deterministic ? Scope::kHost : kScope;
  }
  // A host, a block and a contact: another configuration may have counted what ends now.
  uint32_t keyed_changes() const { return 3; }
  std::vector<std::string> counter_names() const;  // of Nat44Counter
  // A mapping, and its new block.
  uint32_t most_counts() const { return settings_->blocks ? 2 : 1; }
  const Nat44Settings& settings() const { return *settings_; }

 private:
  explicit Nat44(std::unique_ptr<const Nat44Settings> settings);
  Decision open_from_inside(NewFlow<Nat44>& flow) const;
  Decision open_from_outside(NewFlow<Nat44>& flow) const;
  static Decision leave_alone(NewFlow<Nat44>& flow);
  bool filter_lets_in(NewFlow<Nat44>& flow, const FlowKey& inside) const;
  bool tracks_contacts() const { return settings_->filtering == Filtering::kAddressDependent; }
  bool accept(NewFlow<Nat44>& flow, const Endpoint& external) const;
  bool unit_is_idle(SweptBucket& bucket, uint32_t address, uint32_t unit) const;

  std::unique_ptr<const Nat44Settings> settings_;  // its address is kept by subscribers_
  Subscribers subscribers_;
};

}  // namespace flowkeep
