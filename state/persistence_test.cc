// Persistence: flushes and fences take as much longer as is asked for, and not without flushes.
#include "state/persistence.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>

#include "state/pool_test_support.h"

namespace flowkeep {
namespace {

using Clock = std::chrono::steady_clock;

struct alignas(64) Lines {
  std::array<std::byte, 640> bytes = {};
};

// A busy loop that is interrupted takes longer, never less: lower bounds cannot fail by chance.
template <typename Work>
int64_t took_ns(Work&& work) {
  const auto start = Clock::now();
  work();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
}

TEST(InjectedDelay, LengthensEachFence) {
  Persistence persistence(true, {.fence_ns = 200'000, .line_ns = 0});
  EXPECT_GE(took_ns([&] {
              for (int i = 0; i < 10; ++i) persistence.fence();
            }),
            1'800'000);
}

TEST(InjectedDelay, LengthensEachLine) {
  Lines lines;
  const Lines other;
  Persistence persistence(true, {.fence_ns = 0, .line_ns = 100'000});
  EXPECT_GE(took_ns([&] { persistence.flush(lines.bytes.data(), 640); }), 900'000);
  // The bytes 60 to 67 lie in two lines.
  EXPECT_GE(took_ns([&] { persistence.flush(lines.bytes.data() + 60, 8); }), 180'000);
  EXPECT_GE(took_ns([&] { persistence.nontemporal(lines.bytes.data(), other.bytes.data(), 600); }),
            900'000);
}

// Would take many minutes if it were delayed: longer than a test may run.
TEST(InjectedDelay, NeedsFlushes) {
  Lines lines;
  Persistence persistence(false, {.fence_ns = 1'000'000, .line_ns = 100'000});
  for (int i = 0; i < 1'000'000; ++i) {
    persistence.flush(lines.bytes.data(), 640);
    persistence.fence();
  }
}

TEST(InjectedDelay, IsNamedByThePool) {
  PoolDirectory directory;
  const auto text = [&](bool emulate, InjectedDelay delay) {
    const auto pool = Pool::open({directory.file(), Pool::minimum_bytes(), emulate, delay});
    return pool.ok() ? (*pool)->flush_text() : pool.error().text();
  };
  EXPECT_EQ(text(false, {}), "as the medium gives it");
  EXPECT_EQ(text(false, {200, 10}), "as the medium gives it");
  EXPECT_EQ(text(true, {}), "emulated");
  EXPECT_EQ(text(true, {200, 10}), "emulated, +200 ns per fence, +10 ns per line");
  EXPECT_EQ(text(true, {0, 10}), "emulated, +10 ns per line");
}

}  // namespace
}  // namespace flowkeep
