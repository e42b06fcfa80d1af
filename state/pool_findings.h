// Findings: what is wrong with a pool, as values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace flowkeep {

enum class Severity : uint8_t {
  kNote,    // what a crash leaves and recovery completes: nothing is wrong
  kWaste,   // space or soft state is lost, no flow is
  kDamage,  // flows are affected, or the pool cannot be opened
};
std::string_view severity_text(Severity severity);  // "note", "waste", "damage"

struct Finding {
  std::string where;  // "chain \"edge\" bucket 3 record 40961"
  std::string what;   // "checksum"
  std::string found;
  std::string expected;
  Severity severity;
};

// Keeps the first kMost, counts all: a page of garbage must not fill the memory.
class Findings {
 public:
  static constexpr size_t kMost = 1000;

  void add(Severity severity, std::string where, std::string what, std::string found,
           std::string expected);
  const std::vector<Finding>& listed() const { return listed_; }
  uint64_t count(Severity severity) const { return counts_[static_cast<size_t>(severity)]; }
  uint64_t omitted() const;
  bool clean() const { return count(Severity::kWaste) + count(Severity::kDamage) == 0; }

 private:
  std::vector<Finding> listed_;
  uint64_t counts_[3] = {};
};

}  // namespace flowkeep
