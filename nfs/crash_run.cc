#include "nfs/crash_run.h"

#include <unistd.h>
#include <cstring>

#include <algorithm>
#include <memory>
#include <thread>

#include "nfs/crash_worker.h"
#include "state/layout.h"
#include "state/superblock.h"

namespace flowkeep {

namespace {

constexpr uint32_t kStart_s = 1'000'000;
constexpr const char* kChainName = "crash-run";

// The secret that the seed gives, so that the same seed makes the same run.
void set_secret(Pool& pool, uint64_t seed) {
  auto& superblock = *reinterpret_cast<Superblock*>(pool.base());
  std::mt19937_64 random(seed);
  superblock.secret.k0 = random();
  superblock.secret.k1 = random();
  superblock.checksum = superblock_checksum(superblock);
  std::memcpy(pool.base() + kSuperblockCopyAt, &superblock, sizeof(superblock));
}

// Pages that were in use hold what another chain has left in them.
Result<void> leave_old_pages(Pool& pool, uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto attached = pool.attach_chain("before", CrashRun::kBuckets);
  if (!attached) return attached.error();
  Regions regions(pool.base(), Geometry::of(pool.bytes()));
  for (uint64_t page = regions.first_page(); page < regions.first_page() + 48; ++page) {
    auto* words = reinterpret_cast<uint64_t*>(regions.page(static_cast<uint32_t>(page)));
    for (size_t i = 0; i < kPageBytes / sizeof(*words); ++i) words[i] = random();
  }
  return pool.drop_chain("before");
}

// Hands buckets over between the workers and retires bursts, as the switch does; and time passes.
class CrashSwitch {
 public:
  CrashSwitch(CrashScene& scene, uint64_t seed) : scene_(scene), random_(seed) {}

  void run() {
    scene_.recording.run_as(kSwitchActor, kSwitchProcessor);
    while (scene_.bursts_left > 0 && scene_.run.fault.empty()) {
      const uint64_t what = random_() % 8;
      if (what == 0) hand_over(static_cast<uint32_t>(random_() % CrashRun::kBuckets));
      if (what == 1) retire(static_cast<uint32_t>(random_() % 2));
      if (what == 2) pass_time();
      if (what == 3) step_back_page_hint();
      scene_.recording.give_turn();
    }
  }

 private:
  void hand_over(uint32_t bucket) {
    CrashScene::Steering& steering = scene_.steering[bucket];
    steering.held = true;
    while (scene_.slots[steering.worker].in_burst) scene_.recording.give_turn();
    retire(steering.worker);
    steering = {1 - steering.worker, false};
    ++scene_.run.handovers;
  }
  void retire(uint32_t worker) {
    RedoLog(scene_.pool, worker).retire(scene_.slots[worker].done_sequence);
  }
  // As workers do that claim at the same time. Then a page that a dead worker has begun to write is
  // the next that is claimed, for another purpose perhaps.
  void step_back_page_hint() {
    const Regions regions(scene_.pool.base(), Geometry::of(scene_.pool.bytes()));
    uint64_t& next_page = regions.page_hints().next_page;
    if (next_page != 0) scene_.pool.persistence().store64(&next_page, next_page - 1);
  }
  void pass_time() {
    constexpr uint32_t kPauses_s[] = {1, 1, 2, 5, 61, 241, 301};
    scene_.now_s += kPauses_s[random_() % std::size(kPauses_s)];
  }

  CrashScene& scene_;
  std::mt19937_64 random_;
};

// A pool with its actors, before the run.
class Stage {
 public:
  Stage(const CrashRunOptions& options, const std::string& path, CrashRun& run)
      : path_(path), random_(options.seed), turns_(kSwitchActor + 1, random_()) {
    const auto chain_index = make_pool(options.seed);
    if (!chain_index) {
      run.fault = chain_index.error().text();
      return;
    }
    recording_ = std::make_unique<InterleavedRecording>(pool_->base(), turns_, random_());
    scene_ = std::make_unique<CrashScene>(CrashScene{
        .pool = *pool_, .run = run, .recording = *recording_, .flows = {}, .known_leases = {}});
    scene_->chain_index = *chain_index;
    scene_->burst_packets = options.burst_packets;
    scene_->operations_in_a_life = options.operations_in_a_life;
    scene_->now_s = kStart_s;
    scene_->flows.resize(CrashRun::kBuckets);
    for (uint32_t bucket = 0; bucket < CrashRun::kBuckets; ++bucket) {
      scene_->steering[bucket].worker = bucket % 2;
    }
    for (uint32_t log : {0, 1}) {
      workers_[log] = std::make_unique<CrashWorker>(*scene_, log, random_());
    }
    control_ = std::make_unique<CrashSwitch>(*scene_, random_());
  }
  ~Stage() {
    if (pool_ != nullptr) unlink(path_.c_str());
  }
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;

  CrashScene& scene() { return *scene_; }

  // Opens flows of bucket 0, the same for the same seed, until there are enough of them or its
  // index has got a directory. Returns how many there are.
  size_t prefill(size_t enough, uint64_t seed) {
    std::mt19937_64 random(seed);
    const Regions regions(pool_->base(), Geometry::of(pool_->bytes()));
    const auto& flows = scene_->flows[0];
    workers_[0]->burst({});
    while (flows.size() < enough && scene_->run.fault.empty() &&
           regions.bucket(scene_->chain_index, 0).depth == 0) {
      const CrashPacket packet = first_packet(random);
      if (workers_[0]->bucket_of(packet) == 0) workers_[0]->burst({packet});
    }
    return flows.size();
  }

  // Each actor in a thread of its own; they take turns.
  void play(uint32_t bursts) {
    scene_->bursts_left = bursts;
    pool_->persistence().observe(recording_.get());
    std::vector<std::thread> threads;
    for (const size_t log : {0, 1}) {
      threads.emplace_back(
          [this, log] { turns_.enter(log), workers_[log]->serve(), turns_.leave(log); });
    }
    threads.emplace_back(
        [this] { turns_.enter(kSwitchActor), control_->run(), turns_.leave(kSwitchActor); });
    for (std::thread& thread : threads) thread.join();
    pool_->persistence().observe(nullptr);
  }

 private:
  Result<uint32_t> make_pool(uint64_t seed) {
    auto opened = Pool::open({path_, CrashRun::kPoolBytes, false});
    if (!opened) return opened.error();
    pool_ = std::move(*opened);
    set_secret(*pool_, seed);
    if (auto left = leave_old_pages(*pool_, random_()); !left) return left.error();
    const auto attached = pool_->attach_chain(kChainName, CrashRun::kBuckets);
    if (!attached) return attached.error();
    return attached->index;
  }

  const std::string path_;
  std::mt19937_64 random_;
  Turns turns_;
  std::unique_ptr<Pool> pool_;
  std::unique_ptr<InterleavedRecording> recording_;
  std::unique_ptr<CrashScene> scene_;
  std::unique_ptr<CrashWorker> workers_[2];
  std::unique_ptr<CrashSwitch> control_;
};

// What was done until now is the state that the recording begins with.
void begin_recording(CrashScene& scene) {
  CrashRun& run = scene.run;
  for (const RecordedBurst& burst : run.bursts) {
    run.start_leases.insert(run.start_leases.end(), burst.leases.begin(), burst.leases.end());
  }
  run.bursts.clear();
  run.packets = run.published = 0;
  scene.recording.clear();
  for (uint32_t bucket = 0; bucket < CrashRun::kBuckets; ++bucket) {
    run.start_flows.push_back({bucket, scene.flows[bucket]});
  }
  run.start.assign(scene.pool.base(), scene.pool.base() + scene.pool.bytes());
}

// How many flows bucket 0 holds when one more would split its index.
size_t flows_before_split(const CrashRunOptions& options, const std::string& path) {
  CrashRun rehearsal;
  Stage stage(options, path, rehearsal);
  return rehearsal.fault.empty() ? stage.prefill(SIZE_MAX, options.seed) - 1 : 0;
}

}  // namespace

ChainSpec crash_run_chain(uint32_t revision) {
  const std::string web_ports = revision % 2 == 0 ? "443" : "443-8080";
  return {kChainName,
          revision,
          {{"firewall", R"({"tcp_tracking":"off","rules":[
              {"name":"forbidden","action":"drop","destination":["192.0.2.66"],"protocol":"udp"},
              {"name":"web","action":"accept","protocol":"tcp","destination_ports":[")" +
                            web_ports + R"("]},
              {"name":"udp","action":"accept","protocol":"udp"},
              {"name":"ping","action":"accept","protocol":"icmp"},
              {"name":"ping6","action":"accept","protocol":"icmpv6"}]})"},
           // Address-dependent: records of keyed state come and go with the flows.
           {"nat44", R"({"external_addresses":["203.0.113.10","203.0.113.11"],
              "filtering":"address_dependent"})"}}};
}

CrashRun record_crash_run(const CrashRunOptions& options, const std::string& directory) {
  const std::string path = directory + "/crash-run";
  size_t prefilled = options.prefilled;
  if (options.split) prefilled = flows_before_split(options, path) - std::min<size_t>(prefilled, 8);
  CrashRun run;
  Stage stage(options, path, run);
  if (run.fault.empty()) stage.prefill(prefilled, options.seed);
  if (!run.fault.empty()) return run;
  begin_recording(stage.scene());
  stage.play(options.bursts);
  run.operations = stage.scene().recording.operations();
  return run;
}

}  // namespace flowkeep
