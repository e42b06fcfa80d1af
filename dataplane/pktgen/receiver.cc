#include "dataplane/pktgen/receiver.h"

#include <rte_cycles.h>
#include <rte_mbuf.h>

#include <algorithm>

namespace flowkeep::pktgen {
namespace {

// Packets are looked at in their first segment only; the ports' buffers hold a whole frame.
std::span<uint8_t> bytes_of(rte_mbuf* packet) {
  return {rte_pktmbuf_mtod(packet, uint8_t*), packet->data_len};
}

}  // namespace

Receiver::Receiver(EthernetDevice& device, rte_mempool* pool, Accounting accounting,
                   ReceiverSettings settings)
    : device_(device),
      pool_(pool),
      accounting_(std::move(accounting)),
      settings_(std::move(settings)),
      gaps_(settings_.gap_limit_ticks) {}

bool Receiver::step() {
  std::array<rte_mbuf*, kBurst> packets;
  const uint16_t count = device_.receive(packets.data());
  if (count == 0) return false;
  const uint64_t now_tsc = rte_rdtsc();
  const uint64_t before = counts_.packets;
  uint16_t to_free = 0;
  for (uint16_t index = 0; index < count; ++index) {
    if (!take(packets[index], now_tsc)) packets[to_free++] = packets[index];
  }
  rte_pktmbuf_free_bulk(packets.data(), to_free);
  if (counts_.packets != before) {
    progress_.packets.store(counts_.packets, std::memory_order_relaxed);
    progress_.last_arrival_tsc.store(now_tsc, std::memory_order_relaxed);
  }
  return true;
}

bool Receiver::take(rte_mbuf* packet, uint64_t now_tsc) {
  const std::span<uint8_t> frame = bytes_of(packet);
  if (ether_type(frame) == kEtherTypeArp) {
    take_arp(frame);
    return false;
  }
  if (!settings_.tagged) {
    count_arrival(measuring_, now_tsc);
    return false;
  }
  const auto read = read_tagged(frame);
  if (!read || read->tag.run != settings_.run) {
    ++counts_.foreign;
    return false;
  }
  if (settings_.verify_checksums && !checksums_valid(frame, *read)) {
    ++counts_.bad_checksum;
    return false;
  }
  return take_tagged(packet, *read, now_tsc);
}

bool Receiver::take_tagged(rte_mbuf* packet, const TaggedPacket& read, uint64_t now_tsc) {
  const ProbeTag& tag = read.tag;
  const auto arrival = accounting_.on_packet(tag.flow, tag.sequence, read.source, read.source_port);
  if (arrival == Accounting::Arrival::kUnknownFlow) {
    ++counts_.foreign;
    return false;
  }
  const bool measured = tag.phase == Phase::kMeasured;
  count_arrival(measured, now_tsc);
  const bool first_time =
      arrival == Accounting::Arrival::kInOrder || arrival == Accounting::Arrival::kReordered;
  if (measured && first_time) latency_ticks_.record(ticks_since(tag.sent_tsc, now_tsc));
  return settings_.echo && first_time && echo(packet, read);
}

void Receiver::count_arrival(bool measured, uint64_t now_tsc) {
  ++counts_.packets;
  if (!measured) return;
  ++counts_.measured;
  gaps_.on_event(now_tsc);
}

bool Receiver::echo(rte_mbuf* packet, const TaggedPacket& read) {
  reverse(bytes_of(packet), read);
  if (device_.transmit(&packet, 1) == 1) {
    ++counts_.echoed;
    return true;
  }
  ++counts_.echo_not_sent;
  return false;
}

void Receiver::take_arp(std::span<const uint8_t> frame) {
  const auto message = read_arp(frame);
  if (!message) return;
  if (asked_ && message->operation == ArpOperation::kReply && message->sender == *asked_)
    answer_ = message->sender_mac;
  if (const auto reply = answer_arp(*message, device_.mac(), settings_.own_addresses)) {
    send_arp(*reply);
    ++counts_.arp_answered;
  }
}

void Receiver::ask_arp(Be32 target, Be32 own_address) {
  asked_ = target;
  send_arp(ArpMessage{ArpOperation::kRequest, device_.mac(), own_address, {}, target});
}

void Receiver::send_arp(const ArpMessage& message) {
  rte_mbuf* packet = rte_pktmbuf_alloc(pool_);
  if (packet == nullptr) return;
  const auto frame = write_arp(message);
  std::copy(frame.begin(), frame.end(), rte_pktmbuf_mtod(packet, uint8_t*));
  packet->data_len = static_cast<uint16_t>(frame.size());
  packet->pkt_len = static_cast<uint32_t>(frame.size());
  if (device_.transmit(&packet, 1) == 0) rte_pktmbuf_free(packet);
}

}  // namespace flowkeep::pktgen
