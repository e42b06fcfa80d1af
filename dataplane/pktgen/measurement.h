// Measurement: one run from link-up to report: resolves the gateway, warms flows up, sends for the
// duration, waits for what is still under way.
//
// Thread rule: the calling thread sends, and receives at the tx port; the rx port is polled by it
// as well, or by lcore 1 with two threads.
#pragma once

#include <atomic>
#include <memory>
#include <optional>

#include "dataplane/pktgen/ethernet_device.h"
#include "dataplane/pktgen/frame_source.h"
#include "dataplane/pktgen/idler.h"
#include "dataplane/pktgen/options.h"
#include "dataplane/pktgen/receiver.h"
#include "dataplane/pktgen/report.h"
#include "dataplane/pktgen/stop_signal.h"
#include "dataplane/pktgen/transmitter.h"

namespace flowkeep::pktgen {

class Measurement {
 public:
  Measurement(const Options& options, const Eal& eal, StopSignal& stop);
  ~Measurement();
  Measurement(const Measurement&) = delete;
  Measurement& operator=(const Measurement&) = delete;

  // Once. Errors: a device, a link that stays down, a gateway that does not answer, the capture.
  Result<Report> run();

 private:
  Result<void> open_ports();
  Result<void> wait_for_links();
  Result<void> make_receivers();
  Result<MacAddress> gateway_mac();
  Result<void> make_source(const MacAddress& gateway);
  void start_receiving();
  void stop_receiving();
  void warm_up();
  void send();
  void drain();
  // Polls the receivers that are this thread's. Returns whether anything arrived.
  bool poll();
  bool stopped();  // asked to stop, by a signal
  uint64_t received() const { return rx_->progress().packets.load(std::memory_order_relaxed); }
  // Waits until nothing has arrived for `silence_ms`, or `until_received` packets have (0: no
  // matter).
  void settle(uint32_t silence_ms, uint64_t until_received);
  void show_progress(uint64_t now_tsc);
  Report report() const;
  void report_tagged(Report& report) const;

  const Options& options_;
  const Eal& eal_;
  StopSignal& stop_;
  uint64_t ticks_per_s_;
  Idler idler_;
  uint16_t run_;
  bool show_progress_;

  std::unique_ptr<EthernetDevice> tx_device_;
  std::unique_ptr<EthernetDevice> rx_device_;  // none with a single port
  std::unique_ptr<Receiver> rx_;               // at the rx port
  std::unique_ptr<Receiver>
      tx_receiver_;  // at the tx port: ARP and echoes; none with a single port
  std::unique_ptr<FrameSource> source_;
  FlowSource* flow_source_ = nullptr;  // source_, if it is one
  std::unique_ptr<Transmitter> transmitter_;

  std::atomic<bool> receiving_{false};  // lcore 1 goes on while set
  bool rx_thread_ = false;
  bool interrupted_ = false;
  uint64_t stop_checked_tsc_ = 0;
  uint64_t warmup_packets_ = 0, warmup_not_sent_ = 0, warmup_stalled_ = 0;
  double sent_for_s_ = 0;
  uint64_t shown_tsc_ = 0, shown_sent_ = 0, shown_received_ = 0;
};

}  // namespace flowkeep::pktgen
