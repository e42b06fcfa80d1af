#include "dataplane/node_config.h"

#include <arpa/inet.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <initializer_list>
#include <map>
#include <set>
#include <sstream>

namespace flowkeep {
namespace {

// Reads fields of one YAML mapping; the first error sticks and the rest of the reads do nothing.
class Reader {
 public:
  Reader(const YAML::Node& node, std::string path, std::optional<Error>& error)
      : node_(node), path_(std::move(path)), error_(error) {}

  void only(std::initializer_list<const char*> known) {
    if (error_ || !node_.IsDefined() || node_.IsNull()) return;
    if (!node_.IsMap()) return fail(path_, "must be a mapping");
    std::set<std::string> seen;
    for (const auto& entry : node_) {
      const auto key = entry.first.as<std::string>();
      if (!seen.insert(key).second) return fail(child(key), "is given twice; accepted: once");
      if (std::find(known.begin(), known.end(), key) != known.end()) continue;
      std::string accepted;
      for (const char* name : known) accepted += (accepted.empty() ? "" : ", ") + std::string(name);
      return fail(child(key), "unknown field; accepted: " + accepted);
    }
  }
  bool has(const char* key) const {
    return node_.IsDefined() && node_.IsMap() && node_[key].IsDefined();
  }
  YAML::Node operator[](const char* key) const { return node_[key]; }
  std::string child(const std::string& key) const {
    return path_.empty() ? key : path_ + "." + key;
  }

  void text(const char* key, std::string& target) {
    if (error_ || !has(key)) return;
    if (!node_[key].IsScalar()) return fail(child(key), "must be text");
    target = node_[key].as<std::string>();
  }
  // If it is there.
  void text_not_empty(const char* key, std::string& target) {
    text(key, target);
    if (has(key) && target.empty()) fail(child(key), "is empty");
  }
  void required_text(const char* key, std::string& target) {
    text_not_empty(key, target);
    if (!has(key)) fail(child(key), "is missing");
  }
  // "HOST:PORT", if it is there.
  void endpoint(const char* key, std::string& target) {
    text(key, target);
    if (error_ || !has(key)) return;
    const size_t colon = target.rfind(':');
    const std::string port = colon == std::string::npos ? "" : target.substr(colon + 1);
    uint16_t number = 0;
    const auto [end, failed] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (failed == std::errc() && end == port.data() + port.size() && number != 0 && colon != 0)
      return;
    fail(child(key), "\"" + target + "\" is not accepted; HOST:PORT is, such as 192.0.2.1:7470");
  }
  void number(const char* key, uint32_t& target, uint32_t low, uint32_t high) {
    std::string written;
    text(key, written);
    if (error_ || !has(key)) return;
    uint32_t value = 0;
    const auto [end, failed] =
        std::from_chars(written.data(), written.data() + written.size(), value);
    if (failed != std::errc() || end != written.data() + written.size() || value < low ||
        value > high) {
      return fail(child(key), "\"" + written + "\" is not accepted; a number from " +
                                  std::to_string(low) + " to " + std::to_string(high) + " is");
    }
    target = value;
  }
  void flag(const char* key, bool& target) {
    std::string written;
    text(key, written);
    if (error_ || !has(key)) return;
    if (written != "true" && written != "false") {
      return fail(child(key), "\"" + written + "\" is not accepted; true or false is");
    }
    target = written == "true";
  }
  // "64M", "2G", plain bytes.
  void bytes(const char* key, uint64_t& target) {
    std::string written;
    text(key, written);
    if (error_ || !has(key)) return;
    uint64_t value = 0;
    const auto [end, failed] =
        std::from_chars(written.data(), written.data() + written.size(), value);
    const std::string unit = written.substr(static_cast<size_t>(end - written.data()));
    const uint64_t scale = unit.empty()  ? 1
                           : unit == "K" ? 1ULL << 10
                           : unit == "M" ? 1ULL << 20
                           : unit == "G" ? 1ULL << 30
                                         : 0;
    if (failed != std::errc() || scale == 0 || value > (uint64_t{1} << 50) / scale) {
      return fail(child(key),
                  "\"" + written + "\" is no size; accepted: bytes, or a number with K, M or G");
    }
    target = value * scale;
  }
  // Length of a list; 0 if it is not there.
  size_t items(const char* key) {
    if (error_ || !has(key)) return 0;
    if (node_[key].IsSequence()) return node_[key].size();
    fail(child(key), "must be a list");
    return 0;
  }
  void fail(const std::string& field, const std::string& message) {
    if (!error_) error_ = invalid(field, message);
  }
  template <typename T>
  bool take(Result<T> result, T& target) {
    if (error_) return false;
    if (!result) {
      error_ = result.error();
      return false;
    }
    target = *result;
    return true;
  }
  std::optional<Error>& error() { return error_; }

 private:
  YAML::Node node_;
  std::string path_;
  std::optional<Error>& error_;
};

bool parse_mac(const std::string& text, uint8_t* mac) {
  if (text.find_first_not_of("0123456789abcdefABCDEF:") != std::string::npos) return false;
  int used = 0;
  return std::sscanf(text.c_str(), "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1],
                     &mac[2], &mac[3], &mac[4], &mac[5], &used) == 6 &&
         used == static_cast<int>(text.size());
}

bool is_empty_text(const YAML::Node& node) {
  return node.IsDefined() && node.IsScalar() && node.Scalar().empty();
}

// Of a host (RFC 1122 section 3.2.1.3).
bool is_unicast(Be32 address) {
  const uint32_t first = address.host() >> 24;
  return first != 0 && first != 127 && first < 224;
}

bool is_unicast(const Ipv6Address& address) {
  return !is_unspecified(address) && !is_loopback(address) && !is_multicast(address);
}

// Says what is wrong with an address that should be of a host.
template <typename Address>
bool accept_host(Reader& reader, const std::string& field, const std::string& written,
                 const Address& address) {
  if (reader.error()) return false;
  if (is_unicast(address)) return true;
  reader.fail(field, "\"" + written + "\" is not accepted; the address of a host is");
  return false;
}

bool is_ipv6(const std::string& text) {
  return text.find(':') != std::string::npos;
}

void read_routes(Reader& port, PortConfig& config) {
  for (size_t i = 0; i < port.items("routes"); ++i) {
    const std::string path = port.child("routes[" + std::to_string(i) + "]");
    Reader route(port["routes"][i], path, port.error());
    route.only({"prefix", "via"});
    std::string prefix, via;
    route.required_text("prefix", prefix);
    route.required_text("via", via);
    if (port.error()) return;
    if (is_ipv6(prefix)) {
      Ipv6RouteConfig parsed;
      if (!route.take(parse_ipv6_prefix(prefix, path + ".prefix"), parsed.prefix)) return;
      if (!route.take(parse_ipv6(via, path + ".via"), parsed.via)) return;
      if (!accept_host(route, path + ".via", via, parsed.via)) return;
      config.ipv6_routes.push_back(parsed);
      continue;
    }
    RouteConfig parsed;
    if (!route.take(parse_prefix(prefix, path + ".prefix"), parsed.prefix)) return;
    if (!route.take(parse_ipv4(via, path + ".via"), parsed.via)) return;
    if (!accept_host(route, path + ".via", via, parsed.via)) return;
    config.routes.push_back(parsed);
  }
}

void read_neighbours(Reader& port, PortConfig& config) {
  for (size_t i = 0; i < port.items("neighbours"); ++i) {
    const std::string path = port.child("neighbours[" + std::to_string(i) + "]");
    Reader neighbour(port["neighbours"][i], path, port.error());
    neighbour.only({"address", "mac"});
    std::string address, mac;
    neighbour.required_text("address", address);
    neighbour.required_text("mac", mac);
    if (port.error()) return;
    uint8_t octets[6];
    // The lowest bit of the first octet: of a group (IEEE 802).
    if (!parse_mac(mac, octets) || (octets[0] & 1) != 0) {
      return neighbour.fail(
          path + ".mac",
          "\"" + mac + "\" is no MAC address of a host; accepted: 02:00:00:00:00:01");
    }
    NeighbourConfig parsed;
    Ipv6NeighbourConfig ipv6;
    if (is_ipv6(address)) {
      if (!neighbour.take(parse_ipv6(address, path + ".address"), ipv6.address)) return;
      std::copy(octets, octets + 6, ipv6.mac);
      config.ipv6_neighbours.push_back(ipv6);
    } else {
      if (!neighbour.take(parse_ipv4(address, path + ".address"), parsed.address)) return;
      std::copy(octets, octets + 6, parsed.mac);
      config.neighbours.push_back(parsed);
    }
  }
}

void read_addresses(Reader& port, PortConfig& config) {
  for (size_t i = 0; i < port.items("addresses"); ++i) {
    const std::string field = port.child("addresses[" + std::to_string(i) + "]");
    const auto written = port["addresses"][i].as<std::string>("");
    Ipv4Prefix ipv4;
    Ipv6Prefix ipv6;
    if (is_ipv6(written)) {
      if (!port.take(parse_ipv6_prefix(written, field), ipv6)) return;
      if (!accept_host(port, field, written, ipv6.address)) return;
      config.ipv6_addresses.push_back(ipv6);
    } else {
      if (!port.take(parse_prefix(written, field), ipv4)) return;
      if (!accept_host(port, field, written, ipv4.address)) return;
      config.addresses.push_back(ipv4);
    }
  }
}

// One number, or the two of QinQ with the outer one first.
void read_vlan(Reader& port, PortConfig& config) {
  if (!port.has("vlan") || port.error()) return;
  const YAML::Node written = port["vlan"];
  const auto refuse = [&] {
    port.fail(port.child("vlan"),
              "\"" + YAML::Dump(written) +
                  "\" is not accepted; a number from 1 to 4094 is, or a list of "
                  "two of them, the outer first");
  };
  if (!written.IsScalar() && !(written.IsSequence() && written.size() == 2)) return refuse();
  config.vlan.count = written.IsScalar() ? 1 : 2;
  for (size_t i = 0; i < config.vlan.count; ++i) {
    const YAML::Node one = written.IsScalar() ? written : written[i];
    const auto text = one.as<std::string>("");
    const auto [end, failed] =
        std::from_chars(text.data(), text.data() + text.size(), config.vlan.ids[i]);
    const bool number = failed == std::errc() && end == text.data() + text.size();
    if (!number || config.vlan.ids[i] < 1 || config.vlan.ids[i] > 4094) return refuse();
  }
}

PortConfig read_port(const YAML::Node& node, const std::string& path, std::optional<Error>& error) {
  Reader port(node, path, error);
  PortConfig config;
  std::string role;
  port.only({"name", "device", "role", "addresses", "routes", "neighbours", "promiscuous", "mtu",
             "vlan"});
  port.required_text("name", config.name);
  port.required_text("device", config.device);
  port.required_text("role", role);
  port.flag("promiscuous", config.promiscuous);
  port.number("mtu", config.mtu, kSmallestMtu, kLargestMtu);
  if (error) return config;
  if (config.name.empty() || config.name.size() > 31) {
    port.fail(path + ".name", "\"" + config.name + "\" is not accepted; 1 to 31 characters are");
  }
  if (role != "inside" && role != "outside") {
    port.fail(path + ".role", "\"" + role + "\" is not accepted; inside or outside is");
  }
  config.role = role == "outside" ? Side::kOutside : Side::kInside;
  read_addresses(port, config);
  read_routes(port, config);
  read_neighbours(port, config);
  read_vlan(port, config);
  if (!config.ipv6_addresses.empty() && config.mtu != 0 && config.mtu < kSmallestIpv6Mtu) {
    port.fail(path + ".mtu",
              "\"" + std::to_string(config.mtu) +
                  "\" is not accepted on a port with IPv6 addresses; 1280 or more is");
  }
  return config;
}

void check_ports(const std::vector<PortConfig>& ports, std::optional<Error>& error) {
  const auto fail = [&](size_t i, const char* field, const std::string& text) {
    if (!error) error = invalid("ports[" + std::to_string(i) + "]." + field, text);
  };
  const auto count = [&ports](Side role) {
    return std::count_if(ports.begin(), ports.end(),
                         [role](const PortConfig& port) { return port.role == role; });
  };
  if (count(Side::kInside) == 0 || count(Side::kOutside) == 0) {
    error = invalid("ports", "a node needs at least one inside and one outside port");
  }
  if (ports.size() > kMaxPorts) {
    error = invalid("ports", std::to_string(ports.size()) + " ports; at most " +
                                 std::to_string(kMaxPorts) + " are accepted");
  }
  for (size_t i = 0; i < ports.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      const std::string other = "ports[" + std::to_string(j) + "]";
      if (ports[i].name == ports[j].name) {
        fail(i, "name",
             "\"" + ports[i].name + "\" is used twice (" + other +
                 "); each port needs a name of its own");
      }
      if (ports[i].device == ports[j].device) {
        fail(i, "device",
             "\"" + ports[i].device + "\" is used twice (" + other +
                 "); a device has one port and one role, inside or outside");
      }
    }
  }
  const auto addresses_twice = [&](auto addresses, auto format) {
    std::map<std::string, size_t> port_of;
    for (size_t i = 0; i < ports.size(); ++i) {
      for (const auto& prefix : ports[i].*addresses) {
        const std::string address = format(prefix.address);
        if (const auto [at, is_new] = port_of.emplace(address, i); !is_new)
          fail(i, "addresses",
               address + " is used twice (ports[" + std::to_string(at->second) + "])");
      }
    }
  };
  addresses_twice(&PortConfig::addresses, [](Be32 address) { return format_ipv4(address); });
  addresses_twice(&PortConfig::ipv6_addresses,
                  [](const Ipv6Address& address) { return format_ipv6(address); });
}

Hugepages read_hugepages(Reader& packets) {
  std::string written = "auto";
  packets.text("hugepages", written);
  if (written == "always") return Hugepages::kAlways;
  if (written == "never") return Hugepages::kNever;
  if (written != "auto") {
    packets.fail("packets.hugepages",
                 "\"" + written + "\" is not accepted; auto, always or never is");
  }
  return Hugepages::kAuto;
}

void read_pool(Reader& pool, NodeConfig& config) {
  pool.only(
      {"path", "size", "emulate_pmem", "power_cut_drills", "fence_delay_ns", "line_delay_ns"});
  pool.required_text("path", config.pool_path);
  pool.bytes("size", config.pool_bytes);
  pool.flag("emulate_pmem", config.emulate_pmem);
  pool.flag("power_cut_drills", config.power_cut_drills);
  pool.number("fence_delay_ns", config.pool_delay.fence_ns, 0, 1'000'000);
  pool.number("line_delay_ns", config.pool_delay.line_ns, 0, 100'000);
  // Without flushes there is nothing to delay; on persistent memory emulate_pmem changes nothing
  // else.
  if (config.emulate_pmem || !config.pool_delay.any()) return;
  pool.fail(config.pool_delay.fence_ns != 0 ? "pool.fence_delay_ns" : "pool.line_delay_ns",
            "delays flushes, which run by emulate_pmem; accepted: 0, or emulate_pmem: true");
}

NodeConfig read_node(const YAML::Node& root, std::optional<Error>& error) {
  NodeConfig config;
  Reader top(root, "", error);
  top.only({"node", "controller", "agent", "state_dir", "pool", "packets", "fragments", "workers",
            "dead_letters", "switch", "ports"});
  Reader node(root["node"], "node", error);
  node.only({"name"});
  node.text_not_empty("name", config.name);
  if (!is_empty_text(root["controller"])) top.endpoint("controller", config.controller);
  top.text_not_empty("state_dir", config.state_dir);
  Reader agent(root["agent"], "agent", error);
  agent.only({"listen"});
  agent.endpoint("listen", config.agent_listen);
  Reader pool(root["pool"], "pool", error);
  read_pool(pool, config);
  Reader packets(root["packets"], "packets", error);
  packets.only({"count", "hugepages"});
  packets.number("count", config.packet_count, 4096, 64U << 20);
  config.hugepages = read_hugepages(packets);
  Reader fragments(root["fragments"], "fragments", error);
  fragments.only({"datagrams", "timeout_ms"});
  fragments.number("datagrams", config.datagram_count, 16, 32768);
  fragments.number("timeout_ms", config.reassembly_timeout_ms, 100, 120'000);
  Reader workers(root["workers"], "workers", error);
  workers.only({"slots", "standby", "hang_timeout_ms"});
  workers.number("slots", config.worker_slots, 1, kMaxWorkerSlots);
  workers.number("standby", config.standby, 0, 4);
  workers.number("hang_timeout_ms", config.hang_timeout_ms, 10, 60000);
  Reader letters(root["dead_letters"], "dead_letters", error);
  letters.only({"directory", "limit_mib"});
  letters.text("directory", config.dead_letter_directory);
  letters.number("limit_mib", config.dead_letter_limit_mib, 1, 4096);
  if (config.dead_letter_directory.empty())
    config.dead_letter_directory = config.state_dir + "/dead-letters";
  Reader the_switch(root["switch"], "switch", error);
  the_switch.only({"eal_arguments"});
  for (size_t i = 0; i < the_switch.items("eal_arguments"); ++i) {
    const YAML::Node argument = the_switch["eal_arguments"][i];
    if (!argument.IsScalar())
      the_switch.fail("switch.eal_arguments[" + std::to_string(i) + "]", "must be text");
    config.eal_arguments.push_back(argument.as<std::string>(""));
  }
  for (size_t i = 0; i < top.items("ports"); ++i) {
    config.ports.push_back(read_port(top["ports"][i], "ports[" + std::to_string(i) + "]", error));
  }
  if (!error && config.power_cut_drills && !config.emulate_pmem) {
    error =
        invalid("pool.power_cut_drills",
                "true is not accepted without emulate_pmem: true; nothing is certain on a medium "
                "that is never flushed");
  }
  if (!error) check_ports(config.ports, error);
  return config;
}

}  // namespace

Result<NodeConfig> NodeConfig::load(const std::string& path) {
  std::ifstream file(path);
  if (!file)
    return invalid(path, "cannot be read; a node's YAML file is expected (see configs/nodes/)");
  std::ostringstream text;
  text << file.rdbuf();
  return parse(text.str(), path);
}

Result<NodeConfig> NodeConfig::parse(const std::string& yaml, const std::string& origin) {
  YAML::Node root;
  try {
    root = YAML::Load(yaml);
    if (!root.IsMap())
      return invalid(origin,
                     "is no node configuration; a mapping with node, pool and ports is expected");
    std::optional<Error> error;
    NodeConfig config = read_node(root, error);
    if (error) return Error{error->kind, origin + ": " + error->field, error->message};
    return config;
  } catch (const YAML::Exception& problem) {
    return invalid(origin, "bad YAML: " + std::string(problem.what()));
  }
}

Result<Be32> parse_ipv4(const std::string& text, const std::string& field) {
  Be32 address;
  if (inet_pton(AF_INET, text.c_str(), &address.raw) == 1) return address;
  return invalid(field, "\"" + text + "\" is no IPv4 address; accepted: 192.0.2.1");
}

Result<Ipv4Prefix> parse_prefix(const std::string& text, const std::string& field) {
  const size_t slash = text.find('/');
  Ipv4Prefix prefix;
  const std::string length = slash == std::string::npos ? "32" : text.substr(slash + 1);
  const auto [end, failed] =
      std::from_chars(length.data(), length.data() + length.size(), prefix.length);
  const bool bad_length =
      failed != std::errc() || end != length.data() + length.size() || prefix.length > 32;
  if (bad_length || inet_pton(AF_INET, text.substr(0, slash).c_str(), &prefix.address.raw) != 1) {
    return invalid(field, "\"" + text + "\" is no IPv4 prefix; accepted: 192.0.2.0/24");
  }
  return prefix;
}

std::string format_ipv4(Be32 address) {
  char text[INET_ADDRSTRLEN];
  inet_ntop(AF_INET, &address.raw, text, sizeof(text));
  return text;
}

std::string format_mac(const uint8_t* mac) {
  char text[18];
  std::snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
                mac[4], mac[5]);
  return text;
}

}  // namespace flowkeep
