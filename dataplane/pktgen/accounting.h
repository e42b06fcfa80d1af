// Accounting: which packets of which flows arrived, and how. Knows for each flow the next sequence
// number expected and, for the last kWindow ones, whether they came; so a duplicate among them is
// told from a late packet.
//
//   in order    the expected number or a higher one
//   reordered   lower than one that came before, and new (RFC 4737, 3.3)
//   duplicate   came before
//   too late    more than kWindow behind: may be either; not counted as arrived, so it stays lost
//
// All memory is reserved at creation. Thread rule: one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "state/flow_key.h"
#include "state/result.h"

namespace flowkeep::pktgen {

class Accounting {
 public:
  static constexpr uint32_t kWindow = 4096;

  enum class Arrival { kInOrder, kReordered, kDuplicate, kTooLate, kUnknownFlow };

  struct Totals {
    uint64_t arrived = 0;  // each packet once
    uint64_t duplicated = 0;
    uint64_t reordered = 0;
    uint64_t too_late = 0;
    uint64_t mapping_changes = 0;  // flows whose source, as received, was not the same throughout
    friend bool operator==(const Totals&, const Totals&) = default;
  };
  struct Losses {
    uint64_t packets = 0;
    uint64_t flows = 0;  // that lost any
    friend bool operator==(const Losses&, const Losses&) = default;
  };

  static Result<Accounting> create(uint32_t flows);
  Accounting(Accounting&&) noexcept;
  Accounting& operator=(Accounting&&) noexcept;
  ~Accounting();

  // `source`: as received, perhaps translated.
  Arrival on_packet(uint32_t flow, uint32_t sequence, Be32 source, Be16 source_port);

  const Totals& totals() const { return totals_; }
  uint32_t flows_seen() const;
  // Distinct sources, as last seen, of all flows.
  uint64_t distinct_sources() const;
  // sent[flow]: packets of the flow that were sent.
  Losses losses(std::span<const uint64_t> sent) const;

 private:
  struct FlowState;
  struct Unmap {
    size_t bytes;
    void operator()(void* memory) const;
  };

  Accounting() = default;
  uint64_t& window_word(uint32_t flow, uint64_t sequence);
  void note_source(FlowState& state, Be32 source, Be16 source_port);

  uint32_t flows_ = 0;
  std::unique_ptr<void, Unmap> memory_;
  FlowState* states_ = nullptr;
  // Word w of flow f at [w * flows_ + f]: neighbouring flows, which are sent one after the other,
  // share cache lines, and flows with few packets touch few pages.
  uint64_t* windows_ = nullptr;
  Totals totals_;
};

}  // namespace flowkeep::pktgen
