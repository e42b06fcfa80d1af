#include "nfs/crash_oracle.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <random>

#include "nfs/chain_runtime.h"
#include "nfs/crash_packets.h"
#include "nfs/firewall/linear_classifier.h"
#include "nfs/parse.h"
#include "nfs/steering.h"
#include "state/flow_text.h"
#include "state/index_keys.h"
#include "state/layout.h"

namespace flowkeep {

namespace {

constexpr uint32_t kFreeLog = kMaxWorkerSlots - 1;  // that no worker of a run has used

std::string flow_text(const FlowRecord& flow) {
  return "flow " + inside_text(flow);
}

RunOracle::FlowKeyBytes bytes_of(const FlowKey& key) {
  RunOracle::FlowKeyBytes bytes;
  std::memcpy(bytes.data(), &key, sizeof(key));
  return bytes;
}

}  // namespace

// Each guest has a host, which counts it.
std::string RunOracle::check_users(const std::vector<FlowRecord>& hosts,
                                   std::map<FlowKeyBytes, uint32_t> guests) {
  for (const FlowRecord& host : hosts) {
    const FlowKeyBytes endpoint = bytes_of(endpoint_key(host.inside_key));
    const uint32_t users = (is_flow(host) ? 1 : 0) + guests[endpoint];
    guests.erase(endpoint);
    if (user_count(host) != users) {
      return flow_text(host) + ": its endpoint counts " + std::to_string(user_count(host)) +
             " flows and has " + std::to_string(users);
    }
  }
  return guests.empty() ? "" : "mapped flows of an endpoint without its mapping";
}

RunOracle::RunOracle(const CrashRun& run) : run_(run) {
  for (const BucketFlows& bucket : run.start_flows) {
    settled_[bucket.bucket] = facts_of(bucket.flows);
  }
  for (const PortLease& lease : run.start_leases) {
    leases_[{lease.address_index, lease.block}] = {lease.bucket, true, {}};
  }
}

RunOracle::~RunOracle() = default;

// ---- What the run had done by now.

void RunOracle::reached(uint64_t mark) {
  const RecordedBurst& burst = run_.bursts[mark & UINT32_MAX];
  Log& log = logs_[burst.log];
  const auto set_leases = [&](bool required) {
    for (const PortLease& lease : burst.leases) {
      Lease& known = leases_[{lease.address_index, lease.block}];
      known.bucket = lease.bucket;
      known.required = required;
    }
  };
  const auto give_back_leases = [&] {
    for (const PortLease& lease : burst.released) {
      Lease& known = leases_[{lease.address_index, lease.block}];
      known.required = false;
      known.before.insert(lease.bucket);
    }
  };
  switch (static_cast<BurstMark>(mark >> 32)) {
    case BurstMark::kBegun:
      log = {&burst, {}, false};
      for (const BucketFlows& bucket : burst.after) {
        log.after.emplace_back(bucket.bucket, facts_of(bucket.flows));
      }
      give_back_leases();
      set_leases(false);
      revision_ = burst.revision;
      now_s_ = burst.now_s;
      return;
    case BurstMark::kCommitted:
    case BurstMark::kPublished:
      log.required = true;
      // A burst that changes no flow commits nothing, and nothing relies on its leases.
      set_leases(!burst.after.empty());
      return;
    case BurstMark::kEnded:
      for (const auto& [bucket, facts] : log.after) settled_[bucket] = facts;
      log = {};
      return;
    case BurstMark::kTakenBack:
      log = {};
      return;
  }
}

uint64_t RunOracle::hash_of(const FlowRecord& flow) {
  const uint64_t facts[] = {
      flow.bucket, static_cast<uint64_t>(flow.phase) << 8 | static_cast<uint64_t>(flow.initiator),
      flow.revision, flow.opened_s, flow.users};
  uint64_t hash = hash_key(flow.inside_key, {1, 2}) ^ hash_key(flow.outside_key, {3, 4});
  for (const uint64_t fact : facts) hash = hash_words(hash, fact, {5, 6});
  for (size_t at = 0; at < sizeof(flow.hard); at += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, flow.hard + at, sizeof(word));
    hash = hash_words(hash, word, {7, 8});
  }
  if (!flow.is_wide()) return hash;
  uint64_t words[sizeof(WideAddresses) / sizeof(uint64_t)];
  std::memcpy(words, &flow.addresses, sizeof(words));
  for (const uint64_t word : words) hash = hash_words(hash, word, {9, 10});
  return hash;
}

RunOracle::Facts RunOracle::facts_of(const std::vector<FlowRecord>& flows) {
  Facts facts;
  for (const FlowRecord& flow : flows) {
    ++facts.flows;
    facts.sum += hash_of(flow);
  }
  return facts;
}

// ---- The recovered pool.

std::string RunOracle::check(Pool& pool) {
  Found found = {};
  std::string what = check_flows(pool, found);
  if (what.empty()) what = check_bursts(found);
  if (what.empty()) what = check_pages(pool);
  if (what.empty()) what = check_leases(pool);
  return what;
}

std::string RunOracle::check_flows(Pool& pool, Found& found) {
  const FlowTable table(pool, 0, kFreeLog);
  std::string what;
  std::map<FlowKeyBytes, uint32_t> guests;  // of each endpoint
  std::vector<FlowRecord> host_records;
  pool.for_each_record(0, [&](uint32_t id, const FlowRecord& flow) {
    if (flow.bucket >= CrashRun::kBuckets) {
      what = flow_text(flow) + ": bucket " + std::to_string(flow.bucket);
      return false;
    }
    ++found[flow.bucket].flows;
    found[flow.bucket].sum += hash_of(flow);
    const WideAddresses addresses[] = {flow.addresses, flow.addresses.reversed()};
    const IndexKeys keys = index_keys(flow);
    for (uint32_t i = 0; i < keys.count; ++i) {
      const RecordId by_key = table.find_indexed(
          flow.bucket, keys.keys[i], hash_key(keys.keys[i], pool.hash_secret()), &addresses[i]);
      if (by_key == id) continue;
      what = flow_text(flow) + (by_key == 0 ? " is not found by a key of its own"
                                            : ": a key of its own finds another record");
    }
    if (is_host(flow)) host_records.push_back(flow);
    if (is_guest(flow)) ++guests[bytes_of(endpoint_key(flow.inside_key))];
    if (what.empty()) what = check_lease_of(flow);
    return what.empty();
  });
  if (what.empty()) what = check_users(host_records, guests);
  if (!what.empty()) return what;
  for (uint32_t bucket = 0; bucket < CrashRun::kBuckets; ++bucket) {
    const uint32_t counted = table.flows(bucket) + table.keyed(bucket);
    if (counted == found[bucket].flows) continue;
    return "bucket " + std::to_string(bucket) + " counts " + std::to_string(counted) +
           " records and holds " + std::to_string(found[bucket].flows);
  }
  return "";
}

// Each log is at the state before or after its burst at hand, in all buckets; after it, if it was
// committed.
std::string RunOracle::check_bursts(const Found& found) const {
  std::array<bool, CrashRun::kBuckets> in_doubt = {};
  for (size_t number = 0; number < logs_.size(); ++number) {
    const Log& log = logs_[number];
    bool is_before = !log.required;
    bool is_after = true;
    for (const auto& [bucket, after] : log.after) {
      in_doubt[bucket] = true;
      is_before = is_before && found[bucket] == settled_[bucket];
      is_after = is_after && found[bucket] == after;
    }
    if (is_before || is_after) continue;
    const auto unchanged = std::ranges::count_if(log.after, [&](const auto& bucket) {
      return found[bucket.first] == settled_[bucket.first];
    });
    const std::string burst = "burst " + std::to_string(log.burst - run_.bursts.data()) +
                              " of log " + std::to_string(number);
    if (unchanged == static_cast<std::ptrdiff_t>(log.after.size())) {
      return burst + " was committed or its packets had left, and nothing of it is there";
    }
    return burst + " is there by halves: of its " + std::to_string(log.after.size()) + " buckets " +
           std::to_string(unchanged) + " are as before it";
  }
  for (uint32_t bucket = 0; bucket < CrashRun::kBuckets; ++bucket) {
    if (in_doubt[bucket] || found[bucket] == settled_[bucket]) continue;
    return "bucket " + std::to_string(bucket) + ", which no open burst changes, holds " +
           std::to_string(found[bucket].flows) + " flows instead of " +
           std::to_string(settled_[bucket].flows) + ", or others";
  }
  return "";
}

// Each page of the chain is one that its bucket knows of.
std::string RunOracle::check_pages(const Pool& pool) const {
  const Regions regions(pool.base(), Geometry::of(pool.bytes()));
  std::array<std::pair<uint32_t, uint32_t>, CrashRun::kBuckets> pages = {};  // of records, of index
  for (uint64_t i = 0; i < regions.geometry().pages; ++i) {
    const auto tag = static_cast<uint32_t>(regions.page_table()[i]);
    if (tag == 0) continue;
    const uint32_t bucket = tag & 0xffff;
    if (tag_chain(tag) != 0 || bucket >= pages.size()) return "a page has the tag of nobody";
    ++(tag_kind(tag) == PageKind::kRecords ? pages[bucket].first : pages[bucket].second);
  }
  for (uint32_t bucket = 0; bucket < pages.size(); ++bucket) {
    const BucketHeader& header = regions.bucket(0, bucket);
    if (pages[bucket] == std::pair(header.record_pages, header.index_pages)) continue;
    return "bucket " + std::to_string(bucket) + " knows of " + std::to_string(header.record_pages) +
           " record pages and " + std::to_string(header.index_pages) +
           " index pages; the page table gives it " + std::to_string(pages[bucket].first) +
           " and " + std::to_string(pages[bucket].second);
  }
  return "";
}

std::string RunOracle::check_leases(const Pool& pool) const {
  const uint32_t* words = pool.port_leases(0);
  size_t there = 0;
  for (const auto& [key, lease] : leases_) {
    const uint32_t holder = words[key.first * kPortBlocks + key.second];
    const std::string name =
        "block " + std::to_string(key.second) + " of address " + std::to_string(key.first);
    if (holder == 0 && lease.required) return name + ": the lease is lost";
    if (holder != 0 && holder != lease.bucket + 1 && !lease.before.contains(holder - 1)) {
      return name + " is leased to bucket " + std::to_string(holder - 1);
    }
    there += holder != 0 ? 1 : 0;
  }
  const auto all = kMaxExternalAddresses * kPortBlocks -
                   static_cast<size_t>(
                       std::count(words, words + kMaxExternalAddresses * kPortBlocks, uint32_t{0}));
  return all == there ? "" : std::to_string(all - there) + " leases are there that nobody took";
}

std::string RunOracle::check_lease_of(const FlowRecord& flow) {
  if (flow.is_wide()) return "";  // not translated
  if (flow.inside_key.mark >= kKeyedMark || (flow.users & kUnleased) != 0) return "";
  const std::span<const Be32> external = chain(revision_).external_addresses();
  const auto address = std::ranges::find(external, flow.outside_key.dst);
  const LeaseKey key = {static_cast<uint32_t>(address - external.begin()),
                        flow.outside_key.dst_port.host() / kPortBlockPorts};
  const auto lease = leases_.find(key);
  if (lease != leases_.end() && lease->second.bucket == flow.bucket) return "";
  return flow_text(flow) + ": its external port is not leased to its bucket";
}

// ---- Going on.

const Chain& RunOracle::chain(uint32_t revision) {
  std::unique_ptr<Chain>& chain = chains_[revision];
  if (chain == nullptr) {
    FunctionContext context;
    context.make_classifier = [] { return std::make_unique<LinearClassifier>(); };
    auto built = Chain::build(crash_run_chain(revision), context);
    assert(built.ok());
    chain = std::move(*built);
  }
  return *chain;
}

namespace {

// A worker after the restart: runs single packets and says what became of them.
class Successor {
 public:
  Successor(Pool& pool, const Chain& chain, uint32_t now_s)
      : pool_(pool),
        chain_(chain),
        table_(pool, 0, 0),
        runtime_(chain, table_, chain.revision(), now_s),
        undo_(std::make_unique<UndoLog>()),
        now_s_(now_s) {}

  // The key of the packet that answers, or nothing if it was dropped.
  std::optional<FlowKey> send(CrashPacket packet, uint32_t bucket) {
    PacketMeta meta;
    if (!parse_frame(packet, meta)) return std::nullopt;
    meta.bucket = bucket;
    Packet one{packet.frame.data(), &meta, 0};
    undo_->forget();
    runtime_.run({&one, 1}, now_s_, *undo_);
    if (table_.dirty()) {
      table_.commit({});
      table_.apply();
    }
    reason_ = meta.reason;
    if (meta.verdict != Verdict::kForward || !parse_frame(packet, meta)) return std::nullopt;
    return meta.key.reversed();
  }
  std::optional<FlowKey> send_first(const CrashPacket& packet) {
    PacketMeta meta;
    if (!parse_frame(packet, meta)) return std::nullopt;
    const uint64_t hash = steering_hash(chain_.steering_scope(), meta.key, pool_.hash_secret());
    return send(packet, static_cast<uint32_t>(hash % CrashRun::kBuckets));
  }
  std::string_view reason() const { return drop_reason_name(reason_); }

 private:
  bool parse_frame(const CrashPacket& packet, PacketMeta& meta) const {
    return parse(packet.frame.data(), static_cast<uint16_t>(packet.frame.size()), packet.side,
                 pool_.hash_secret(), meta) == DropReason::kNone;
  }

  Pool& pool_;
  const Chain& chain_;
  FlowTable table_;
  ChainRuntime runtime_;
  std::unique_ptr<UndoLog> undo_;
  const uint32_t now_s_;
  DropReason reason_ = DropReason::kNone;
};

}  // namespace

std::string RunOracle::go_on(Pool& pool, uint64_t seed) {
  constexpr size_t kFlowsTried = 8;
  std::vector<FlowRecord> flows;
  pool.for_each_flow(0, [&](const FlowRecord& flow) { return flows.push_back(flow), true; });
  std::mt19937_64 random(seed);
  std::ranges::shuffle(flows, random);
  if (flows.size() > kFlowsTried) flows.resize(kFlowsTried);
  Successor successor(pool, chain(revision_), now_s_);
  for (const FlowRecord& flow : flows) {
    // Another revision may refuse it, which is no fault of the recovery.
    if (flow.revision != revision_) continue;
    for (const Side side : {Side::kInside, Side::kOutside}) {
      const auto answer = successor.send(packet_of_flow(flow, side, kTcpAck), flow.bucket);
      const FlowKey& expected = side == Side::kInside ? flow.outside_key : flow.inside_key;
      if (!answer) return flow_text(flow) + " is dropped: " + std::string(successor.reason());
      if (!(*answer == expected)) return flow_text(flow) + " has another translation";
    }
  }
  for (int i = 0; i < 4; ++i) {
    const CrashPacket packet = first_packet(random);
    if (!successor.send_first(packet) && successor.reason() != "firewall_denied")
      return "no flow can be opened: " + std::string(successor.reason());
  }
  return check_pages(pool);
}

}  // namespace flowkeep
