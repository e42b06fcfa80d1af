#include "dataplane/pktgen/accounting.h"

#include <sys/mman.h>

#include <algorithm>
#include <vector>

namespace flowkeep::pktgen {
namespace {

constexpr uint32_t kWordBits = 64;
constexpr uint32_t kWindowWords = Accounting::kWindow / kWordBits;
constexpr size_t kLargestPopulatedBytes = size_t{256}
                                          << 20;  // more than this is touched on first use

constexpr uint64_t bit_of(uint64_t sequence) {
  return uint64_t{1} << (sequence % kWordBits);
}

}  // namespace

struct Accounting::FlowState {
  uint64_t next;     // one above the highest sequence number seen, not wrapped
  uint64_t arrived;  // each packet once
  Be32 source;
  Be16 source_port;
  uint8_t seen;
  uint8_t mapping_changed;
};

void Accounting::Unmap::operator()(void* memory) const {
  munmap(memory, bytes);
}

Accounting::Accounting(Accounting&&) noexcept = default;
Accounting& Accounting::operator=(Accounting&&) noexcept = default;
Accounting::~Accounting() = default;

Result<Accounting> Accounting::create(uint32_t flows) {
  const size_t state_bytes = size_t{flows} * sizeof(FlowState);
  const size_t bytes = state_bytes + size_t{flows} * kWindowWords * sizeof(uint64_t);
  const int populate = bytes <= kLargestPopulatedBytes ? MAP_POPULATE : 0;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | populate, -1, 0);
  if (memory == MAP_FAILED)
    return unavailable("--flows", "no memory to account for " + std::to_string(flows) + " flows (" +
                                      std::to_string(bytes >> 20) + " MB); use fewer");
  Accounting made;
  made.flows_ = flows;
  made.memory_ = std::unique_ptr<void, Unmap>(memory, Unmap{bytes});
  made.states_ = static_cast<FlowState*>(memory);
  made.windows_ = reinterpret_cast<uint64_t*>(static_cast<std::byte*>(memory) + state_bytes);
  return made;
}

uint64_t& Accounting::window_word(uint32_t flow, uint64_t sequence) {
  return windows_[sequence % kWindow / kWordBits * flows_ + flow];
}

void Accounting::note_source(FlowState& state, Be32 source, Be16 source_port) {
  if (state.seen && state.source == source && state.source_port == source_port) return;
  if (state.seen && !state.mapping_changed) {
    state.mapping_changed = 1;
    ++totals_.mapping_changes;
  }
  state.seen = 1;
  state.source = source;
  state.source_port = source_port;
}

Accounting::Arrival Accounting::on_packet(uint32_t flow, uint32_t sequence, Be32 source,
                                          Be16 source_port) {
  if (flow >= flows_) return Arrival::kUnknownFlow;
  FlowState& state = states_[flow];
  note_source(state, source, source_port);
  const auto ahead = static_cast<int32_t>(sequence - static_cast<uint32_t>(state.next));
  if (ahead >= 0) {
    const uint64_t absolute = state.next + static_cast<uint32_t>(ahead);
    const uint64_t skipped = std::min<uint64_t>(static_cast<uint32_t>(ahead), kWindow);
    for (uint64_t hole = absolute - skipped; hole != absolute; ++hole)
      window_word(flow, hole) &= ~bit_of(hole);
    window_word(flow, absolute) |= bit_of(absolute);
    state.next = absolute + 1;
    ++state.arrived;
    ++totals_.arrived;
    return Arrival::kInOrder;
  }
  const uint64_t behind = uint64_t{0} - static_cast<uint64_t>(static_cast<int64_t>(ahead));
  if (behind > kWindow || behind > state.next) {
    ++totals_.too_late;
    return Arrival::kTooLate;
  }
  const uint64_t absolute = state.next - behind;
  uint64_t& word = window_word(flow, absolute);
  if (word & bit_of(absolute)) {
    ++totals_.duplicated;
    return Arrival::kDuplicate;
  }
  word |= bit_of(absolute);
  ++state.arrived;
  ++totals_.arrived;
  ++totals_.reordered;
  return Arrival::kReordered;
}

uint32_t Accounting::flows_seen() const {
  return static_cast<uint32_t>(
      std::count_if(states_, states_ + flows_, [](const FlowState& state) { return state.seen; }));
}

uint64_t Accounting::distinct_sources() const {
  std::vector<uint64_t> sources;
  for (uint32_t flow = 0; flow < flows_; ++flow)
    if (states_[flow].seen)
      sources.push_back(uint64_t{states_[flow].source.raw} << 16 | states_[flow].source_port.raw);
  std::sort(sources.begin(), sources.end());
  return static_cast<uint64_t>(std::unique(sources.begin(), sources.end()) - sources.begin());
}

Accounting::Losses Accounting::losses(std::span<const uint64_t> sent) const {
  Losses losses;
  for (uint32_t flow = 0; flow < flows_ && flow < sent.size(); ++flow) {
    if (sent[flow] <= states_[flow].arrived) continue;
    losses.packets += sent[flow] - states_[flow].arrived;
    ++losses.flows;
  }
  return losses;
}

}  // namespace flowkeep::pktgen
