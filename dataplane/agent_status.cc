#include "dataplane/agent_status.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "state/flow_text.h"

namespace flowkeep {
namespace {

constexpr uint32_t kDefaultFlowLimit = 1000;

template <typename Counters>
void copy_drops(const Counters& counters, google::protobuf::Map<std::string, uint64_t>& drops) {
  for (size_t reason = 1; reason < kDropReasons; ++reason) {
    const uint64_t count = counters[reason].load(std::memory_order_relaxed);
    if (count > 0) drops[std::string(drop_reason_name(static_cast<DropReason>(reason)))] = count;
  }
}

node::v1::Flow flow_message(const FlowRecord& record) {
  node::v1::Flow flow;
  flow.set_protocol(protocol_text(record.inside_key.protocol));
  flow.set_inside_source(source_text(record));
  flow.set_destination(destination_text(record));
  flow.set_external(external_text(record));
  flow.set_phase(std::string(phase_text(record.phase)));
  flow.set_bucket(record.bucket);
  flow.set_revision(record.revision);
  flow.set_opened_at_s(record.opened_s);
  flow.set_last_seen_s(record.last_seen_s);
  return flow;
}

void fill_ports(const NodeConfig& config, const ArenaHeader& header, node::v1::NodeStatus& status) {
  for (size_t i = 0; i < config.ports.size(); ++i) {
    const PortBlock& block = header.ports[i];
    node::v1::PortStatus& port = *status.add_ports();
    port.set_name(config.ports[i].name);
    port.set_device(config.ports[i].device);
    port.set_role(config.ports[i].role == Side::kInside ? "inside" : "outside");
    for (const Ipv4Prefix& address : config.ports[i].addresses) {
      port.add_addresses(format_ipv4(address.address) + "/" + std::to_string(address.length));
    }
    port.set_mac(format_mac(block.mac));
    port.set_link_up(block.link_up.load() != 0);
    port.set_rx_packets(block.rx_packets.load());
    port.set_rx_bytes(block.rx_bytes.load());
    port.set_tx_packets(block.tx_packets.load());
    port.set_tx_bytes(block.tx_bytes.load());
    copy_drops(block.drops, *port.mutable_drops());
  }
}

std::string chain_state(const ChainBlock& block, uint32_t vacant_slots) {
  if (block.revision.load() == 0) return "starting";
  const std::string trouble = block.trouble.get();
  if (!trouble.empty()) return "degraded: " + trouble;
  if (vacant_slots > 0)
    return "degraded: " + std::to_string(vacant_slots) + " slot(s) without a worker";
  return "running";
}

void fill_chains(const NodeConfig& config, const Arena& arena, const Pool& pool,
                 node::v1::NodeStatus& status) {
  const ArenaHeader& header = arena.header();
  for (const ChainBlock& block : header.chains) {
    if (block.active.load() == 0) continue;
    node::v1::ChainStatus& chain = *status.add_chains();
    chain.set_chain(block.name);
    chain.set_revision(block.revision.load());
    chain.set_inside(config.ports[block.inside_port].name);
    chain.set_outside(config.ports[block.outside_port].name);
    chain.set_slots(block.slot_count.load());
    chain.set_flows(pool.count_flows(block.pool_index));
    chain.set_forwarded_packets(block.forwarded_packets.load());
    chain.set_forwarded_bytes(block.forwarded_bytes.load());
    copy_drops(block.drops, *chain.mutable_drops());
    chain.set_worker_deaths(block.worker_deaths.load());
    chain.set_failovers(block.failovers.load());
    uint64_t opened = 0;
    uint32_t vacant = 0;
    const auto index = static_cast<uint32_t>(&block - header.chains);
    for (const WorkerSlot& slot : header.slots) {
      if (slot.in_use.load() == 0 || slot.chain.load() != index) continue;
      opened += slot.opened_flows.load();
      if (slot.process.load() < 0) ++vacant;
    }
    chain.set_opened_flows(opened);
    chain.set_state(chain_state(block, vacant));
    if (block.given_up_revision.load() != 0) {
      chain.set_given_up_revision(block.given_up_revision.load());
      chain.set_given_up_reason(block.given_up_reason.get());
    }
  }
}

void fill_workers(const Arena& arena, node::v1::NodeStatus& status) {
  const ArenaHeader& header = arena.header();
  for (const WorkerProcess& process : header.processes) {
    const ProcessState state = process.state.load();
    if (state == ProcessState::kFree || state == ProcessState::kLeft || process.pid.load() == 0)
      continue;
    node::v1::WorkerStatus& worker = *status.add_workers();
    worker.set_pid(static_cast<uint64_t>(process.pid.load()));
    worker.set_chain(header.chains[process.chain.load()].name);
    worker.set_revision(process.revision.load());
    const int slot_number = process.slot.load();
    worker.set_slot(slot_number);
    if (slot_number < 0) {
      worker.set_state(state == ProcessState::kStarting ? "starting" : "standby");
      continue;
    }
    const WorkerSlot& slot = header.slots[slot_number];
    worker.set_state(state != ProcessState::kServing      ? "starting"
                     : slot.doorbell.sleeping.load() != 0 ? "sleeping"
                                                          : "running");
    worker.set_bursts(slot.bursts.load());
    worker.set_packets(slot.packets.load());
    worker.set_commits(slot.commits.load());
    worker.set_queue(rte_ring_count(arena.inbox(static_cast<size_t>(slot_number))));
  }
}

}  // namespace

node::v1::NodeStatus node_status(const NodeConfig& config, const Arena& arena, const Pool& pool) {
  const ArenaHeader& header = arena.header();
  node::v1::NodeStatus status;
  status.set_name(config.name);
  status.set_medium(std::string(medium_name(pool.medium())));
  status.set_medium_survives(std::string(medium_survives(pool.medium())));
  status.set_emulated(pool.emulated());
  status.set_persistence(pool.flush_text());
  status.set_packet_memory(arena.huge() ? "hugepages" : "4 KiB pages");
  status.set_pool_bytes(pool.bytes());
  status.set_pool_pages(pool.total_pages());
  status.set_pool_pages_free(pool.free_pages());
  status.set_packets_total(config.packet_count);
  status.set_packets_free(header.switch_block.packets_free.load());
  status.set_started_at_s(header.started_at_s);
  status.set_power_cut_seed(header.power_cut_seed);
  status.set_power_cut_words_at_risk(header.power_cut_words_at_risk);
  status.set_power_cut_words_lost(header.power_cut_words_lost);
  status.set_switch_pid(header.switch_pid.load());
  status.set_supervisor_pid(header.supervisor_pid.load());
  status.set_switch_restarts(header.switch_restarts.load());
  status.set_first_forwarded_at_s(
      static_cast<double>(header.switch_block.first_forward_unix_us.load()) / 1e6);
  fill_ports(config, header, status);
  fill_chains(config, arena, pool, status);
  fill_workers(arena, status);
  return status;
}

node::v1::ListEventsResponse list_events(const Arena& arena, uint64_t after, uint32_t limit) {
  const ArenaHeader& header = arena.header();
  const uint64_t last = header.last_event.load();
  const uint64_t oldest = last > kEvents ? last - kEvents + 1 : 1;
  node::v1::ListEventsResponse response;
  for (uint64_t sequence = std::max(after + 1, oldest); sequence <= last; ++sequence) {
    if (limit != 0 && static_cast<uint32_t>(response.events_size()) >= limit) break;
    const EventEntry& entry = header.events[sequence % kEvents];
    if (entry.sequence.load() != sequence) continue;  // being overwritten
    node::v1::Event& event = *response.add_events();
    event.set_sequence(sequence);
    event.set_at_s(entry.at_s);
    event.set_kind(entry.kind);
    event.set_chain(entry.chain);
    event.set_message(entry.message);
  }
  return response;
}

int chain_index(const Arena& arena, const std::string& name) {
  for (size_t i = 0; i < kMaxChains; ++i) {
    const ChainBlock& block = arena.header().chains[i];
    if (block.active.load() != 0 && name == block.name) return static_cast<int>(i);
  }
  return -1;
}

Result<node::v1::ListFlowsResponse> list_flows(const Arena& arena, const Pool& pool,
                                               const node::v1::ListFlowsRequest& request) {
  const int chain = chain_index(arena, request.chain());
  if (chain < 0)
    return Error{Error::Kind::kNotFound, "chain",
                 "\"" + request.chain() + "\" does not run on this node"};
  const Result<FlowFilter> filter = FlowFilter::parse(request.filter());
  if (!filter) return filter.error();
  const uint32_t limit = request.limit() == 0 ? kDefaultFlowLimit : request.limit();
  node::v1::ListFlowsResponse response;
  pool.for_each_flow(arena.header().chains[chain].pool_index, [&](const FlowRecord& record) {
    if (!filter->matches(record)) return true;
    if (static_cast<uint32_t>(response.flows_size()) == limit) {
      response.set_truncated(true);
      return false;
    }
    *response.add_flows() = flow_message(record);
    return true;
  });
  return response;
}

FlowSnapshot snapshot_flows(const Arena& arena, const Pool& pool, int chain) {
  FlowSnapshot flows;
  pool.for_each_flow(arena.header().chains[chain].pool_index, [&flows](const FlowRecord& record) {
    flows.push_back({record.inside_key, record.outside_key});
    return true;
  });
  std::sort(flows.begin(), flows.end(), [](const Translation& a, const Translation& b) {
    return std::memcmp(&a.inside, &b.inside, sizeof(FlowKey)) < 0;
  });
  return flows;
}

uint64_t count_resumed(const FlowSnapshot& before, const FlowSnapshot& after, uint64_t& changed) {
  uint64_t resumed = 0;
  changed = 0;
  size_t place = 0;
  for (const Translation& was : before) {
    int order = -1;
    while (place < after.size() &&
           (order = std::memcmp(&after[place].inside, &was.inside, sizeof(FlowKey))) < 0)
      ++place;
    if (place == after.size()) break;
    if (order != 0) continue;
    const bool same = std::memcmp(&after[place].outside, &was.outside, sizeof(FlowKey)) == 0;
    ++(same ? resumed : changed);
  }
  return resumed;
}

}  // namespace flowkeep
