#include "dataplane/arena.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <rte_cycles.h>
#include <rte_errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <new>
#include <string>

namespace flowkeep {
namespace {

// Far from where the heap, libraries and libpmem's mappings go.
constexpr uintptr_t kArenaAddress = 0x200000000000ULL;
constexpr uint64_t kHugePageBytes = 2ULL << 20;

uint64_t round_up(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

uint64_t ring_bytes() {
  return round_up(static_cast<uint64_t>(rte_ring_get_memsize(kRingPackets)), 4096);
}

uint64_t packet_region_offset() {
  return round_up(round_up(sizeof(ArenaHeader), 4096) + 2 * kMaxWorkerSlots * ring_bytes(),
                  kHugePageBytes);
}

std::string meminfo(std::string_view key) {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key)) return line.substr(line.find_first_not_of(" \t:", key.size()));
  }
  return "unknown";
}

uint64_t unix_now_ns() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000ULL + static_cast<uint64_t>(now.tv_nsec);
}

// The TSC's frequency against CLOCK_MONOTONIC_RAW over 20 ms; EAL's own measurement needs an EAL.
uint64_t measure_tsc_hz() {
  timespec begin{}, end{};
  clock_gettime(CLOCK_MONOTONIC_RAW, &begin);
  const uint64_t tsc_begin = rte_rdtsc();
  int64_t elapsed_ns = 0;
  do {
    clock_gettime(CLOCK_MONOTONIC_RAW, &end);
    elapsed_ns = (end.tv_sec - begin.tv_sec) * 1'000'000'000LL + (end.tv_nsec - begin.tv_nsec);
  } while (elapsed_ns < 20'000'000);
  const auto cycles = static_cast<double>(rte_rdtsc() - tsc_begin);
  return static_cast<uint64_t>(cycles * 1e9 / static_cast<double>(elapsed_ns));
}

int make_memory(uint64_t bytes, bool huge) {
  const int fd = memfd_create("flowkeep-arena", MFD_CLOEXEC | (huge ? MFD_HUGETLB : 0U));
  if (fd < 0) return -1;
  // fallocate, so that memory which is not there is refused now and not as a SIGBUS later.
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0 ||
      fallocate(fd, 0, 0, static_cast<off_t>(bytes)) != 0) {
    const int reason = errno;
    close(fd);
    errno = reason;
    return -1;
  }
  return fd;
}

}  // namespace

Result<Arena> Arena::create(PacketRoom frames, PacketRoom datagrams, Hugepages hugepages) {
  const auto region_bytes = [](PacketRoom room) {
    return round_up(static_cast<uint64_t>(room.count) * room.bytes + 4096, kHugePageBytes);
  };
  const uint64_t packets = region_bytes(frames) + region_bytes(datagrams);
  const uint64_t bytes = packet_region_offset() + packets;
  const std::string wanted =
      std::to_string(bytes >> 20) + " MiB for " + std::to_string(frames.count) + " packets";

  int fd = -1;
  bool huge = false;
  if (hugepages != Hugepages::kNever) {
    fd = make_memory(bytes, true);
    huge = fd >= 0;
    if (!huge && hugepages == Hugepages::kAlways) {
      return unavailable(
          "packets.hugepages",
          "\"always\", but " + wanted + " cannot be had in huge pages (" + std::strerror(errno) +
              "; HugePages_Free: " + meminfo("HugePages_Free") +
              " of 2 MiB); reserve them (sysctl vm.nr_hugepages), lower packets.count, or accept "
              "4 KiB pages with \"auto\"");
    }
  }
  if (fd < 0) fd = make_memory(bytes, false);
  if (fd < 0) {
    return unavailable("packets.count",
                       std::to_string(frames.count) + " needs " + wanted +
                           ", which this machine cannot give (" + std::strerror(errno) +
                           "; MemAvailable: " + meminfo("MemAvailable") + "); lower packets.count");
  }
  void* address = mmap(reinterpret_cast<void*>(kArenaAddress), bytes, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
  if (address == MAP_FAILED) {
    const int reason = errno;
    close(fd);
    return unavailable("packets.count", wanted + " cannot be mapped: " + std::strerror(reason));
  }
  Arena arena;
  arena.fd_ = fd;
  arena.header_ = new (address) ArenaHeader();
  ArenaHeader& header = *arena.header_;
  header.bytes = bytes;
  header.packet_offset = packet_region_offset();
  header.packet_bytes = packets;
  header.datagram_offset = header.packet_offset + region_bytes(frames);
  header.page_bytes = huge ? kHugePageBytes : 4096;
  header.tsc_hz = measure_tsc_hz();
  header.tsc_base = rte_rdtsc();
  header.unix_base_ns = unix_now_ns();
  header.started_at_s = static_cast<double>(header.unix_base_ns) / 1e9;
  for (size_t slot = 0; slot < kMaxWorkerSlots; ++slot) arena.reset_slot(slot);
  return arena;
}

rte_ring* Arena::ring(size_t slot, size_t which) const {
  return reinterpret_cast<rte_ring*>(base() + round_up(sizeof(ArenaHeader), 4096) +
                                     (2 * slot + which) * ring_bytes());
}

void Arena::reset_slot(size_t slot) const {
  WorkerSlot& control = header_->slots[slot];
  const unsigned flags = RING_F_SP_ENQ | RING_F_SC_DEQ;
  [[maybe_unused]] int failed = rte_ring_init(inbox(slot), "inbox", kRingPackets, flags);
  failed |= rte_ring_init(outbox(slot), "outbox", kRingPackets, flags);
  assert(failed == 0);
  control.process.store(-1);
  control.committed.store(0);
  control.undo.forget();
  control.events.reset();
  control.sweeping.store(0);
  control.burst_limit.store(kBurst);
  control.first_burst_tsc.store(0);
  control.doorbell.sleeping.store(0);
}

uint32_t Arena::now_s() const {
  return static_cast<uint32_t>(now_unix_s());
}

double Arena::now_unix_s() const {
  const auto cycles = static_cast<double>(rte_rdtsc() - header_->tsc_base);
  return static_cast<double>(header_->unix_base_ns) / 1e9 +
         cycles / static_cast<double>(header_->tsc_hz);
}

void record_event(const Arena& arena, std::string_view kind, std::string_view chain,
                  std::string_view message) {
  ArenaHeader& header = arena.header();
  const uint64_t sequence = header.last_event.load() + 1;
  EventEntry& entry = header.events[sequence % kEvents];
  const auto copy = [](auto& target, std::string_view text) {
    const size_t length = std::min(text.size(), sizeof(target) - 1);
    std::memcpy(target, text.data(), length);
    target[length] = '\0';
  };
  entry.sequence.store(0);
  entry.at_s = arena.now_unix_s();
  copy(entry.kind, kind);
  copy(entry.chain, chain);
  copy(entry.message, message);
  entry.sequence.store(sequence);
  header.last_event.store(sequence);
}

void futex_wait(std::atomic<uint32_t>& word, uint32_t seen, uint32_t timeout_ms) {
  const timespec timeout{timeout_ms / 1000, static_cast<long>(timeout_ms % 1000) * 1'000'000L};
  syscall(SYS_futex, &word, FUTEX_WAIT, seen, &timeout, nullptr, 0);
}

void futex_wake(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

void ring(Doorbell& bell) {
  std::atomic_thread_fence(std::memory_order_seq_cst);  // the work before, the look after
  if (bell.sleeping.load(std::memory_order_relaxed) == 0) return;
  bell.rings.fetch_add(1, std::memory_order_release);
  futex_wake(bell.rings);
}

}  // namespace flowkeep
