// VolatileWords: what a power cut may still take away, followed operation by operation, and the
// images that it can leave.
//
// The model is the promise of state/persistence.h, no more: of each 8-byte word that was stored
// and not yet flushed and fenced, the medium holds any of its values since the last one that is
// certain: the line may have been written back at any moment without being asked for, a store
// around the cache may overtake another, a line may be torn between words. Only store64_last()
// gives an order within its line. A fence makes certain what its own processor had flushed; what
// another one flushed stays open until that one's fence.
//
// Thread rule: one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <unordered_map>
#include <vector>

#include "state/layout.h"
#include "state/persistence_recording.h"

namespace flowkeep {

inline constexpr size_t kMostProcessors = 32;

// A word of an image that is not what the processors saw at the cut.
struct LostWord {
  uint64_t at;  // byte offset
  uint64_t value;
};

// Is it a word that nothing depends on, so that any value is correct? `regions`: the pool as the
// processors see it.
bool is_soft_word(const Regions& regions, uint64_t at);

class VolatileWords {
 public:
  // `regions`: the pool as the processors see it; must be kept up to date beside this.
  explicit VolatileWords(const Regions& regions) : regions_(regions) {}

  // `before`: the word until this store.
  void store(const RecordedOperation& operation, uint64_t before);
  void flush(uint8_t processor, uint64_t at, uint64_t bytes);
  void fence(uint8_t processor);

  // One image, drawn at random from all possible ones, the extreme ones more often than chance
  // would have it: nothing or everything survives, one word or line differs from all others, a
  // region differs from the others.
  std::vector<LostWord> draw(std::mt19937_64& random) const;

  struct Count {
    size_t words = 0;  // with more than one possible value
    size_t hard = 0;   // of these, words that something depends on
  };
  Count count() const;

 private:
  static constexpr size_t kWords = kLineBytes / sizeof(uint64_t);
  static constexpr size_t kMostValues = 6;  // of a soft word, which may never be flushed
  struct Value {
    uint64_t value;
    uint32_t when;  // number of the store within the line; 0: the certain value
  };
  struct Ordered {  // a store_last
    size_t word;
    uint32_t when;
  };
  struct Line {
    uint64_t number;
    uint32_t stores = 0;
    std::array<std::vector<Value>, kWords> values;  // oldest first, the last is what is seen
    std::vector<Ordered> ordered;                   // oldest first
  };
  struct Flushed {
    uint64_t line;
    uint32_t stores;  // of the line, at the flush
  };
  // An image of one line: the index of each word's value.
  using Choice = std::array<uint32_t, kWords>;
  // How an image comes about.
  struct Plan;

  Line& line_at(uint64_t number);
  void settle(Line& line, uint32_t stores);
  void forget_if_settled(uint64_t number);
  uint32_t choose(const Line& line, size_t word, size_t line_index, const Plan& plan,
                  std::mt19937_64& random) const;
  static void keep_order(const Line& line, Choice& choice);
  uint32_t region_of(uint64_t at) const;
  Plan make_plan(std::mt19937_64& random) const;

  const Regions regions_;
  std::vector<Line> lines_;
  std::unordered_map<uint64_t, size_t> index_;  // line number -> index in lines_
  std::array<std::vector<Flushed>, kMostProcessors> flushed_;
};

}  // namespace flowkeep
