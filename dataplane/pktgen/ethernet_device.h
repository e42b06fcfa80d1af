// EthernetDevice: one DPDK port with one receive and one transmit queue, stopped and closed with
// its owner. Eal: the DPDK environment of this process: private (nothing shared, no telemetry, no
// files left behind), in hugepages where enough of them are free.
//
// Thread rule: after opening, each device belongs to one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/pktgen/mac_address.h"
#include "state/result.h"

struct rte_mbuf;
struct rte_mempool;

namespace flowkeep::pktgen {

inline constexpr uint16_t kBurst = 32;

class Eal {
 public:
  // `devices`: device arguments, virtual (net_...) or PCI addresses. `threads` lcores, numbered
  // from 0, each pinned to its core of `cores`, or free to run anywhere if that is empty. Once a
  // process.
  static Result<std::unique_ptr<Eal>> start(const std::vector<std::string>& devices,
                                            unsigned threads, const std::vector<unsigned>& cores);
  ~Eal();
  Eal(const Eal&) = delete;
  Eal& operator=(const Eal&) = delete;

  rte_mempool* pool() const { return pool_; }
  bool hugepages() const { return hugepages_; }

 private:
  Eal() = default;
  std::string file_prefix_;
  rte_mempool* pool_ = nullptr;
  bool hugepages_ = false;
};

class EthernetDevice {
 public:
  static Result<std::unique_ptr<EthernetDevice>> open(const std::string& device, rte_mempool* pool);
  ~EthernetDevice();
  EthernetDevice(const EthernetDevice&) = delete;
  EthernetDevice& operator=(const EthernetDevice&) = delete;

  // Starts it if need be, and again if its other end was not there yet. Call until it returns true:
  // the link is up.
  bool bring_up();
  const MacAddress& mac() const { return mac_; }
  const std::string& name() const { return name_; }

  // At most kBurst packets, which then belong to the caller.
  uint16_t receive(rte_mbuf** packets);
  // Returns how many, from the first on, the device took over.
  uint16_t transmit(rte_mbuf** packets, uint16_t count);

 private:
  EthernetDevice(uint16_t id, std::string name, bool connects)
      : id_(id), name_(std::move(name)), connects_(connects) {}
  bool link_up() const;
  void stop();

  uint16_t id_;
  std::string name_;
  bool connects_;  // to another process, which may come later
  bool started_ = false;
  uint64_t last_start_tsc_ = 0;
  MacAddress mac_{};
};

}  // namespace flowkeep::pktgen
