#include "dataplane/pktgen/measurement.h"

#include <rte_cycles.h>
#include <rte_launch.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "dataplane/pktgen/pcap_replay.h"

namespace flowkeep::pktgen {
namespace {

constexpr double kArpTimeoutS = 3.0;
constexpr double kArpIntervalS = 0.2;
constexpr uint32_t kWarmupSilenceMs = 200;
constexpr double kLongestDrainS = 20.0;
constexpr double kArpPollS = 1e-3;
constexpr double kStopCheckS = 2e-3;

void sleep_for(double seconds) {
  const timespec pause{0, static_cast<long>(seconds * 1e9)};
  nanosleep(&pause, nullptr);
}

uint16_t draw_run() {
  return static_cast<uint16_t>((rte_rdtsc() ^ static_cast<uint64_t>(getpid()) * 2654435761u) &
                               kRunMask);
}

}  // namespace

Measurement::Measurement(const Options& options, const Eal& eal, StopSignal& stop)
    : options_(options),
      eal_(eal),
      stop_(stop),
      ticks_per_s_(rte_get_tsc_hz()),
      idler_(ticks_per_s_),
      run_(draw_run()),
      show_progress_(options.progress || isatty(STDERR_FILENO)) {}

Measurement::~Measurement() {
  stop_receiving();
}

Result<Report> Measurement::run() {
  if (auto done = open_ports(); !done.ok()) return done.error();
  if (auto done = wait_for_links(); !done.ok()) return done.error();
  if (auto done = make_receivers(); !done.ok()) return done.error();
  auto mac = gateway_mac();
  if (!mac.ok()) return mac.error();
  if (auto done = make_source(*mac); !done.ok()) return done.error();
  start_receiving();
  warm_up();
  send();
  drain();
  stop_receiving();
  return report();
}

Result<void> Measurement::open_ports() {
  auto tx = EthernetDevice::open(options_.tx_device, eal_.pool());
  if (!tx.ok()) return tx.error();
  tx_device_ = std::move(*tx);
  if (options_.single_port()) return {};
  auto rx = EthernetDevice::open(options_.rx_device, eal_.pool());
  if (!rx.ok()) return rx.error();
  rx_device_ = std::move(*rx);
  return {};
}

Result<void> Measurement::wait_for_links() {
  const uint64_t start = rte_rdtsc();
  for (;;) {
    const bool tx_up = tx_device_->bring_up();
    const bool rx_up = !rx_device_ || rx_device_->bring_up();
    if (tx_up && rx_up) return {};
    if (stopped()) return unavailable("", "interrupted while waiting for the ports to come up");
    if (rte_rdtsc() - start > options_.link_wait_s * ticks_per_s_)
      return unavailable(tx_up ? options_.rx_device : options_.tx_device,
                         "its link did not come up within " + std::to_string(options_.link_wait_s) +
                             " s (is anything at its other end?)");
    sleep_for(0.005);
  }
}

Result<void> Measurement::make_receivers() {
  ReceiverSettings settings;
  settings.run = run_;
  settings.verify_checksums = options_.verify_checksums;
  settings.tagged = options_.profile != Profile::kPcap;
  settings.echo = options_.echo;
  settings.gap_limit_ticks = options_.gap_limit_ms * ticks_per_s_ / 1000;
  settings.own_addresses = options_.rx_addresses;
  settings.own_addresses.push_back(options_.ranges.destination);
  if (options_.single_port()) settings.own_addresses.push_back(options_.ranges.source);
  const uint32_t flows = settings.tagged ? options_.flows : 1;
  auto accounting = Accounting::create(flows);
  if (!accounting.ok()) return accounting.error();
  rx_ = std::make_unique<Receiver>(rx_device_ ? *rx_device_ : *tx_device_, eal_.pool(),
                                   std::move(*accounting), settings);
  if (options_.single_port()) return {};

  auto echoes = Accounting::create(options_.echo ? flows : 1);
  if (!echoes.ok()) return echoes.error();
  settings.echo = false;
  settings.own_addresses = {options_.ranges.source};
  tx_receiver_ = std::make_unique<Receiver>(*tx_device_, eal_.pool(), std::move(*echoes), settings);
  return {};
}

Result<MacAddress> Measurement::gateway_mac() {
  if (options_.gateway_mac) return *options_.gateway_mac;
  if (!options_.gateway) return rx_device_ ? rx_device_->mac() : tx_device_->mac();
  Receiver& asker = tx_receiver_ ? *tx_receiver_ : *rx_;
  const auto interval = static_cast<uint64_t>(kArpIntervalS * static_cast<double>(ticks_per_s_));
  const uint64_t start = rte_rdtsc();
  for (uint64_t next = start; !asker.answer();) {
    const uint64_t now = rte_rdtsc();
    if (static_cast<double>(now - start) > kArpTimeoutS * static_cast<double>(ticks_per_s_))
      return unavailable("--gateway", "nobody answered ARP for " + address_text(*options_.gateway) +
                                          " at the tx port within 3 s");
    if (stopped()) return unavailable("--gateway", "interrupted while asking for it by ARP");
    if (now >= next) {
      asker.ask_arp(*options_.gateway, options_.ranges.source.first);
      next += interval;
    }
    if (!poll()) sleep_for(kArpPollS);
  }
  return *asker.answer();
}

Result<void> Measurement::make_source(const MacAddress& gateway) {
  if (options_.profile == Profile::kPcap) {
    auto replay = PcapReplay::open(
        options_.pcap_path, options_.pcap_loops,
        {gateway, tx_device_->mac(), options_.rewrite_source, options_.rewrite_destination});
    if (!replay.ok()) return replay.error();
    if (replay->left_out() != 0)
      std::fprintf(stderr, "%s: %llu packets left out (cut short, or longer than a frame)\n",
                   options_.pcap_path.c_str(), static_cast<unsigned long long>(replay->left_out()));
    source_ = std::make_unique<PcapReplay>(std::move(*replay));
  } else {
    auto flows = FlowSet::create(options_.ranges, options_.flows);
    if (!flows.ok()) return flows.error();
    const FrameBuilder builder(options_.profile == Profile::kTcpSyn ? kProtocolTcp : kProtocolUdp,
                               options_.size_bytes - kFcsBytes, tx_device_->mac(), gateway);
    auto source = std::make_unique<FlowSource>(std::move(*flows), builder, run_);
    flow_source_ = source.get();
    source_ = std::move(source);
  }
  transmitter_ = std::make_unique<Transmitter>(*tx_device_, eal_.pool(), *source_, ticks_per_s_,
                                               options_.gap_limit_ms * ticks_per_s_ / 1000);
  return {};
}

void Measurement::start_receiving() {
  if (options_.threads != 2) return;
  rx_thread_ = true;
  receiving_.store(true, std::memory_order_relaxed);
  rte_eal_remote_launch(
      [](void* self) {
        auto& measurement = *static_cast<Measurement*>(self);
        const Idler idler(measurement.ticks_per_s_);
        while (measurement.receiving_.load(std::memory_order_relaxed))
          if (!measurement.rx_->step()) idler.idle(0);
        return 0;
      },
      this, 1);
}

void Measurement::stop_receiving() {
  if (!rx_thread_) return;
  receiving_.store(false, std::memory_order_relaxed);
  rte_eal_wait_lcore(1);
  rx_thread_ = false;
}

bool Measurement::poll() {
  bool any = tx_receiver_ && tx_receiver_->step();
  if (!rx_thread_) any |= rx_->step();
  return any;
}

bool Measurement::stopped() {
  const uint64_t now = rte_rdtsc();
  if (static_cast<double>(now - stop_checked_tsc_) <
      kStopCheckS * static_cast<double>(ticks_per_s_))
    return false;
  stop_checked_tsc_ = now;
  const bool stop = stop_.arrived();
  interrupted_ |= stop;
  return stop;
}

void Measurement::warm_up() {
  if (!flow_source_ || !options_.warmup) return;
  flow_source_->set_phase(Phase::kWarmup);
  transmitter_->begin(options_.warmup_pps, options_.flows, true, rte_rdtsc());
  while (!transmitter_->exhausted() && !stopped()) {
    const uint64_t now = rte_rdtsc();
    const bool sent = transmitter_->step(now);
    if (!poll() && !sent && !transmitter_->catching_up(now))
      idler_.idle(transmitter_->ticks_to_next(now));
    show_progress(now);
  }
  transmitter_->finish();
  warmup_packets_ = transmitter_->sent();
  warmup_not_sent_ = transmitter_->not_sent();
  warmup_stalled_ = transmitter_->stalled();
  settle(kWarmupSilenceMs, warmup_packets_);
  shown_sent_ = 0;
}

void Measurement::send() {
  if (flow_source_) flow_source_->set_phase(Phase::kMeasured);
  rx_->set_measuring(true);
  const uint64_t start = rte_rdtsc();
  const uint64_t end =
      start + static_cast<uint64_t>(options_.duration_s * static_cast<double>(ticks_per_s_));
  const double rate_pps = options_.rate.packets_per_s(source_->mean_size_bytes());
  transmitter_->begin(rate_pps, UINT64_MAX, std::isinf(rate_pps), start);
  uint64_t now = start;
  while (now < end && !interrupted_ && !transmitter_->exhausted() && !stopped()) {
    const bool sent = transmitter_->step(now);
    if (!poll() && !sent && !transmitter_->catching_up(now))
      idler_.idle(transmitter_->ticks_to_next(now));
    show_progress(now);
    now = rte_rdtsc();
  }
  transmitter_->finish();
  sent_for_s_ = static_cast<double>(rte_rdtsc() - start) / static_cast<double>(ticks_per_s_);
}

void Measurement::drain() {
  settle(options_.drain_ms, 0);
}

void Measurement::settle(uint32_t silence_ms, uint64_t until_received) {
  const uint64_t start = rte_rdtsc();
  const uint64_t silence = silence_ms * ticks_per_s_ / 1000;
  const auto longest = static_cast<uint64_t>(kLongestDrainS * static_cast<double>(ticks_per_s_));
  for (uint64_t now = start; now - start < longest; now = rte_rdtsc()) {
    uint64_t last =
        std::max(start, rx_->progress().last_arrival_tsc.load(std::memory_order_relaxed));
    if (tx_receiver_)
      last =
          std::max(last, tx_receiver_->progress().last_arrival_tsc.load(std::memory_order_relaxed));
    if (now > last && now - last >= silence) return;
    if (until_received != 0 && received() >= until_received) return;
    if (stopped()) return;
    if (!poll()) idler_.idle(0);
  }
}

void Measurement::show_progress(uint64_t now_tsc) {
  if (!show_progress_) return;
  if (shown_tsc_ == 0) shown_tsc_ = now_tsc;
  if (now_tsc - shown_tsc_ < ticks_per_s_) return;
  const double seconds =
      static_cast<double>(now_tsc - shown_tsc_) / static_cast<double>(ticks_per_s_);
  const uint64_t sent = transmitter_->sent(), arrived = received();
  std::fprintf(stderr, "sent %.0f pps, received %.0f pps, sent in all %lu, received in all %lu\n",
               static_cast<double>(sent - shown_sent_) / seconds,
               static_cast<double>(arrived - shown_received_) / seconds, sent + warmup_packets_,
               arrived);
  shown_tsc_ = now_tsc;
  shown_sent_ = sent;
  shown_received_ = arrived;
}

Report Measurement::report() const {
  const auto seconds = [this](uint64_t ticks) {
    return static_cast<double>(ticks) / static_cast<double>(ticks_per_s_);
  };
  Report report;
  report.profile = profile_name(options_.profile);
  report.rate = options_.rate.text;
  report.tx_device = options_.tx_device;
  report.rx_device = options_.rx_device;
  report.size_bytes = source_->mean_size_bytes();
  report.tagged = flow_source_ != nullptr;
  report.interrupted = interrupted_;
  report.hugepages = eal_.hugepages();
  report.duration_s = sent_for_s_;
  report.warmup_packets = warmup_packets_;
  report.not_sent = warmup_not_sent_ + transmitter_->not_sent();
  report.tx_stalled = warmup_stalled_ + transmitter_->stalled();
  const Receiver::Counts& counts = rx_->counts();
  report.foreign = counts.foreign;
  report.bad_checksum = counts.bad_checksum;
  report.path.sent = warmup_packets_ + transmitter_->sent();
  report.path.received = counts.packets;
  report.path.lost = report.path.sent > counts.packets ? report.path.sent - counts.packets : 0;
  report.tx_pps = sent_for_s_ > 0 ? static_cast<double>(transmitter_->sent()) / sent_for_s_ : 0;
  // Of the time between the first and the last packet, in which all but the first arrived.
  const double span_s = seconds(rx_->gaps().span_ticks());
  if (counts.measured > 1 && span_s > 0)
    report.rx_pps = static_cast<double>(counts.measured - 1) / span_s;
  report.throughput_gbps = report.rx_pps * report.size_bytes * 8 / 1e9;
  report.longest_gap_ms = seconds(rx_->gaps().longest_ticks()) * 1e3;
  report.longest_tx_gap_ms = seconds(transmitter_->gaps().longest_ticks()) * 1e3;
  report.gap_limit_ms = options_.gap_limit_ms;
  report.gaps = rx_->gaps().over_limit();
  if (flow_source_) report_tagged(report);
  return report;
}

void Measurement::report_tagged(Report& report) const {
  const double ticks_per_us = static_cast<double>(ticks_per_s_) / 1e6;
  const auto fill = [&](PathReport& path, const Receiver& receiver) {
    const Accounting::Totals& totals = receiver.accounting().totals();
    path.received = receiver.counts().packets;
    path.duplicated = totals.duplicated;
    path.reordered = totals.reordered;
    path.too_late = totals.too_late;
    path.mapping_changes = totals.mapping_changes;
    path.latency = LatencyReport::of(receiver.latency_ticks(), ticks_per_us);
  };
  report.flows = options_.flows;
  fill(report.path, *rx_);
  const Accounting::Losses losses = rx_->accounting().losses(flow_source_->sent());
  report.path.lost = losses.packets;
  report.path.lost_flows = losses.flows;
  report.flows_seen = rx_->accounting().flows_seen();
  report.distinct_sources = rx_->accounting().distinct_sources();
  if (!options_.echo) return;
  PathReport& echo = report.echo.emplace();
  fill(echo, *tx_receiver_);
  echo.sent = rx_->counts().echoed;
  const uint64_t arrived = tx_receiver_->accounting().totals().arrived;
  echo.lost = echo.sent > arrived ? echo.sent - arrived : 0;
  report.echo_not_sent = rx_->counts().echo_not_sent;
}

}  // namespace flowkeep::pktgen
