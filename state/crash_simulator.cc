#include "state/crash_simulator.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <functional>

namespace flowkeep {

namespace {

struct PowerCut {};

uint64_t mix(uint64_t a, uint64_t b) {
  return fold_multiply(a ^ 0xa0761d6478bd642fULL, b ^ 0xe7037ed1a0b428dbULL);
}

}  // namespace

// Notes what recovery stores, so that it can be taken back, and cuts the power after so many
// operations.
class CrashSimulator::RecoveryObserver : public PersistenceObserver {
 public:
  RecoveryObserver(CrashSimulator& simulator, const std::byte* base, uint64_t cut_after)
      : simulator_(simulator),
        recording_(base),
        cut_after_(cut_after),
        words_(simulator.regions_) {}

  void storing(void* to, const void* from, size_t bytes) override {
    step();
    recording_.storing(to, from, bytes);
    follow();
  }
  void storing_last(void* to, const void* from, size_t bytes) override {
    step();
    recording_.storing_last(to, from, bytes);
    follow();
  }
  void flushing(const void* address, size_t bytes) override {
    step();
    recording_.flushing(address, bytes);
    follow();
  }
  void fencing() override {
    step();
    recording_.fencing();
    follow();
  }

  uint64_t operations() const { return recording_.operations().size(); }
  const VolatileWords& words() const { return words_; }

 private:
  void step() const {
    if (operations() == cut_after_) throw PowerCut();
  }
  // The pool's own store follows, or a compare-and-swap that must find the word as it was.
  void follow() {
    const RecordedOperation& operation = recording_.operations().back();
    switch (operation.kind) {
      case RecordedOperation::Kind::kStore:
      case RecordedOperation::Kind::kStoreLast:
        if (cut_after_ != UINT64_MAX) words_.store(operation, simulator_.word(operation.at));
        simulator_.note(operation.at, operation.value);
        break;
      case RecordedOperation::Kind::kFlush:
        words_.flush(0, operation.at, operation.bytes);
        break;
      case RecordedOperation::Kind::kFence:
        words_.fence(0);
        break;
      case RecordedOperation::Kind::kMark:
        break;
    }
  }

  CrashSimulator& simulator_;
  PersistenceRecording recording_;
  const uint64_t cut_after_;
  VolatileWords words_;
};

CrashSimulator::CrashSimulator(const std::vector<std::byte>& start, const std::string& directory,
                               const CrashSimulatorOptions& options)
    : options_(options) {
  pool_options_.path = directory + "/crash-image-XXXXXX";
  pool_options_.bytes = start.size();
  const int fd = mkstemp(pool_options_.path.data());
  const auto bytes = static_cast<off_t>(start.size());
  void* mapped = MAP_FAILED;
  if (fd >= 0 && posix_fallocate(fd, 0, bytes) == 0) {
    mapped = mmap(nullptr, start.size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  if (fd >= 0) close(fd);
  if (mapped == MAP_FAILED) return;  // run() says so
  base_ = static_cast<std::byte*>(mapped);
  std::memcpy(base_, start.data(), start.size());
  regions_ = Regions(base_, Geometry::of(start.size()));
  words_ = std::make_unique<VolatileWords>(regions_);
}

CrashSimulator::~CrashSimulator() {
  if (base_ != nullptr) munmap(base_, pool_options_.bytes);
  unlink(pool_options_.path.c_str());
}

CrashViolation CrashSimulator::run(const std::vector<RecordedOperation>& recording,
                                   CrashOracle& oracle) {
  if (base_ == nullptr) return {0, 0, pool_options_.path + ": cannot be made"};
  for (uint64_t step = 0; step < recording.size(); ++step) {
    const RecordedOperation& operation = recording[step];
    uint64_t image = 0;
    const std::string what = try_images(oracle, step, images_at(operation, step), image);
    if (!what.empty()) return {step, image, what};
    if (counts_.distinct >= options_.most_distinct) break;
    replay(operation, oracle);
  }
  return {};
}

uint32_t CrashSimulator::images_at(const RecordedOperation& operation, uint64_t step) const {
  if (operation.kind == RecordedOperation::Kind::kFence) return options_.images_at_fences;
  return options_.elsewhere_every != 0 && step % options_.elsewhere_every == 0 ? 1 : 0;
}

CrashViolation CrashSimulator::run_one(const std::vector<RecordedOperation>& recording,
                                       CrashOracle& oracle, uint64_t step, uint64_t image) {
  if (base_ == nullptr) return {0, 0, pool_options_.path + ": cannot be made"};
  for (uint64_t before = 0; before < std::min<uint64_t>(step, recording.size()); ++before) {
    replay(recording[before], oracle);
  }
  return {step, image, try_image(oracle, step, image)};
}

// One more operation of the run.
void CrashSimulator::replay(const RecordedOperation& operation, CrashOracle& oracle) {
  ++counts_.steps;
  switch (operation.kind) {
    case RecordedOperation::Kind::kStore:
    case RecordedOperation::Kind::kStoreLast:
      words_->store(operation, word(operation.at));
      run_hash_ ^= hash_change(operation.at, word(operation.at), operation.value);
      word(operation.at) = operation.value;
      break;
    case RecordedOperation::Kind::kFlush:
      words_->flush(operation.processor, operation.at, operation.bytes);
      break;
    case RecordedOperation::Kind::kFence:
      words_->fence(operation.processor);
      break;
    case RecordedOperation::Kind::kMark:
      oracle.reached(operation.value);
      ++reached_;
      break;
  }
}

std::string CrashSimulator::try_images(CrashOracle& oracle, uint64_t step, uint32_t images,
                                       uint64_t& image) {
  for (image = 0; image < images; ++image) {
    std::string what = try_image(oracle, step, image);
    if (!what.empty()) return what;
  }
  return "";
}

std::string CrashSimulator::try_image(CrashOracle& oracle, uint64_t step, uint64_t image) {
  std::mt19937_64 random(mix(mix(options_.seed, step), image));
  ++counts_.drawn;
  image_hash_ = run_hash_;
  lose(words_->draw(random));
  // What is drawn must not depend on what was seen before, or one image alone would be another.
  const bool go_on = random() % options_.go_on_every == 0;
  const uint64_t recuts = random() % options_.recut_every == 0 ? options_.most_recuts : 0;
  std::string what;
  if (is_new(image_hash_)) {
    const size_t lost = undo_.size();
    const uint64_t hash = image_hash_;
    uint64_t operations = 0;
    what = recover_and_check(oracle, random, go_on, operations);
    std::mt19937_64 recut_random(mix(mix(options_.seed, image), step));
    for (uint64_t i = 0; what.empty() && i < recuts; ++i) {
      take_back(lost);
      image_hash_ = hash;
      what = cut_recovery(oracle, recut_random, operations);
    }
  }
  take_back(0);
  return what;
}

// Writes the lost words into the image. Its hash first: which words are soft, the pool as it is
// tells.
void CrashSimulator::lose(const std::vector<LostWord>& lost) {
  uint64_t hash = image_hash_;
  for (const LostWord& one : lost) hash ^= hash_change(one.at, word(one.at), one.value);
  for (const LostWord& one : lost) put(one.at, one.value);
  image_hash_ = hash;
  counts_.most_words_lost = std::max<uint64_t>(counts_.most_words_lost, lost.size());
}

bool CrashSimulator::is_new(uint64_t hash) {
  if (!checked_.insert(mix(hash, reached_)).second) return false;
  images_.insert(hash);
  counts_.distinct = images_.size();
  return true;
}

std::string CrashSimulator::recover_and_check(CrashOracle& oracle, std::mt19937_64& random,
                                              bool go_on, uint64_t& operations) {
  std::string what = open_pool();
  if (!what.empty()) return what;
  RecoveryObserver observer(*this, pool_->base(), UINT64_MAX);
  pool_->persistence().observe(&observer);
  pool_->recover_all();
  operations = observer.operations();
  what = oracle.check(*pool_);
  if (what.empty() && go_on) {
    ++counts_.continued;
    what = oracle.go_on(*pool_, random());
  }
  pool_->persistence().observe(nullptr);
  return what;
}

// A pool that is open holds nothing that is not in its file, so one can serve for many images.
std::string CrashSimulator::open_pool() {
  if (pool_ != nullptr && opened_for_++ % options_.open_every != 0) return "";
  pool_.reset();
  auto opened = Pool::open(pool_options_);
  if (!opened) return "the pool is refused: " + opened.error().text();
  if ((*opened)->was_formatted()) return "the pool was formatted anew";
  pool_ = std::move(*opened);
  return "";
}

// The image at hand, cut again while it recovers, and then recovered.
std::string CrashSimulator::cut_recovery(CrashOracle& oracle, std::mt19937_64& random,
                                         uint64_t operations) {
  const uint64_t cut_after = random() % (operations + 1);
  RecoveryObserver observer(*this, pool_->base(), cut_after);
  pool_->persistence().observe(&observer);
  try {
    pool_->recover_all();
  } catch (const PowerCut&) {
  }
  pool_->persistence().observe(nullptr);
  lose(observer.words().draw(random));
  if (!is_new(image_hash_)) return "";
  ++counts_.recovery_cuts;
  uint64_t ignored = 0;
  const std::string what = recover_and_check(oracle, random, false, ignored);
  if (what.empty()) return "";
  return "recovery was cut after " + std::to_string(cut_after) +
         " operations and ran again: " + what;
}

// ---- The image at hand.

uint64_t& CrashSimulator::word(uint64_t at) const {
  return *reinterpret_cast<uint64_t*>(base_ + at);
}

void CrashSimulator::put(uint64_t at, uint64_t value) {
  note(at, value);
  word(at) = value;
}

// The word is about to become this value.
void CrashSimulator::note(uint64_t at, uint64_t value) {
  const uint64_t before = word(at);
  if (before == value) return;
  image_hash_ ^= hash_change(at, before, value);
  undo_.push_back({at, before});
}

void CrashSimulator::take_back(size_t until) {
  while (undo_.size() > until) {
    word(undo_.back().at) = undo_.back().before;
    undo_.pop_back();
  }
}

uint64_t CrashSimulator::hash_change(uint64_t at, uint64_t before, uint64_t after) const {
  if (is_soft_word(regions_, at)) return 0;
  return mix(at, before) ^ mix(at, after);
}

}  // namespace flowkeep
