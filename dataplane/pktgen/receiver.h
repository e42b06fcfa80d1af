// Receiver: takes everything that arrives at a device, accounts for tagged packets, answers ARP
// and, on request, sends tagged packets back.
//
// Thread rule: step() and the device belong to one thread. progress() may be read by any. All else
// is for that thread, or for others once it has ended.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "dataplane/pktgen/accounting.h"
#include "dataplane/pktgen/arp.h"
#include "dataplane/pktgen/ethernet_device.h"
#include "dataplane/pktgen/gap_meter.h"
#include "dataplane/pktgen/latency_histogram.h"
#include "dataplane/pktgen/received_frame.h"

namespace flowkeep::pktgen {

struct ReceiverSettings {
  uint16_t run = 0;
  bool verify_checksums = true;
  bool tagged = true;  // false: counts every packet but ARP, no more
  bool echo = false;
  uint64_t gap_limit_ticks = 0;
  std::vector<AddressRange> own_addresses;  // answers ARP for these
};

class Receiver {
 public:
  struct Counts {
    uint64_t packets = 0;   // tagged ones of this run (untagged mode: all but ARP), duplicates too
    uint64_t measured = 0;  // of them those of the measured phase
    uint64_t foreign = 0;   // without a tag of this run
    uint64_t bad_checksum = 0;
    uint64_t arp_answered = 0;
    uint64_t echoed = 0;
    uint64_t echo_not_sent = 0;  // the device did not take the answer
  };
  struct Progress {
    std::atomic<uint64_t> packets{0};
    std::atomic<uint64_t> last_arrival_tsc{0};
  };

  Receiver(EthernetDevice& device, rte_mempool* pool, Accounting accounting,
           ReceiverSettings settings);

  // Returns whether anything arrived.
  bool step();
  const Progress& progress() const { return progress_; }

  // Untagged mode: whether what arrives now belongs to the measured phase.
  void set_measuring(bool measuring) { measuring_ = measuring; }

  // Broadcasts a question; answer() is there once it is answered, by later steps.
  void ask_arp(Be32 target, Be32 own_address);
  std::optional<MacAddress> answer() const { return answer_; }

  const Accounting& accounting() const { return accounting_; }
  const Counts& counts() const { return counts_; }
  const LatencyHistogram& latency_ticks() const { return latency_ticks_; }
  const GapMeter& gaps() const { return gaps_; }

 private:
  // Returns whether the packet was passed on, that is, is no longer ours to free.
  bool take(rte_mbuf* packet, uint64_t now_tsc);
  bool take_tagged(rte_mbuf* packet, const TaggedPacket& read, uint64_t now_tsc);
  void take_arp(std::span<const uint8_t> frame);
  void count_arrival(bool measured, uint64_t now_tsc);
  bool echo(rte_mbuf* packet, const TaggedPacket& read);
  void send_arp(const ArpMessage& message);

  EthernetDevice& device_;
  rte_mempool* pool_;
  Accounting accounting_;
  ReceiverSettings settings_;
  bool measuring_ = false;
  std::optional<Be32> asked_;
  std::optional<MacAddress> answer_;
  Counts counts_;
  LatencyHistogram latency_ticks_;
  GapMeter gaps_;
  Progress progress_;
};

}  // namespace flowkeep::pktgen
