#include "state/volatile_words.h"

#include <algorithm>
#include <utility>

namespace flowkeep {

namespace {

enum class Fate : uint8_t { kOldest, kNewest, kAny };

}  // namespace

bool is_soft_word(const Regions& regions, uint64_t at) {
  const Geometry& geometry = regions.geometry();
  if (at < geometry.chains_at) return at >= kPageHintsAt;
  if (at >= geometry.pages_at) {
    const auto tag =
        static_cast<uint32_t>(regions.page_word(static_cast<uint32_t>(at / kPageBytes)));
    const uint64_t in_record = at % kPageBytes % sizeof(FlowRecord);
    const bool is_soft =
        in_record == offsetof(FlowRecord, last_seen_s) || in_record >= offsetof(FlowRecord, soft);
    return is_soft && tag_kind(tag) == PageKind::kRecords;
  }
  const bool in_logs = at >= geometry.logs_at && at < geometry.page_table_at;
  return in_logs && (at - geometry.logs_at) % kLogBytes == offsetof(LogHeader, applied);
}

VolatileWords::Line& VolatileWords::line_at(uint64_t number) {
  const auto [found, added] = index_.try_emplace(number, lines_.size());
  if (added) lines_.push_back({.number = number, .values = {}, .ordered = {}});
  return lines_[found->second];
}

void VolatileWords::store(const RecordedOperation& operation, uint64_t before) {
  Line& line = line_at(operation.at / kLineBytes);
  ++line.stores;
  auto& values = line.values[operation.at % kLineBytes / sizeof(uint64_t)];
  if (values.empty()) values.push_back({before, 0});
  values.push_back({operation.value, line.stores});
  if (operation.kind == RecordedOperation::Kind::kStoreLast) {
    line.ordered.push_back({operation.at % kLineBytes / sizeof(uint64_t), line.stores});
  }
  if (values.size() > kMostValues && is_soft_word(regions_, operation.at)) {
    values.erase(values.begin() + 1);
  }
}

void VolatileWords::flush(uint8_t processor, uint64_t at, uint64_t bytes) {
  for (uint64_t number = at / kLineBytes; number <= (at + bytes - 1) / kLineBytes; ++number) {
    const auto found = index_.find(number);
    if (found != index_.end())
      flushed_[processor].push_back({number, lines_[found->second].stores});
  }
}

void VolatileWords::fence(uint8_t processor) {
  const std::vector<Flushed> covered = std::exchange(flushed_[processor], {});
  for (const Flushed& flushed : covered) {
    const auto found = index_.find(flushed.line);
    if (found == index_.end()) continue;
    settle(lines_[found->second], flushed.stores);
    forget_if_settled(flushed.line);
  }
}

// The line is now at least as new as after so many stores.
void VolatileWords::settle(Line& line, uint32_t stores) {
  for (auto& values : line.values) {
    size_t certain = 0;
    for (size_t i = 1; i < values.size() && values[i].when <= stores; ++i) certain = i;
    values.erase(values.begin(), values.begin() + static_cast<ptrdiff_t>(certain));
    if (values.size() == 1) values.clear();
    if (!values.empty()) values.front().when = std::min(values.front().when, stores);
  }
  std::erase_if(line.ordered, [stores](const Ordered& one) { return one.when <= stores; });
}

void VolatileWords::forget_if_settled(uint64_t number) {
  const auto found = index_.find(number);
  const size_t at = found->second;
  const auto& values = lines_[at].values;
  if (!std::ranges::all_of(values, [](const auto& of_word) { return of_word.empty(); })) return;
  // Another processor's flush of the line, not yet fenced, must not settle what comes after it.
  for (auto& flushed : flushed_) {
    std::erase_if(flushed, [number](const Flushed& one) { return one.line == number; });
  }
  index_.erase(found);
  if (at + 1 != lines_.size()) {
    lines_[at] = std::move(lines_.back());
    index_[lines_[at].number] = at;
  }
  lines_.pop_back();
}

VolatileWords::Count VolatileWords::count() const {
  Count count;
  for (const Line& line : lines_) {
    for (size_t word = 0; word < kWords; ++word) {
      if (line.values[word].empty()) continue;
      ++count.words;
      if (!is_soft_word(regions_, line.number * kLineBytes + word * 8)) ++count.hard;
    }
  }
  return count;
}

// ---- Images.

constexpr uint32_t kRegions = 7;

struct VolatileWords::Plan {
  enum class Grain : uint8_t { kAll, kOneWord, kOneLine, kLines, kWords, kRegions };
  Grain grain = Grain::kAll;
  Fate fate = Fate::kNewest;      // of all words, or of all others than the one
  Fate fate_of_one = Fate::kAny;  // of the one word or line
  size_t line = 0;                // the one line
  size_t word = 0;                // the one word of it
  uint32_t newest_of_8 = 4;       // kLines, kWords: so many eighths survive
  std::array<Fate, kRegions> of_region = {};
  uint64_t salt = 0;  // kLines: which of them
};

uint32_t VolatileWords::region_of(uint64_t at) const {
  const Geometry& geometry = regions_.geometry();
  if (at < geometry.buckets_at) return 0;
  if (at < geometry.leases_at) return 1;
  if (at < geometry.logs_at) return 2;
  if (at < geometry.page_table_at) {
    return (at - geometry.logs_at) % kLogBytes < sizeof(LogHeader) ? 3 : 4;
  }
  return at < geometry.pages_at ? 5 : 6;
}

VolatileWords::Plan VolatileWords::make_plan(std::mt19937_64& random) const {
  using Grain = Plan::Grain;
  static constexpr Grain kGrains[] = {Grain::kAll,     Grain::kOneWord, Grain::kOneWord,
                                      Grain::kOneLine, Grain::kLines,   Grain::kWords,
                                      Grain::kRegions, Grain::kRegions};
  Plan plan;
  plan.grain = kGrains[random() % std::size(kGrains)];
  plan.fate = random() % 2 == 0 ? Fate::kOldest : Fate::kNewest;
  plan.fate_of_one = plan.fate == Fate::kOldest ? Fate::kNewest : Fate::kOldest;
  plan.line = random() % lines_.size();
  plan.word = random() % kWords;
  // A word of this line that is in doubt.
  while (lines_[plan.line].values[plan.word].empty()) plan.word = (plan.word + 1) % kWords;
  plan.newest_of_8 = static_cast<uint32_t>(1 + random() % 7);
  for (Fate& fate : plan.of_region) fate = static_cast<Fate>(random() % 3);
  plan.salt = random();
  return plan;
}

uint32_t VolatileWords::choose(const Line& line, size_t word, size_t line_index, const Plan& plan,
                               std::mt19937_64& random) const {
  using Grain = Plan::Grain;
  const auto newest = static_cast<uint32_t>(line.values[word].size() - 1);
  const uint64_t at = line.number * kLineBytes + word * sizeof(uint64_t);
  const auto any = [&] { return static_cast<uint32_t>(random() % (newest + 1)); };
  const auto by = [&](Fate fate) {
    return fate == Fate::kAny ? any() : fate == Fate::kNewest ? newest : 0;
  };
  if (is_soft_word(regions_, at) && random() % 4 == 0) return any();
  switch (plan.grain) {
    case Grain::kAll:
      return by(plan.fate);
    case Grain::kOneWord:
      return by(line_index == plan.line && word == plan.word ? plan.fate_of_one : plan.fate);
    case Grain::kOneLine:
      return by(line_index == plan.line ? plan.fate_of_one : plan.fate);
    case Grain::kLines: {
      const uint64_t drawn = fold_multiply(line.number ^ plan.salt, 0x9e3779b97f4a7c15ULL);
      return by(drawn % 8 < plan.newest_of_8 ? Fate::kNewest : Fate::kOldest);
    }
    case Grain::kWords:
      return random() % 8 < plan.newest_of_8 ? newest : any();
    case Grain::kRegions:
      return by(plan.of_region[region_of(at)]);
  }
  return newest;
}

// A store that came last is not there without the stores to its line before it.
void VolatileWords::keep_order(const Line& line, Choice& choice) {
  // Newest first: what one raises may be ordered after older stores.
  for (auto ordered = line.ordered.rbegin(); ordered != line.ordered.rend(); ++ordered) {
    if (line.values[ordered->word][choice[ordered->word]].when < ordered->when) continue;
    for (size_t word = 0; word < kWords; ++word) {
      const auto& values = line.values[word];
      while (choice[word] + 1 < values.size() && values[choice[word] + 1].when < ordered->when) {
        ++choice[word];
      }
    }
  }
}

std::vector<LostWord> VolatileWords::draw(std::mt19937_64& random) const {
  std::vector<LostWord> lost;
  if (lines_.empty()) return lost;
  const Plan plan = make_plan(random);
  for (size_t i = 0; i < lines_.size(); ++i) {
    const Line& line = lines_[i];
    Choice choice = {};
    for (size_t word = 0; word < kWords; ++word) {
      if (!line.values[word].empty()) choice[word] = choose(line, word, i, plan, random);
    }
    if (!line.ordered.empty()) keep_order(line, choice);
    for (size_t word = 0; word < kWords; ++word) {
      const auto& values = line.values[word];
      if (choice[word] + 1 >= values.size()) continue;
      lost.push_back(
          {line.number * kLineBytes + word * sizeof(uint64_t), values[choice[word]].value});
    }
  }
  return lost;
}

}  // namespace flowkeep
