#include "dataplane/pktgen/ethernet_device.h"

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <utility>

namespace flowkeep::pktgen {
namespace {

constexpr unsigned kPoolPackets = 16383;
constexpr unsigned kMemoryMb = 96;        // pool and queues, with room
constexpr uint64_t kSpareHugepages = 16;  // left for others
constexpr uint16_t kDescriptors = 1024;
constexpr double kRestartS = 0.5;  // of a device that connects to another process

uint64_t free_hugepages_2mb() {
  std::ifstream file("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
  uint64_t pages = 0;
  file >> pages;
  return pages;
}

std::string allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::string text;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return "0";
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(core, &set)) text += (text.empty() ? "" : ",") + std::to_string(core);
  return text;
}

std::string lcores(unsigned threads, const std::vector<unsigned>& cores) {
  const std::string anywhere = "(" + allowed_cores() + ")";
  std::string text;
  for (unsigned lcore = 0; lcore < threads; ++lcore) {
    text += (lcore == 0 ? "" : ",") + std::to_string(lcore) + "@";
    text += cores.empty() ? anywhere : std::to_string(cores[lcore]);
  }
  return text;
}

bool is_virtual(const std::string& device) {
  return device.starts_with("net_") || device.starts_with("eth_");
}

// The directory that EAL makes even when it shares nothing.
std::string runtime_directory(const std::string& file_prefix) {
  const char* user = std::getenv("XDG_RUNTIME_DIR");
  const std::string base = getuid() == 0 ? "/var/run" : user != nullptr ? user : "/tmp";
  return base + "/dpdk/" + file_prefix;
}

// A memif client tries to connect when it is started, and never again.
bool connects(const std::string& device) {
  return device.starts_with("net_memif") && device.find("role=client") != std::string::npos;
}

std::string device_name(const std::string& device) {
  return device.substr(0, device.find(','));
}

// rte_eal_init keeps and permutes the pointers, so the words must outlive it.
int init_eal(std::vector<std::string>& words) {
  std::vector<char*> arguments;
  arguments.reserve(words.size());
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  return rte_eal_init(static_cast<int>(words.size()), arguments.data());
}

Error device_error(const std::string& device, const std::string& step, int status) {
  return unavailable(device, step + " failed: " + rte_strerror(status < 0 ? -status : status));
}

}  // namespace

Result<std::unique_ptr<Eal>> Eal::start(const std::vector<std::string>& devices, unsigned threads,
                                        const std::vector<unsigned>& cores) {
  std::unique_ptr<Eal> eal(new Eal);
  eal->file_prefix_ = "flowkeep-pktgen-" + std::to_string(getpid());
  eal->hugepages_ = free_hugepages_2mb() >= kMemoryMb / 2 + kSpareHugepages;
  std::vector<std::string> words = {"flowkeep-pktgen", "--file-prefix=" + eal->file_prefix_,
                                    "--no-telemetry",  "--no-shconf",
                                    "--iova-mode=va",  "--log-level=error",
                                    "--lcores",        lcores(threads, cores)};
  // --in-memory cannot be combined with --no-huge, which makes no files either.
  if (eal->hugepages_)
    words.push_back("--in-memory");
  else
    words.insert(words.end(), {"--no-huge", "-m", std::to_string(kMemoryMb)});
  if (std::all_of(devices.begin(), devices.end(), is_virtual)) words.push_back("--no-pci");
  for (const std::string& device : devices)
    words.insert(words.end(), {is_virtual(device) ? "--vdev" : "-a", device});
  if (init_eal(words) < 0) {
    rmdir(runtime_directory(eal->file_prefix_).c_str());
    std::string named;
    for (const std::string& device : devices) named += (named.empty() ? "" : " ") + device;
    return unavailable(
        named, std::string("DPDK does not start with these devices (") + rte_strerror(rte_errno) +
                   "); accepted: device arguments of DPDK's drivers, such as "
                   "net_memif0,role=client,id=0,socket=/tmp/a.sock,socket-abstract=no, "
                   "net_af_packet0,iface=eth0, net_tap0, net_pcap0,iface=eth0, net_ring0, or a PCI "
                   "address");
  }
  // A peer that is not there yet is no error while waiting for it.
  rte_log_set_level_pattern("pmd.net.memif", RTE_LOG_CRIT);
  eal->pool_ = rte_pktmbuf_pool_create("pktgen", kPoolPackets, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE,
                                       static_cast<int>(rte_socket_id()));
  if (eal->pool_ == nullptr) return device_error("packet pool", "its creation", rte_errno);
  return eal;
}

Eal::~Eal() {
  rte_mempool_free(pool_);
  rte_eal_cleanup();
  rmdir(runtime_directory(file_prefix_).c_str());
}

Result<std::unique_ptr<EthernetDevice>> EthernetDevice::open(const std::string& device,
                                                             rte_mempool* pool) {
  uint16_t id = 0;
  if (rte_eth_dev_get_port_by_name(device_name(device).c_str(), &id) != 0)
    return unavailable(device,
                       "DPDK has no such device; accepted: a virtual device (net_memif0,..., "
                       "net_af_packet0,..., net_tap0, net_pcap0,..., net_ring0) or a PCI address");
  std::unique_ptr<EthernetDevice> opened(
      new EthernetDevice(id, device_name(device), connects(device)));
  const rte_eth_conf configuration{};
  if (int status = rte_eth_dev_configure(id, 1, 1, &configuration); status != 0)
    return device_error(device, "configuration", status);
  uint16_t receive_descriptors = kDescriptors, transmit_descriptors = kDescriptors;
  if (int status =
          rte_eth_dev_adjust_nb_rx_tx_desc(id, &receive_descriptors, &transmit_descriptors);
      status != 0)
    return device_error(device, "its queue sizes", status);
  const int socket = rte_eth_dev_socket_id(id);
  const auto node = static_cast<unsigned>(socket < 0 ? 0 : socket);
  if (int status = rte_eth_rx_queue_setup(id, 0, receive_descriptors, node, nullptr, pool);
      status != 0)
    return device_error(device, "its receive queue", status);
  if (int status = rte_eth_tx_queue_setup(id, 0, transmit_descriptors, node, nullptr); status != 0)
    return device_error(device, "its transmit queue", status);
  rte_ether_addr mac;
  if (int status = rte_eth_macaddr_get(id, &mac); status != 0)
    return device_error(device, "its Ethernet address", status);
  std::copy_n(mac.addr_bytes, 6, opened->mac_.begin());
  return opened;
}

EthernetDevice::~EthernetDevice() {
  stop();
  rte_eth_dev_close(id_);
}

void EthernetDevice::stop() {
  if (started_) rte_eth_dev_stop(id_);
  started_ = false;
}

bool EthernetDevice::bring_up() {
  const uint64_t now_tsc = rte_rdtsc();
  const auto again = static_cast<uint64_t>(kRestartS * static_cast<double>(rte_get_tsc_hz()));
  const bool due = last_start_tsc_ == 0 || now_tsc - last_start_tsc_ > again;
  if (started_ && connects_ && due && !link_up()) stop();
  if (!started_ && due) {
    last_start_tsc_ = now_tsc;
    started_ = rte_eth_dev_start(id_) == 0;
    if (started_)
      rte_eth_promiscuous_enable(id_);  // not every driver can, and not every one needs to
  }
  return started_ && link_up();
}

bool EthernetDevice::link_up() const {
  rte_eth_link link{};
  return rte_eth_link_get_nowait(id_, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

uint16_t EthernetDevice::receive(rte_mbuf** packets) {
  return rte_eth_rx_burst(id_, 0, packets, kBurst);
}

uint16_t EthernetDevice::transmit(rte_mbuf** packets, uint16_t count) {
  return rte_eth_tx_burst(id_, 0, packets, count);
}

}  // namespace flowkeep::pktgen
