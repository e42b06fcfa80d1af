// Random damages to a pool: whatever reads or repairs it ends, stays within the image
// (the address sanitizer sees if it does not) and leaves a pool in which nothing is wrong.
#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "state/damaged_pool.h"

namespace flowkeep {
namespace {

uint64_t seed() {
  const char* given = std::getenv("FLOWKEEP_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
}

PoolChange random_change(std::mt19937_64& random) {
  const uint64_t choice = random();
  PoolChange change;
  std::memcpy(&change, &choice, sizeof(choice));
  // Small numbers are more often meant than large ones.
  change.value = random() >> random() % 64;
  change.word = static_cast<uint32_t>(random());
  return change;
}

// Each round has a seed of its own: FLOWKEEP_SEED=N FLOWKEEP_ROUNDS=1 runs it alone.
TEST(RandomDamage, IsReadStartedOnAndRepaired) {
  const uint64_t first = seed();
  const char* given = std::getenv("FLOWKEEP_ROUNDS");
  const uint64_t rounds = given != nullptr ? std::strtoull(given, nullptr, 0) : 150;
  std::printf("seeds %llu to %llu\n", static_cast<unsigned long long>(first),
              static_cast<unsigned long long>(first + rounds - 1));
  DamagedPool pool;
  for (uint64_t round = first; round < first + rounds; ++round) {
    std::mt19937_64 random(round);
    pool.restore();
    const uint64_t changes = 1 + random() % 6;
    for (uint64_t i = 0; i < changes; ++i) pool.apply(random_change(random));
    pool.look();
    // A worker changes the image; the repair sees it as found, or after the worker.
    if (random() % 2 == 0) pool.start();
    ASSERT_EQ(pool.mend(), "") << "FLOWKEEP_SEED=" << round << " FLOWKEEP_ROUNDS=1";
  }
}

}  // namespace
}  // namespace flowkeep
