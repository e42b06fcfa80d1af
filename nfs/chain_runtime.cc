#include "nfs/chain_runtime.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "nfs/headers.h"
#include "nfs/steering.h"
#include "state/index_keys.h"

namespace flowkeep {
namespace {

bool is_icmp_error(const PacketMeta& meta) {
  return meta.inner_l3_offset != 0;
}

// A lease costs as much to look at as so many records.
constexpr uint32_t kRecordsForALease = 16;

// Of an IPv6 packet's flow, as the inside key has them.
WideAddresses inside_addresses(const PacketMeta& meta) {
  return meta.side == Side::kInside ? meta.addresses : meta.addresses.reversed();
}

void drop(PacketMeta& meta, DropReason reason) {
  meta.verdict = Verdict::kDrop;
  meta.reason = reason;
}
void refuse(PacketMeta& meta, const Decision& decision) {
  meta.verdict = decision.answered ? Verdict::kReply : Verdict::kDrop;
  meta.reason = decision.refused;
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
                           uint32_t resumed_s)
    : chain_(chain),
      table_(table),
      revision_(revision),
      resumed_s_(resumed_s),
      soft_epoch_(static_cast<uint16_t>(resumed_s % 0xffff + 1)),
      timeouts_(chain.timeouts()) {
  for (const Chain::Element& element : chain.elements()) {
    steps_.push_back(element.function->make_step(element.place()));
    has_process_ |= steps_.back()->has_process();
    if (steps_.back()->inspects()) inspector_ = steps_.back().get();
    hears_ends_ |= steps_.back()->hears_ends();
    owners_.push_back(element.place().owner);
  }
}

size_t ChainRuntime::run(std::span<Packet> packets, uint32_t now_s, UndoLog& undo) {
  assert(packets.size() <= kBurstPackets);
  prefetch(packets);
  size_t done = 0;
  while (done < packets.size() && find_flow(packets[done], done, now_s, undo) == Progress::kDone)
    ++done;
  assert(done > 0 || packets.empty() || table_.dirty());
  if (has_process_) run_functions(packets.first(done), now_s, undo);
  return done;
}

void ChainRuntime::prefetch(std::span<const Packet> packets) {
  const bool mapped = chain_.maps_endpoints();
  for (const Packet& packet : packets) {
    table_.prefetch_index(packet.meta->bucket, packet.meta->hash);
    __builtin_prefetch(packet.frame, 1);
  }
  for (size_t i = 0; i < packets.size(); ++i) {
    const PacketMeta& meta = *packets[i].meta;
    const bool suggested = table_.prefetch_record(meta.bucket, meta.hash);
    endpoint_hashes_[i].reset();
    if (suggested || !mapped || meta.is_wide()) continue;
    endpoint_hashes_[i] = hash_key(endpoint_key(meta.key), table_.hash_secret());
    table_.prefetch_index(meta.bucket, *endpoint_hashes_[i]);
  }
  if (!mapped) return;
  for (size_t i = 0; i < packets.size(); ++i) {
    if (endpoint_hashes_[i]) table_.prefetch_record(packets[i].meta->bucket, *endpoint_hashes_[i]);
  }
}

// An endpoint's first flow is what the endpoint leads to; its others are found by their own keys.
ChainRuntime::Found ChainRuntime::look_up(const PacketMeta& meta, size_t index) const {
  const bool mapped = chain_.maps_endpoints() && !meta.is_wide();
  const bool own_first = !endpoint_hashes_[index].has_value();
  if (own_first) {
    const RecordId own =
        table_.find_indexed(meta.bucket, meta.key, meta.hash, meta.wide_addresses());
    if (own != 0 || !mapped) return {own, 0};
  }
  const FlowKey endpoint = endpoint_key(meta.key);
  const uint64_t hash =
      own_first ? hash_key(endpoint, table_.hash_secret()) : *endpoint_hashes_[index];
  const RecordId host = table_.find_indexed(meta.bucket, endpoint, hash);
  if (host != 0) {
    const FlowRecord& record = table_.record(host);
    const FlowKey& key = meta.side == Side::kInside ? record.inside_key : record.outside_key;
    if (key == meta.key && record.phase != FlowPhase::kKeyed) return {host, host};
  }
  return {own_first ? 0 : table_.find_indexed(meta.bucket, meta.key, meta.hash), host};
}

ChainRuntime::Progress ChainRuntime::find_flow(const Packet& packet, size_t index, uint32_t now_s,
                                               UndoLog& undo) {
  PacketMeta& meta = *packet.meta;
  meta.verdict = Verdict::kForward;
  meta.reason = DropReason::kNone;
  meta.revision = static_cast<uint8_t>(revision_);
  std::ranges::fill(meta.counts, uint16_t{0});
  flows_[index] = 0;
  if (chain_.variable_bytes() + chain_.process_changes() != 0 && !has_room(0, index)) {
    return Progress::kNoRoom;
  }
  const auto [id, host] = look_up(meta, index);
  if (id == 0) return open_flow(packet, index, now_s, undo, host);
  if (may_go_on(table_.record(id), meta, now_s)) {
    flows_[index] = id;
    return follow(id, index, packet, now_s, undo);
  }
  if (is_icmp_error(meta)) {
    drop(meta, DropReason::kNoFlow);
    return Progress::kDone;
  }
  // The burst's earlier packets still need the record; room is needed for this end and a new begin.
  if (used_before(id, index) || !has_room(2, index)) return Progress::kNoRoom;
  close_flow(id, now_s);
  return open_flow(packet, index, now_s, undo, look_up(meta, index).host);
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

bool ChainRuntime::take_over(const FlowRecord& record) {
  const bool allowed = is_allowed(record);
  ++(allowed ? counters_.revised : counters_.revised_away);
  return allowed;
}

// Moves each function's state to where this revision keeps it, in taken_hard_. The keys are
// compared because a revision may translate where another did not, or steer otherwise.
bool ChainRuntime::is_allowed(const FlowRecord& record) {
  const Takeover& from = takeover_from(record.revision);
  const uint64_t hash =
      steering_hash(chain_.steering_scope(), record.inside_key, table_.hash_secret());
  bool allowed = from.possible && (chain_.maps_endpoints() || record.users == 0) &&
                 hash % table_.buckets() == record.bucket && has_its_lease(record);
  taken_hard_.fill(0);
  taken_extent_ = from.keeps_extent;
  for (size_t i = 0; i < steps_.size(); ++i) {
    allowed = allowed &&
              steps_[i]->carry_over(record, chain_.find_state(from.layout, i), taken_hard_.data());
  }
  for (const auto& step : steps_) {
    allowed = allowed && step->still_allowed(record, taken_hard_.data(), table_);
  }
  return allowed && record.outside_key == chain_.outside_key(record.inside_key, taken_hard_.data());
}

// Would this revision give the endpoint that `host` stands for the same outside name? Its own flow,
// if it has one, may be allowed or not for other reasons.
bool ChainRuntime::is_mapping_allowed(const FlowRecord& host) {
  if (host.revision == revision_) return true;
  constexpr std::array<uint8_t, kHardStateBytes> kNone{};
  return has_its_lease(host) && steps_.back()->still_allowed(host, kNone.data(), table_);
}

// By which packets from the outside find the bucket. The order of the external addresses, which
// leases go by, may have changed since the flow opened.
bool ChainRuntime::has_its_lease(const FlowRecord& record) {
  if (record.users == 0 || !is_leased(record)) return true;
  const std::span<const Be32> addresses = chain_.external_addresses();
  const auto address = std::ranges::find(addresses, record.outside_key.dst);
  if (address == addresses.end()) return false;
  const auto index = static_cast<uint32_t>(address - addresses.begin());
  const uint32_t block =
      record.outside_key.dst_port.host() / static_cast<uint32_t>(kPortBlockPorts);
  return table_.lease_owner(index, block) == record.bucket ||
         table_.lease_acquire(index, block, record.bucket);
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

// Room for `changes` of flows, with the keyed state that goes with each, besides what process()
// will change for the burst's packets up to this one.
bool ChainRuntime::has_room(uint32_t changes, size_t index) const {
  const size_t variable_bytes = chain_.variable_bytes();
  const uint32_t each = chain_.process_changes() + (variable_bytes == 0 ? 0 : 1);
  const uint32_t later = each == 0 ? 0 : each * (static_cast<uint32_t>(index) + 1);
  return table_.has_room(changes * (1 + chain_.keyed_changes()) + later, variable_bytes);
}

ChainRuntime::Progress ChainRuntime::follow(RecordId id, size_t index, const Packet& packet,
                                            uint32_t now_s, UndoLog& undo) {
  const PacketMeta& meta = *packet.meta;
  const FlowRecord& record = table_.record(id);
  const bool revised = record.revision != revision_;
  // An error about a flow neither keeps it alive nor ends it (RFC 5508 section 4.3, RFC 5382
  // REQ-10).
  bool without_effect = is_icmp_error(meta);
  if (!without_effect && inspector_ != nullptr) {
    if (!has_room(1, index)) return Progress::kNoRoom;  // a packet is inspected once
    const Inspection seen = inspect(packet, id, now_s, undo);
    if (seen.effect == Inspection::Effect::kDrop) drop(*packet.meta, seen.reason);
    without_effect = seen.effect != Inspection::Effect::kFollow;
  }
  const FlowPhase phase =
      without_effect ? record.phase : next_phase(record, meta.tcp_flags, meta.side);
  if (!without_effect && record.last_seen_s != now_s) table_.touch(id, now_s);
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

Inspection ChainRuntime::inspect(const Packet& packet, RecordId id, uint32_t now_s, UndoLog& undo) {
  InspectedFlow flow{packet, undo, table_, id, table_.record(id), soft_epoch_, now_s};
  return inspector_->inspect(flow);
}

// What a flow before it has left there, which another revision's function might take for its own.
void ChainRuntime::clear_soft(RecordId id, UndoLog& undo) {
  constexpr std::array<uint8_t, kSoftStateBytes> kNone{};
  if (std::ranges::equal(table_.soft(id), kNone)) return;
  save_soft(undo, table_, id);
  table_.store_soft(id, 0, kNone);
}

ChainRuntime::Progress ChainRuntime::open_flow(const Packet& packet, size_t index, uint32_t now_s,
                                               UndoLog& undo, RecordId host) {
  PacketMeta& meta = *packet.meta;
  const FlowKey inside = meta.side == Side::kInside ? meta.key : meta.key.reversed();
  OpeningFlow flow{inside, meta.side, meta.bucket, table_, packet, undo, events_, now_s};
  WideAddresses addresses;
  if (meta.is_wide()) {
    addresses = inside_addresses(meta);
    flow.addresses = &addresses;
  }
  flow.mapping = mapping_of(host);
  if (!may_open(packet)) {
    refuse(meta, judge_stray(flow));
    return Progress::kDone;
  }
  if (!has_room(1, index)) return Progress::kNoRoom;
  if (host != 0 && !is_mapping_allowed(table_.record(host))) {
    // Its flows end one by one, and what opens meanwhile must not keep it alive.
    if (!is_lone_flow(table_.record(host))) {
      drop(meta, DropReason::kNatNoMapping);
      return Progress::kDone;
    }
    if (used_before(host, index) || !has_room(2, index)) return Progress::kNoRoom;
    ++counters_.revised_away;
    close_flow(host, now_s);
    flow.mapping.reset();
  }
  if (const Decision decision = open_functions(flow); !decision.accepted()) {
    refuse(meta, decision);
    return Progress::kDone;
  }
  const FlowTable::Opened opened = open_record(flow);
  if (opened.status != OpenStatus::kOk) take_back(flow, steps_.size());
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
    // A key is another flow's, which a revision that translated otherwise has left.
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
  clear_soft(opened.id, undo);
  if (inspector_ != nullptr)
    inspect(packet, opened.id, now_s, undo);  // it is the first there is to know
  ++counters_.opened;
  return Progress::kDone;
}

FlowTable::Opened ChainRuntime::open_record(const OpeningFlow& flow) {
  const FlowKey outside = chain_.outside_key(flow.inside_key, flow.hard.data());
  if (!chain_.maps_endpoints() || flow.addresses != nullptr || !flow.named_anew) {
    return table_.open(flow.bucket, flow.inside_key, outside, flow.addresses);
  }
  return table_.open_mapped(flow.bucket, flow.inside_key, outside,
                            mapping_marks(flow.leased, flow.account));
}

std::optional<EndpointMapping> ChainRuntime::mapping_of(RecordId host) const {
  if (host == 0) return std::nullopt;
  const FlowRecord& record = table_.record(host);
  return EndpointMapping{record.inside_key, record.outside_key};
}

AnyStep& ChainRuntime::step_in_order(Side from, size_t i) const {
  return *steps_[from == Side::kInside ? i : steps_.size() - 1 - i];
}

Decision ChainRuntime::open_functions(OpeningFlow& flow) {
  for (size_t i = 0; i < steps_.size(); ++i) {
    const Decision decision = step_in_order(flow.initiator, i).open(flow);
    if (decision.accepted()) continue;
    take_back(flow, i);
    return decision;
  }
  return Decision::accept();
}

Decision ChainRuntime::judge_stray(OpeningFlow& packet) {
  const Decision unknown = Decision::refuse(DropReason::kNoFlow);
  if (is_icmp_error(*packet.packet.meta)) return unknown;
  for (const auto& step : steps_) {
    const Decision decision = step->stray(packet);
    if (!decision.accepted()) return decision;
  }
  return unknown;
}

// Tells the first `opened` functions that the flow does not open after all.
void ChainRuntime::take_back(OpeningFlow& flow, size_t opened) {
  const FlowEnd end{flow.inside_key, flow.initiator, FlowPhase::kOpening,       flow.bucket, table_,
                    events_,         flow.now_s,     !flow.mapping.has_value(), flow.account};
  for (size_t i = 0; i < opened; ++i) {
    AnyStep& step = step_in_order(flow.initiator, i);
    step.not_opened(flow);
    step.close(end, flow.hard.data());
  }
}

bool ChainRuntime::is_last_of_mapping(const FlowRecord& record) const {
  if (!is_guest(record)) return user_count(record) == 1;
  const FlowKey endpoint = endpoint_key(record.inside_key);
  const RecordId host =
      table_.find_indexed(record.bucket, endpoint, hash_key(endpoint, table_.hash_secret()));
  return host != 0 && user_count(table_.record(host)) == 1;
}

void ChainRuntime::close_flow(RecordId id, uint32_t now_s) {
  if (hears_ends_) {
    const FlowRecord record = table_.record(id);
    const FlowEnd end{record.inside_key,
                      record.initiator,
                      record.phase,
                      record.bucket,
                      table_,
                      events_,
                      now_s,
                      is_last_of_mapping(record),
                      mapping_account(record)};
    const bool own = record.revision == revision_;
    const Takeover* from = own ? nullptr : &takeover_from(record.revision);
    alignas(64) std::array<uint8_t, kHardStateBytes> hard;
    std::memcpy(hard.data(), record.hard, kHardStateBytes);
    for (size_t i = 0; i < steps_.size(); ++i) {
      if (!steps_[i]->hears_ends()) continue;
      if (!own) {
        const FunctionLayout* state = chain_.find_state(from->layout, i);
        if (state == nullptr || !steps_[i]->carry_over(record, state, hard.data())) continue;
      }
      steps_[i]->close(end, hard.data());
    }
  }
  table_.close(id);
}

bool ChainRuntime::used_before(RecordId id, size_t index) const {
  for (size_t i = 0; i < index; ++i) {
    if (flows_[i] == id) return true;
  }
  return false;
}

void ChainRuntime::run_functions(std::span<Packet> packets, uint32_t now_s, UndoLog& undo) {
  BurstFrame frame{packets, table_, std::span(flows_).first(packets.size()), {}, undo, events_,
                   0,       now_s};
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

// Of a function that is not, or not in this version, in the chain.
bool ChainRuntime::is_orphan(const FlowRecord& record) const {
  if (record.users != 0) return false;
  return std::ranges::find(owners_, record.inside_key.dst_port) == owners_.end();
}

uint32_t ChainRuntime::sweep(std::span<const uint32_t> buckets, uint32_t records, uint32_t now_s) {
  const uint32_t changes = 1 + chain_.keyed_changes();
  uint32_t closed = 0;
  for (const uint32_t bucket : buckets) {
    if (!table_.has_room(changes)) break;
    if (!table_.dirty()) {
      for (const auto& step : steps_) step->sweep(table_, bucket, 1 + records / kRecordsForALease);
    }
    table_.sweep(bucket, records, [&](RecordId id, const FlowRecord& record) {
      if (!table_.has_room(changes)) return;
      if (record.phase == FlowPhase::kKeyed) {
        if (is_orphan(record)) table_.close(id);
        return;
      }
      const bool over = expired(record, timeouts_, now_s, resumed_s_);
      if (!over && (record.revision == revision_ || is_allowed(record))) return;
      ++(over ? counters_.expired : counters_.revised_away);
      close_flow(id, now_s);
      ++closed;
    });
  }
  return closed;
}

}  // namespace flowkeep
