#include "nfs/crash_worker.h"

#include <algorithm>
#include <cstring>

#include "nfs/burst_end.h"
#include "nfs/firewall/linear_classifier.h"
#include "nfs/parse.h"
#include "nfs/steering.h"

namespace flowkeep {

namespace {

constexpr uint64_t kOperationsInATurn = 24;       // flushes and fences, on average
constexpr uint32_t kSweepRecords = 8;             // of each bucket, a time
constexpr uint64_t kBurstsFromSweepToSweep = 12;  // on average
constexpr uint64_t kBurstsOfARevision = 15;       // on average

std::unique_ptr<Chain> build_chain(uint32_t revision) {
  FunctionContext context;
  context.make_classifier = [] { return std::make_unique<LinearClassifier>(); };
  auto chain = Chain::build(crash_run_chain(revision), context);
  return chain.ok() ? std::move(*chain) : nullptr;
}

bool same_records(const std::vector<FlowRecord>& a, const std::vector<FlowRecord>& b) {
  // Soft words are no difference.
  const auto same = [](const FlowRecord& one, const FlowRecord& other) {
    return std::memcmp(&one, &other, offsetof(FlowRecord, last_seen_s)) == 0 &&
           std::memcmp(one.hard, other.hard, sizeof(one.hard)) == 0 &&
           (!one.is_wide() || one.addresses == other.addresses);
  };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), same);
}

}  // namespace

// ---- Recording.

void InterleavedRecording::flushing(const void* address, size_t bytes) {
  between_operations();
  PersistenceRecording::flushing(address, bytes);
}

void InterleavedRecording::fencing() {
  between_operations();
  PersistenceRecording::fencing();
}

void InterleavedRecording::between_operations() {
  if (random_() % kOperationsInATurn == 0) give_turn();
  const uint64_t once_in = once_in_[actor_];
  if (once_in != 0 && random_() % once_in == 0) throw WorkerDied{};
}

void InterleavedRecording::run_as(size_t actor, uint8_t processor) {
  actor_ = actor;
  processor_ = processor;
  act_as(processor);
}

void InterleavedRecording::give_turn() {
  const size_t actor = actor_;
  const uint8_t processor = processor_;
  turns_.give(actor);
  run_as(actor, processor);
}

std::vector<std::vector<FlowRecord>> records_by_bucket(const Pool& pool, uint32_t chain_index) {
  std::vector<std::vector<FlowRecord>> flows(CrashRun::kBuckets);
  pool.for_each_record(chain_index, [&](uint32_t, const FlowRecord& record) {
    if (record.bucket < flows.size()) flows[record.bucket].push_back(record);
    return true;
  });
  return flows;
}

// ---- The worker.

CrashWorker::CrashWorker(CrashScene& scene, uint32_t log, uint64_t seed)
    : scene_(scene), log_(log), random_(seed), undo_(std::make_unique<UndoLog>()) {}

// Each life is on another processor than the one before, whose flushes say nothing to it.
uint8_t CrashWorker::processor() const {
  return static_cast<uint8_t>(log_ + 2 * (incarnation_ % 8));
}

void CrashWorker::incarnate() {
  scene_.recording.run_as(log_, processor());
  scene_.recording.may_die(scene_.operations_in_a_life);
  chain_ = build_chain(revision_);
  if (chain_ == nullptr) {
    scene_.run.fault = "the chain is refused";
    scene_.bursts_left = 0;
    return;
  }
  table_ = std::make_unique<FlowTable>(scene_.pool, scene_.chain_index, log_);
  runtime_ = std::make_unique<ChainRuntime>(*chain_, *table_, revision_);
}

void CrashWorker::serve() {
  while (scene_.bursts_left > 0 && scene_.run.fault.empty()) {
    --scene_.bursts_left;
    try {
      if (table_ == nullptr) incarnate();
      if (random_() % kBurstsFromSweepToSweep == 0) {
        sweep();
      } else {
        burst(draw_packets());
      }
      if (random_() % kBurstsOfARevision == 0) {
        runtime_.reset();
        table_.reset();
        scene_.recording.may_die(0);
        scene_.recording.process_left_processor();
        ++revision_;
        ++incarnation_;
      }
    } catch (const WorkerDied&) {
      go_on_after_death();
    }
    scene_.recording.give_turn();
  }
}

// What the supervisor does: recover_slot() in dataplane/worker.cc.
void CrashWorker::go_on_after_death() {
  ++scene_.run.worker_deaths;
  ++incarnation_;
  runtime_.reset();
  table_.reset();
  scene_.recording.may_die(0);
  scene_.recording.process_left_processor();
  scene_.recording.run_as(log_, kSupervisorProcessor);
  RedoLog log(scene_.pool, log_);
  CrashScene::Slot& slot = scene_.slots[log_];
  const RedoLog::Newest newest = log.newest();
  const bool committed = newest.valid && newest.sequence > slot.done_sequence;
  if (committed) {
    log.apply_newest();
    slot.done_sequence = newest.sequence;
  }
  if (in_burst_ && !committed) restore_soft(*undo_, scene_.pool);
  log.reclaim_pages();  // whose pages may be another bucket's from now on
  if (in_burst_ && committed) {
    mark(BurstMark::kPublished);
    end_recorded_burst();
  } else if (in_burst_) {
    if (committed_) {  // the run knows, whatever the code under test says
      scene_.run.fault =
          "burst " + std::to_string(burst_) +
          " had been committed when its worker died, and its redo record is not there";
    }
    note_leases();
    mark(BurstMark::kTakenBack);
    in_burst_ = false;
    slot.in_burst = false;
  }
}

// ---- Packets.

std::vector<CrashPacket> CrashWorker::draw_packets() {
  std::vector<uint32_t> mine;
  for (uint32_t bucket = 0; bucket < CrashRun::kBuckets; ++bucket) {
    const CrashScene::Steering& steering = scene_.steering[bucket];
    if (steering.worker == log_ && !steering.held) mine.push_back(bucket);
  }
  std::vector<CrashPacket> packets;
  if (mine.empty()) return packets;
  for (uint64_t n = 1 + random_() % scene_.burst_packets; n > 0; --n) {
    const uint64_t kind = random_() % 16;
    const std::vector<FlowRecord> flows = flows_of(mine[random_() % mine.size()]);
    if (kind < 6 || flows.empty()) {
      // Half of the new flows go to one bucket, so that its index grows.
      CrashPacket first = first_packet(random_);
      for (int tries = 0; tries < 32 && bucket_of(first) != mine[n % 2 == 0 ? 0 : mine.size() / 2];
           ++tries) {
        first = first_packet(random_);
      }
      packets.push_back(std::move(first));
    } else {
      const FlowRecord& flow = flows[random_() % flows.size()];
      packets.push_back(kind == 15 ? stray_packet(flow, random_) : next_packet(flow, random_));
    }
  }
  return packets;
}

// A mapping without a flow of its own, or keyed state: no packet belongs to it.
std::vector<FlowRecord> CrashWorker::flows_of(uint32_t bucket) const {
  std::vector<FlowRecord> flows = scene_.flows[bucket];
  std::erase_if(flows, [](const FlowRecord& record) { return record.phase == FlowPhase::kKeyed; });
  return flows;
}

uint32_t CrashWorker::bucket_of(const CrashPacket& packet) const {
  PacketMeta meta;
  return steer(packet, meta) ? meta.bucket : CrashRun::kBuckets;
}

// What the switch does: parse, and find the bucket.
bool CrashWorker::steer(const CrashPacket& packet, PacketMeta& meta) const {
  const Bytes& frame = packet.frame;
  const HashSecret secret = scene_.pool.hash_secret();
  if (parse(frame.data(), static_cast<uint16_t>(frame.size()), packet.side, secret, meta) !=
      DropReason::kNone) {
    return false;
  }
  const std::span<const Be32> external = chain_->external_addresses();
  if (!is_steered_by_lease(!external.empty(), meta.key)) {
    const FlowKey inside = packet.side == Side::kInside ? meta.key : meta.key.reversed();
    meta.bucket = static_cast<uint32_t>(steering_hash(chain_->steering_scope(), inside, secret) %
                                        CrashRun::kBuckets);
    return true;
  }
  const auto address = std::ranges::find(external, meta.key.dst);
  if (address == external.end()) return false;
  const uint32_t* leases = scene_.pool.port_leases(scene_.chain_index) +
                           (address - external.begin()) * static_cast<ptrdiff_t>(kPortBlocks);
  meta.bucket = leases[meta.key.dst_port.host() / kPortBlockPorts] - 1;
  return meta.bucket < CrashRun::kBuckets;
}

// ---- The burst cycle.

void CrashWorker::burst(const std::vector<CrashPacket>& arrivals) {
  if (table_ == nullptr) incarnate();
  scene_.slots[log_].in_burst = true;
  std::vector<Queued> queue;
  for (const CrashPacket& packet : arrivals) {
    Queued queued{packet, packet.frame, {}};
    if (!steer(packet, queued.meta)) continue;
    const CrashScene::Steering& steering = scene_.steering[queued.meta.bucket];
    if (steering.worker == log_ && !steering.held) queue.push_back(std::move(queued));
  }
  begin_burst();
  run(queue);
  commit_and_apply(queue);
}

void CrashWorker::begin_burst() {
  scene_.slots[log_].in_burst = true;
  in_burst_ = true;
  committed_ = false;
  undo_->forget();
  burst_ = scene_.run.bursts.size();
  scene_.run.bursts.push_back({log_, revision_, scene_.now_s, {}, {}, {}});
  mark(BurstMark::kBegun);
}

void CrashWorker::run(std::vector<Queued>& queue) {
  std::vector<Packet> packets;
  for (Queued& queued : queue)
    packets.push_back({queued.packet.frame.data(), &queued.meta, packets.size()});
  // What did not fit stays in the inbox; here it is forgotten.
  queue.resize(runtime_->run(packets, scene_.now_s, *undo_));
  scene_.run.packets += queue.size();
}

void CrashWorker::sweep() {
  begin_burst();
  for (uint32_t bucket = 0; bucket < CrashRun::kBuckets; ++bucket) {
    const CrashScene::Steering& steering = scene_.steering[bucket];
    if (steering.worker != log_ || steering.held) continue;
    runtime_->sweep({&bucket, 1}, kSweepRecords, scene_.now_s);
  }
  commit_and_apply({});
}

void CrashWorker::commit_and_apply(const std::vector<Queued>& queue) {
  note_leases();
  check_published(queue);
  end_burst(
      [&] {
        if (!table_->dirty()) return;
        sequence_ = table_->commit({});
        committed_ = true;
        mark(BurstMark::kCommitted);
      },
      [&] {
        scene_.run.published += queue.size();
        mark(BurstMark::kPublished);
      },
      [&] {
        if (!table_->dirty()) return;
        table_->apply();
        scene_.slots[log_].done_sequence = sequence_;
      });
  end_recorded_burst();
}

void CrashWorker::mark(BurstMark mark) {
  scene_.recording.mark(burst_mark(mark, burst_));
}

void CrashWorker::end_recorded_burst() {
  std::vector<std::vector<FlowRecord>> flows = records_by_bucket(scene_.pool, scene_.chain_index);
  for (uint32_t bucket = 0; bucket < CrashRun::kBuckets; ++bucket) {
    if (scene_.steering[bucket].worker != log_) continue;
    if (same_records(flows[bucket], scene_.flows[bucket])) continue;
    scene_.run.bursts[burst_].after.push_back({bucket, flows[bucket]});
    scene_.flows[bucket] = std::move(flows[bucket]);
  }
  mark(BurstMark::kEnded);
  in_burst_ = false;
  scene_.slots[log_].in_burst = false;
}

// Leases are taken and given back at once, whatever becomes of the burst.
void CrashWorker::note_leases() {
  const uint32_t* leases = scene_.pool.port_leases(scene_.chain_index);
  RecordedBurst& burst = scene_.run.bursts[burst_];
  for (uint32_t address = 0; address < chain_->external_addresses().size(); ++address) {
    for (uint32_t block = 0; block < kPortBlocks; ++block) {
      const uint32_t holder = leases[address * kPortBlocks + block];
      const auto known = scene_.known_leases.find({address, block});
      const bool is_known = known != scene_.known_leases.end();
      if (is_known && known->second + 1 == holder) continue;
      if (is_known && scene_.steering[known->second].worker == log_) {
        burst.released.push_back({address, block, known->second});
        scene_.known_leases.erase(known);
      }
      if (holder == 0 || scene_.steering[holder - 1].worker != log_) continue;
      scene_.known_leases[{address, block}] = holder - 1;
      burst.leases.push_back({address, block, holder - 1});
    }
  }
}

// Each packet that is about to leave must look like the flow that will be committed.
void CrashWorker::check_published(const std::vector<Queued>& queue) {
  for (const Queued& queued : queue) {
    if (queued.meta.verdict != Verdict::kForward) continue;
    const RecordId id = table_->find(queued.meta.bucket, queued.meta.key, queued.meta.hash,
                                     queued.meta.wide_addresses());
    const Side out = opposite(queued.packet.side);
    const Bytes& frame = queued.packet.frame;
    PacketMeta left;
    const DropReason parsed = parse(frame.data(), static_cast<uint16_t>(frame.size()),
                                    queued.packet.side, scene_.pool.hash_secret(), left);
    const FlowRecord record = id != 0 ? table_->record(id) : FlowRecord{};
    // An answer to what has left enters by the other side with the reversed key.
    const FlowKey answer = left.key.reversed();
    const FlowKey& expected = out == Side::kOutside ? record.outside_key : record.inside_key;
    if (id == 0 || parsed != DropReason::kNone || !(answer == expected)) {
      scene_.run.fault = "burst " + std::to_string(burst_) + ": a packet left with a translation " +
                         "that its flow does not have";
      return;
    }
  }
}

}  // namespace flowkeep
