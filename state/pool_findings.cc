#include "state/pool_findings.h"

#include <utility>

namespace flowkeep {

std::string_view severity_text(Severity severity) {
  switch (severity) {
    case Severity::kNote:
      return "note";
    case Severity::kWaste:
      return "waste";
    case Severity::kDamage:
      return "damage";
  }
  return "unknown";
}

void Findings::add(Severity severity, std::string where, std::string what, std::string found,
                   std::string expected) {
  ++counts_[static_cast<size_t>(severity)];
  if (listed_.size() == kMost) return;
  listed_.push_back(
      {std::move(where), std::move(what), std::move(found), std::move(expected), severity});
}

uint64_t Findings::omitted() const {
  return counts_[0] + counts_[1] + counts_[2] - listed_.size();
}

}  // namespace flowkeep
