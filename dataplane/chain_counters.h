// ChainCounters: what the functions of a chain counted, for the users. Numbers are those of
// Chain::counter_names() of a revision, so each revision that may run has a bank of its own, and
// begins with zeros.
//
// Who writes: the supervisor begins a bank before a worker of its revision runs; the switch counts,
// when it takes packets back from workers. So a packet counts once, whatever dies.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "nfs/packet.h"

namespace flowkeep {

struct alignas(64) ChainCounters {
  struct alignas(64) Bank {
    std::atomic<uint32_t> revision{0};  // 0: none
    std::atomic<uint64_t> packets[kMaxChainCounters] = {};
  };
  std::array<Bank, 2> banks;

  // The bank of the one of the two revisions that does not run any more becomes the new one's.
  void begin(uint32_t revision, uint32_t running) {
    Bank& bank = banks[banks[0].revision.load() == running ? 1 : 0];
    bank.revision.store(0);
    for (std::atomic<uint64_t>& packets : bank.packets) packets.store(0, std::memory_order_relaxed);
    bank.revision.store(revision);
  }
  // nullptr: the revision does not run.
  const Bank* find(uint32_t revision) const {
    for (const Bank& bank : banks) {
      if (bank.revision.load() == revision) return &bank;
    }
    return nullptr;
  }
  void count(const PacketMeta& meta) {
    if (meta.counts[0] == 0) return;
    for (Bank& bank : banks) {
      const uint32_t revision = bank.revision.load(std::memory_order_relaxed);
      if (revision == 0 || static_cast<uint8_t>(revision) != meta.revision) continue;
      for (const uint16_t number : meta.counts) {
        if (number == 0 || number > kMaxChainCounters) return;
        std::atomic<uint64_t>& packets = bank.packets[number - 1];
        packets.store(packets.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
      }
      return;
    }
  }
};

}  // namespace flowkeep
