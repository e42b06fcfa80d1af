#include "controller/validation.h"

#include <algorithm>
#include <bit>
#include <set>

namespace flowkeep {
namespace {

std::string quoted(const std::string& text) {
  return "\"" + text + "\"";
}

template <typename Range, typename Name>
std::string listed(const Range& range, Name name) {
  std::string list;
  for (const auto& item : range) list += (list.empty() ? "" : ", ") + std::string(name(item));
  return list.empty() ? "none" : list;
}

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

Result<void> check_port(const std::string& role, const std::string& port,
                        const v1::RegisterRequest& node) {
  const std::string field = "spec." + role;
  if (port.empty()) return invalid(field, "is missing; the name of a port of the node is needed");
  const auto found =
      std::find_if(node.ports().begin(), node.ports().end(),
                   [&](const v1::Port& candidate) { return candidate.name() == port; });
  if (found == node.ports().end()) {
    return invalid(
        field, "port " + quoted(port) + " does not exist on node " + quoted(node.name()) +
                   "; it has: " + listed(node.ports(), [](const v1::Port& p) { return p.name(); }));
  }
  if (!found->role().empty() && found->role() != role) {
    return invalid(field, "port " + quoted(port) + " of node " + quoted(node.name()) +
                              " has the role " + quoted(found->role()) + "; a port with the role " +
                              quoted(role) + " is needed");
  }
  return {};
}

Result<void> check_port_is_free(const std::string& role, const std::string& port,
                                const StoredChain& chain, const std::vector<StoredChain>& others) {
  for (const StoredChain& other : others) {
    if (other.name == chain.name || other.spec.node() != chain.spec.node()) continue;
    if (other.spec.inside() != port && other.spec.outside() != port) continue;
    return invalid("spec." + role, "port " + quoted(port) + " of node " +
                                       quoted(chain.spec.node()) + " is already used by chain " +
                                       quoted(other.name));
  }
  return {};
}

Result<void> check_limits(const v1::ChainSpec& spec) {
  if (spec.workers() < 1 || spec.workers() > kMaxWorkers) {
    return invalid("spec.workers", std::to_string(spec.workers()) +
                                       " is out of range; accepted: 1 to " +
                                       std::to_string(kMaxWorkers));
  }
  if (!std::has_single_bit(spec.buckets()) || spec.buckets() < kMinBuckets ||
      spec.buckets() > kMaxBuckets) {
    return invalid("spec.buckets", std::to_string(spec.buckets()) +
                                       " is not accepted; accepted: a power of two from " +
                                       std::to_string(kMinBuckets) + " to " +
                                       std::to_string(kMaxBuckets));
  }
  if (spec.functions().empty())
    return invalid("spec.functions", "is empty; a chain needs at least one function");
  if (spec.functions_size() > kMaxFunctions) {
    return invalid("spec.functions", std::to_string(spec.functions_size()) +
                                         " functions are too many; accepted: 1 to " +
                                         std::to_string(kMaxFunctions));
  }
  if (spec.ByteSizeLong() > kMaxSpecBytes) {
    return invalid("spec", "takes " + std::to_string(spec.ByteSizeLong()) +
                               " bytes; accepted: up to " + std::to_string(kMaxSpecBytes));
  }
  for (int i = 0; i < spec.functions_size(); ++i) {
    if (!spec.functions(i).type().empty()) continue;
    return invalid("spec.functions[" + std::to_string(i) + "].type", "is missing");
  }
  return {};
}

}  // namespace

Result<void> check_name(const std::string& field, const std::string& name) {
  constexpr const char* kAccepted =
      "accepted: 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends";
  if (name.empty()) return invalid(field, std::string("is missing; ") + kAccepted);
  const bool fits = name.size() <= kMaxNameBytes &&
                    std::all_of(name.begin(), name.end(), is_name_character) &&
                    name.front() != '-' && name.back() != '-';
  if (fits) return {};
  return invalid(field, quoted(name.substr(0, 2 * kMaxNameBytes)) + " is not a name; " + kAccepted);
}

Result<void> check_registration(const v1::RegisterRequest& request) {
  auto valid = check_name("name", request.name());
  if (!valid) return valid;
  const size_t colon = request.agent_address().rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == request.agent_address().size()) {
    return invalid("agent_address",
                   quoted(request.agent_address()) + " is no address; accepted: \"host:port\"");
  }
  std::set<std::string> seen;
  for (int i = 0; i < request.ports_size(); ++i) {
    const v1::Port& port = request.ports(i);
    const std::string field = "ports[" + std::to_string(i) + "].";
    if (port.name().empty()) return invalid(field + "name", "is missing");
    if (!seen.insert(port.name()).second)
      return invalid(field + "name", quoted(port.name()) + " is given twice");
    if (!port.role().empty() && port.role() != "inside" && port.role() != "outside") {
      return invalid(field + "role",
                     quoted(port.role()) + " is no role; accepted: inside, outside, or none");
    }
  }
  return {};
}

Result<v1::ChainSpec> complete_spec(const v1::ChainSpec& spec, const std::string& current_node,
                                    const std::vector<v1::RegisterRequest>& nodes) {
  if (nodes.empty()) {
    return unavailable("spec.node",
                       "no node is registered with this controller; start a node first");
  }
  const std::string names =
      listed(nodes, [](const v1::RegisterRequest& node) { return node.name(); });
  v1::ChainSpec complete = spec;
  if (complete.node().empty()) complete.set_node(current_node);
  if (complete.node().empty()) {
    if (nodes.size() > 1)
      return invalid("spec.node", "is missing, and there are several nodes: " + names);
    complete.set_node(nodes.front().name());
  }
  const bool known = std::any_of(nodes.begin(), nodes.end(), [&](const v1::RegisterRequest& node) {
    return node.name() == complete.node();
  });
  if (!known) {
    return invalid("spec.node",
                   "node " + quoted(complete.node()) + " is not registered; registered: " + names);
  }
  if (complete.workers() == 0) complete.set_workers(1);
  if (complete.buckets() == 0) complete.set_buckets(256);
  return complete;
}

Result<void> check_chain(const StoredChain& chain, const v1::RegisterRequest& node,
                         const std::vector<StoredChain>& others,
                         const FunctionValidator& functions) {
  const v1::ChainSpec& spec = chain.spec;
  auto valid = check_name("name", chain.name);
  if (valid) valid = check_port("inside", spec.inside(), node);
  if (valid && !spec.outside().empty() && spec.inside() == spec.outside()) {
    valid = invalid("spec.outside", "port " + quoted(spec.outside()) +
                                        " is the inside port too; two ports are needed");
  }
  if (valid) valid = check_port("outside", spec.outside(), node);
  if (valid) valid = check_port_is_free("inside", spec.inside(), chain, others);
  if (valid) valid = check_port_is_free("outside", spec.outside(), chain, others);
  if (valid) valid = check_limits(spec);
  if (valid) valid = functions(chain);
  return valid;
}

}  // namespace flowkeep
