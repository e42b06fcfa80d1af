#include "nfs/chain_runtime.h"

#include <cassert>

#include "nfs/headers.h"

namespace flowkeep {
namespace {

bool is_icmp_error(const PacketMeta& meta) {
  return meta.inner_l3_offset != 0;
}

// Of an IPv6 packet's flow, as the inside key has them.
WideAddresses inside_addresses(const PacketMeta& meta) {
  return meta.side == Side::kInside ? meta.addresses : meta.addresses.reversed();
}

void drop(PacketMeta& meta, DropReason reason) {
  meta.verdict = Verdict::kDrop;
  meta.reason = reason;
}

// Only what begins a conversation opens a flow: a SYN (as in RFC 6146 section 3.5.2.2), an echo
// request, any packet of the other protocols.
bool may_open(const Packet& packet) {
  const PacketMeta& meta = *packet.meta;
  if (is_icmp_error(meta)) return false;
  switch (meta.key.protocol) {
    case kProtocolTcp:
      return is_first_tcp_segment(meta.tcp_flags);
    case kProtocolIcmp:
      return checked_header<IcmpHeader>(packet.frame, meta.l4_offset).type == kIcmpEchoRequest;
    case kProtocolIcmpv6:
      return checked_header<IcmpHeader>(packet.frame, meta.l4_offset).type == kIcmpv6EchoRequest;
    default:
      return true;
  }
}

}  // namespace

ChainRuntime::ChainRuntime(const Chain& chain, FlowTable& table, uint32_t revision,
                           uint32_t resumed_s, const Timeouts& timeouts)
    : chain_(chain),
      table_(table),
      revision_(revision),
      resumed_s_(resumed_s),
      timeouts_(timeouts) {
  for (const Chain::Element& element : chain.elements()) {
    steps_.push_back(element.function->make_step(element.hard_offset));
    has_process_ |= steps_.back()->has_process();
  }
}

size_t ChainRuntime::run(std::span<Packet> packets, uint32_t now_s, UndoLog& undo) {
  assert(packets.size() <= kBurstPackets);
  for (const Packet& packet : packets) {
    table_.prefetch_index(packet.meta->bucket, packet.meta->hash);
    __builtin_prefetch(packet.frame, 1);
  }
  for (const Packet& packet : packets) {
    table_.prefetch_record(packet.meta->bucket, packet.meta->hash);
  }
  size_t done = 0;
  while (done < packets.size() && find_flow(packets[done], done, now_s) == Progress::kDone) ++done;
  assert(done > 0 || packets.empty() || table_.dirty());
  if (has_process_) run_functions(packets.first(done), now_s, undo);
  return done;
}

ChainRuntime::Progress ChainRuntime::find_flow(const Packet& packet, size_t index, uint32_t now_s) {
  PacketMeta& meta = *packet.meta;
  meta.verdict = Verdict::kForward;
  meta.reason = DropReason::kNone;
  flows_[index] = 0;
  if (chain_.variable_bytes() != 0 && !has_room(0, index)) return Progress::kNoRoom;
  const RecordId id = table_.find(meta.bucket, meta.key, meta.hash, meta.wide_addresses());
  if (id == 0) return open_flow(packet, index, now_s);
  if (may_go_on(table_.record(id), meta, now_s)) {
    flows_[index] = id;
    return follow(id, index, meta, now_s);
  }
  if (is_icmp_error(meta)) {
    drop(meta, DropReason::kNoFlow);
    return Progress::kDone;
  }
  // The burst's earlier packets still need the record; room is needed for this end and a new begin.
  if (used_before(id, index) || !has_room(2, index)) return Progress::kNoRoom;
  table_.close(id);
  return open_flow(packet, index, now_s);
}

// False: the flow is over, or is not allowed any more, and the packet is judged as a first one.
bool ChainRuntime::may_go_on(const FlowRecord& record, const PacketMeta& meta, uint32_t now_s) {
  if (expired(record, timeouts_, now_s, resumed_s_)) {
    ++counters_.expired;
    return false;
  }
  // The side that did not open the connection opens one of its own over the closed one.
  if (record.phase == FlowPhase::kClosed && meta.side != record.initiator &&
      is_first_tcp_segment(meta.tcp_flags) && !is_icmp_error(meta)) {
    return false;
  }
  return record.revision == revision_ || take_over(record);
}

// Moves each function's state to where this revision keeps it, in taken_hard_. The keys are
// compared because a revision may translate where another did not.
bool ChainRuntime::take_over(const FlowRecord& record) {
  const Takeover& from = takeover_from(record.revision);
  bool allowed = from.possible;
  taken_hard_.fill(0);
  taken_extent_ = from.keeps_extent;
  for (size_t i = 0; i < steps_.size(); ++i) {
    allowed = allowed &&
              steps_[i]->carry_over(record, chain_.find_state(from.layout, i), taken_hard_.data());
  }
  for (const auto& step : steps_) {
    allowed = allowed && step->still_allowed(record, taken_hard_.data());
  }
  allowed =
      allowed && record.outside_key == chain_.outside_key(record.inside_key, taken_hard_.data());
  ++(allowed ? counters_.revised : counters_.revised_away);
  return allowed;
}

const ChainRuntime::Takeover& ChainRuntime::takeover_from(uint32_t revision) {
  for (const Takeover& known : takeovers_) {
    if (known.revision == revision && known.possible) return known;
  }
  Takeover& takeover = takeovers_[next_takeover_++ % takeovers_.size()];
  takeover = {.revision = revision, .possible = false, .keeps_extent = false, .layout = {}};
  const auto layout = table_.layout_of(revision);
  if (!layout) return takeover;
  takeover.possible = true;
  takeover.layout = *layout;
  for (size_t i = 0; i < steps_.size(); ++i) {
    const FunctionLayout* mine = chain_.find_state(chain_.state_layout(), i);
    const FunctionLayout* theirs = chain_.find_state(*layout, i);
    if (mine == nullptr || theirs == nullptr || !mine->has_extent) continue;
    takeover.keeps_extent = theirs->has_extent && theirs->version == mine->version;
  }
  return takeover;
}

// Makes the record one of this revision.
void ChainRuntime::restamp(RecordId id) {
  FlowRecord& staged = table_.stage(id);
  staged.revision = revision_;
  std::memcpy(staged.hard, taken_hard_.data(), kHardStateBytes);
  if (!taken_extent_ && table_.set_extent(id, {}) != OpenStatus::kOk) {
    assert(!"nothing needs no room");
  }
}

// Room for `changes` besides the variable state of the burst's packets up to this one, which the
// functions will commit later.
bool ChainRuntime::has_room(uint32_t changes, size_t index) const {
  const size_t variable_bytes = chain_.variable_bytes();
  const uint32_t extents = variable_bytes == 0 ? 0 : static_cast<uint32_t>(index) + 1;
  return table_.has_room(changes + extents, variable_bytes);
}

ChainRuntime::Progress ChainRuntime::follow(RecordId id, size_t index, const PacketMeta& meta,
                                            uint32_t now_s) {
  const FlowRecord& record = table_.record(id);
  const bool revised = record.revision != revision_;
  // An error about a flow neither keeps it alive nor ends it (RFC 5508 section 4.3, RFC 5382
  // REQ-10).
  const bool is_error = is_icmp_error(meta);
  const FlowPhase phase = is_error ? record.phase : next_phase(record, meta.tcp_flags, meta.side);
  if (!is_error && record.last_seen_s != now_s) table_.touch(id, now_s);
  if (phase == record.phase && !revised) return Progress::kDone;
  if (!has_room(1, index)) return Progress::kNoRoom;
  FlowRecord& staged = table_.stage(id);
  if (phase == FlowPhase::kOpening && is_closing(staged.phase)) {
    staged.opened_s = now_s;
    ++counters_.reopened;
  }
  staged.phase = phase;
  if (revised) restamp(id);
  return Progress::kDone;
}

ChainRuntime::Progress ChainRuntime::open_flow(const Packet& packet, size_t index, uint32_t now_s) {
  PacketMeta& meta = *packet.meta;
  if (!may_open(packet)) {
    drop(meta, DropReason::kNoFlow);
    return Progress::kDone;
  }
  if (!has_room(1, index)) return Progress::kNoRoom;
  const FlowKey inside = meta.side == Side::kInside ? meta.key : meta.key.reversed();
  WideAddresses addresses;
  if (meta.is_wide()) addresses = inside_addresses(meta);
  OpeningFlow flow{inside, meta.side, meta.bucket, table_, meta.is_wide() ? &addresses : nullptr};
  if (const DropReason refused = open_functions(flow); refused != DropReason::kNone) {
    drop(meta, refused);
    return Progress::kDone;
  }
  const FlowTable::Opened opened = table_.open(
      meta.bucket, inside, chain_.outside_key(inside, flow.hard.data()), flow.addresses);
  switch (opened.status) {
    case OpenStatus::kOk:
      break;
    case OpenStatus::kWriteSetFull:
      return Progress::kNoRoom;
    case OpenStatus::kPoolFull:
      drop(meta, DropReason::kPoolFull);
      return Progress::kDone;
    case OpenStatus::kPoolDamaged:
      drop(meta, DropReason::kPoolDamaged);
      return Progress::kDone;
    // The outside key is another flow's, which a revision that translated has left.
    case OpenStatus::kKeyExists:
      drop(meta, DropReason::kNoFlow);
      return Progress::kDone;
  }
  FlowRecord& record = table_.stage(opened.id);
  record.phase = FlowPhase::kOpening;
  record.initiator = meta.side;
  record.revision = revision_;
  record.opened_s = now_s;
  record.last_seen_s = now_s;
  std::memcpy(record.hard, flow.hard.data(), kHardStateBytes);
  flows_[index] = opened.id;
  ++counters_.opened;
  return Progress::kDone;
}

DropReason ChainRuntime::open_functions(OpeningFlow& flow) {
  const auto refusal_of = [&flow](auto first, auto end) {
    for (auto step = first; step != end; ++step) {
      const Decision decision = (*step)->open(flow);
      if (!decision.accepted()) return decision.refused;
    }
    return DropReason::kNone;
  };
  return flow.initiator == Side::kInside ? refusal_of(steps_.begin(), steps_.end())
                                         : refusal_of(steps_.rbegin(), steps_.rend());
}

bool ChainRuntime::used_before(RecordId id, size_t index) const {
  for (size_t i = 0; i < index; ++i) {
    if (flows_[i] == id) return true;
  }
  return false;
}

void ChainRuntime::run_functions(std::span<Packet> packets, uint32_t now_s, UndoLog& undo) {
  BurstFrame frame{packets, table_, std::span(flows_).first(packets.size()), {}, undo, 0, now_s};
  for (size_t i = 0; i < packets.size(); ++i) {
    frame.records[i] = flows_[i] == 0 ? nullptr : &table_.record(flows_[i]);
  }
  for (const auto& step : steps_) {
    if (step->has_process()) step->process(frame, Side::kInside);
  }
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
    if ((*step)->has_process()) (*step)->process(frame, Side::kOutside);
  }
}

uint32_t ChainRuntime::sweep(std::span<const uint32_t> buckets, uint32_t records, uint32_t now_s) {
  uint32_t closed = 0;
  for (const uint32_t bucket : buckets) {
    if (!table_.has_room(1)) break;
    table_.sweep(bucket, records, [&](RecordId id, const FlowRecord& record) {
      if (!expired(record, timeouts_, now_s, resumed_s_) || !table_.has_room(1)) return;
      table_.close(id);
      ++closed;
    });
  }
  counters_.expired += closed;
  return closed;
}

}  // namespace flowkeep
