#include "dataplane/switch/reassembly.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "nfs/checksum.h"
#include "nfs/headers.h"

namespace flowkeep {
namespace {

constexpr size_t kL3Offset = sizeof(EthernetHeader);
constexpr size_t kIpv6HeaderBytes = 40;
constexpr uint16_t kDontFragment = 0x4000;

// The headers of the whole datagram, from those of its first fragment.
void write_lengths(uint8_t* ip, size_t header_bytes, uint32_t payload_bytes) {
  if (ip[0] >> 4 == 6) {
    const auto length = static_cast<uint16_t>(header_bytes - kIpv6HeaderBytes + payload_bytes);
    reinterpret_cast<Wire<Be16>*>(ip + 4)->set(Be16::from_host(length));
    return;
  }
  auto& header = *reinterpret_cast<Ipv4Header*>(ip);
  header.total_length.set(Be16::from_host(static_cast<uint16_t>(header_bytes + payload_bytes)));
  const uint16_t flags = header.flags_and_offset.get().host() & kDontFragment;
  header.flags_and_offset.set(Be16::from_host(flags));
  header.checksum.set(Be16{});
  header.checksum.set(internet_checksum(ip, header_bytes));
}

// A fragment that cannot belong to any datagram that we put together.
bool impossible(const Fragment& fragment) {
  return fragment.payload_bytes == 0 || (fragment.more && fragment.payload_bytes % 8 != 0) ||
         fragment.offset + fragment.payload_bytes > kDatagramPayloadBytes ||
         fragment.header_bytes > kDatagramHeaderRoom;
}

}  // namespace

Reassembly::Reassembly(size_t datagrams, uint32_t timeout_ms, HashSecret secret, Actions actions)
    : timeout_ms_(timeout_ms),
      secret_(secret),
      actions_(std::move(actions)),
      entries_(datagrams),
      buckets_(std::bit_ceil(2 * datagrams), kNone) {
  free_.reserve(datagrams);
  for (size_t i = datagrams; i > 0; --i) free_.push_back(static_cast<uint16_t>(i - 1));
}

uint16_t* Reassembly::bucket_of(const DatagramId& id) {
  uint64_t words[5];
  std::memcpy(words, &id, sizeof(words));
  const uint64_t addresses = hash_words(hash_words(words[0], words[1], secret_),
                                        hash_words(words[2], words[3], secret_), secret_);
  return &buckets_[hash_words(addresses, words[4], secret_) & (buckets_.size() - 1)];
}

Reassembly::Entry* Reassembly::find(const DatagramId& id) {
  for (uint16_t i = *bucket_of(id); i != kNone; i = entries_[i].next_in_bucket) {
    if (entries_[i].id == id) return &entries_[i];
  }
  return nullptr;
}

Reassembly::Entry* Reassembly::open(const DatagramId& id, uint64_t now_ms) {
  if (free_.empty()) give_up(entries_[oldest_], DropReason::kFragmentTableFull);
  const Buffer buffer = actions_.take();
  if (buffer.handle == nullptr) return nullptr;
  const uint16_t index = free_.back();
  free_.pop_back();
  Entry& entry = entries_[index];
  entry = Entry{.id = id, .buffer = buffer, .since_ms = now_ms};
  uint16_t* bucket = bucket_of(id);
  entry.next_in_bucket = *bucket;
  *bucket = index;
  entry.older = youngest_;
  (youngest_ == kNone ? oldest_ : entries_[youngest_].younger) = index;
  youngest_ = index;
  ++pending_;
  return &entry;
}

// Its buffer has been given away.
void Reassembly::close(Entry& entry) {
  const uint16_t index = index_of(entry);
  uint16_t* link = bucket_of(entry.id);
  while (*link != index) link = &entries_[*link].next_in_bucket;
  *link = entry.next_in_bucket;
  (entry.older == kNone ? oldest_ : entries_[entry.older].younger) = entry.younger;
  (entry.younger == kNone ? youngest_ : entries_[entry.younger].older) = entry.older;
  free_.push_back(index);
  --pending_;
}

// The entry stays, so that fragments still to come do not begin the datagram anew (RFC 5722).
void Reassembly::discard(Entry& entry, DropReason reason) {
  if (entry.buffer.handle != nullptr) actions_.give_back(entry.buffer.handle);
  entry.buffer = {};
  if (entry.packets > 0) actions_.lost(entry.id.port, reason, entry.packets);
  entry.packets = 0;
}

void Reassembly::give_up(Entry& entry, DropReason reason) {
  discard(entry, reason);
  close(entry);
}

std::optional<Reassembly::Whole> Reassembly::add(const Fragment& fragment, uint64_t now_ms) {
  const auto lost = [&](DropReason reason) { actions_.lost(fragment.id.port, reason, 1); };
  if (impossible(fragment)) {
    lost(DropReason::kBadFragment);
    return std::nullopt;
  }
  if (fragment.offset == 0 && !fragment.more) return alone(fragment);
  Entry* entry = find(fragment.id);
  if (entry != nullptr && now_ms - entry->since_ms >= timeout_ms_) {
    give_up(*entry, DropReason::kFragmentTimeout);
    entry = nullptr;
  }
  if (entry == nullptr) entry = open(fragment.id, now_ms);
  if (entry == nullptr) {
    lost(DropReason::kFragmentTableFull);
    return std::nullopt;
  }
  if (const DropReason refused = place(*entry, fragment); refused != DropReason::kNone) {
    lost(refused);
    if (refused != DropReason::kFragmentDuplicate) discard(*entry, refused);
    return std::nullopt;
  }
  if (!complete(*entry)) return std::nullopt;
  const Whole whole = finish(*entry);
  close(*entry);
  return whole;
}

DropReason Reassembly::place(Entry& entry, const Fragment& fragment) {
  if (entry.buffer.handle == nullptr) return DropReason::kFragmentOverlap;
  const uint32_t end = fragment.offset + fragment.payload_bytes;
  const bool beyond = entry.total != 0 && (fragment.more ? end >= entry.total : end != entry.total);
  const bool short_end = !fragment.more && entry.total == 0 && entry.range_count > 0 &&
                         entry.ranges[entry.range_count - 1].end > end;
  if (beyond || short_end) return DropReason::kFragmentOverlap;
  if (const DropReason refused = claim_range(entry, fragment); refused != DropReason::kNone)
    return refused;
  copy(entry, fragment);
  return DropReason::kNone;
}

DropReason Reassembly::claim_range(Entry& entry, const Fragment& fragment) {
  const Range added{fragment.offset, fragment.offset + fragment.payload_bytes};
  Range* const begin = entry.ranges.data();
  Range* const end = begin + entry.range_count;
  Range* after = std::find_if(begin, end, [&](const Range& r) { return r.end > added.begin; });
  if (after != end && after->begin < added.end) {
    const bool same = after->begin <= added.begin && added.end <= after->end &&
                      std::memcmp(entry.buffer.bytes + kDatagramHeaderRoom + added.begin,
                                  fragment.payload, fragment.payload_bytes) == 0;
    return same ? DropReason::kFragmentDuplicate : DropReason::kFragmentOverlap;
  }
  const bool joins_before = after != begin && (after - 1)->end == added.begin;
  const bool joins_after = after != end && after->begin == added.end;
  if (joins_before && joins_after) {
    (after - 1)->end = after->end;
    std::copy(after + 1, end, after);
    --entry.range_count;
  } else if (joins_before) {
    (after - 1)->end = added.end;
  } else if (joins_after) {
    after->begin = added.begin;
  } else {
    if (entry.range_count == entry.ranges.size()) return DropReason::kBadFragment;
    std::copy_backward(after, end, end + 1);
    *after = added;
    ++entry.range_count;
  }
  return DropReason::kNone;
}

void Reassembly::copy(Entry& entry, const Fragment& fragment) {
  uint8_t* payload = entry.buffer.bytes + kDatagramHeaderRoom;
  std::memcpy(payload + fragment.offset, fragment.payload, fragment.payload_bytes);
  ++entry.packets;
  entry.largest_bytes = std::max(entry.largest_bytes, fragment.packet_bytes());
  if (!fragment.more) entry.total = fragment.offset + fragment.payload_bytes;
  if (fragment.offset != 0) return;
  entry.header_bytes = fragment.header_bytes;
  entry.next_header = fragment.next_header;
  entry.next_header_at = fragment.next_header_at;
  std::memcpy(payload - fragment.header_bytes, fragment.frame, fragment.header_bytes);
}

bool Reassembly::complete(const Entry& entry) {
  return entry.total != 0 && entry.range_count == 1 && entry.ranges[0].begin == 0 &&
         entry.ranges[0].end == entry.total;
}

Reassembly::Whole Reassembly::finish(const Entry& entry) {
  uint8_t* frame = entry.buffer.bytes + kDatagramHeaderRoom - entry.header_bytes;
  if (entry.id.version == 6) frame[entry.next_header_at] = entry.next_header;
  write_lengths(frame + kL3Offset, entry.header_bytes - kL3Offset, entry.total);
  return {entry.buffer.handle, static_cast<uint32_t>(kDatagramHeaderRoom - entry.header_bytes),
          entry.header_bytes + entry.total, entry.largest_bytes};
}

// An atomic fragment is no part of another datagram, whatever its identification (RFC 6946).
std::optional<Reassembly::Whole> Reassembly::alone(const Fragment& fragment) {
  Entry entry{.id = fragment.id, .buffer = actions_.take()};
  if (entry.buffer.handle == nullptr) {
    actions_.lost(fragment.id.port, DropReason::kFragmentTableFull, 1);
    return std::nullopt;
  }
  copy(entry, fragment);
  return finish(entry);
}

void Reassembly::tick(uint64_t now_ms) {
  while (oldest_ != kNone && now_ms - entries_[oldest_].since_ms >= timeout_ms_)
    give_up(entries_[oldest_], DropReason::kFragmentTimeout);
}

}  // namespace flowkeep
