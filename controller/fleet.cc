#include "controller/fleet.h"

#include <google/protobuf/util/message_differencer.h>

#include "controller/validation.h"

namespace flowkeep {

const v1::ChainCounters* NodeView::counters(const std::string& chain) const {
  if (!status) return nullptr;
  for (const v1::ChainCounters& counters : status->chains()) {
    if (counters.chain() == chain) return &counters;
  }
  return nullptr;
}

Result<std::unique_ptr<Fleet>> Fleet::open(Store& store, ChangeSignal& changed, Clock clock) {
  auto stored = store.nodes();
  if (!stored) return stored.error();
  std::unique_ptr<Fleet> fleet(new Fleet(store, changed, std::move(clock)));
  for (StoredNode& node : *stored) {
    Member& member = fleet->members_[node.registration.name()];
    member.view.registration = node.registration;
    member.view.registered_at_s = node.registered_at_s;
    member.view.link = std::make_shared<NodeLink>(node.registration.agent_address());
  }
  return fleet;
}

void Fleet::beat(Member& member) {
  member.heartbeat_steady_s = clock_.steady_s();
  member.view.last_heartbeat_s = clock_.unix_s();
  member.had_lease = true;
}

Result<void> Fleet::register_node(const v1::RegisterRequest& request) {
  const auto valid = check_registration(request);
  if (!valid) return valid;
  {
    const std::scoped_lock lock(mutex_);
    const auto known = members_.find(request.name());
    const bool is_new = known == members_.end();
    StoredNode node{request, is_new ? clock_.unix_s() : known->second.view.registered_at_s};
    using google::protobuf::util::MessageDifferencer;
    if (is_new || !MessageDifferencer::Equals(known->second.view.registration, request)) {
      const auto stored = store_.put_node(node);
      if (!stored) return stored;
    }
    Member& member = members_[request.name()];
    member.view.registration = request;
    member.view.registered_at_s = node.registered_at_s;
    member.view.link = std::make_shared<NodeLink>(request.agent_address());
    member.view.status.reset();  // of an earlier start
    beat(member);
  }
  changed_.raise();
  return {};
}

Result<void> Fleet::heartbeat(const v1::HeartbeatRequest& request) {
  bool returned = false;
  {
    const std::scoped_lock lock(mutex_);
    const auto found = members_.find(request.name());
    if (found == members_.end()) {
      return Error{Error::Kind::kNotFound, "", "node \"" + request.name() + "\" is not registered"};
    }
    Member& member = found->second;
    if (request.started_at_s() != 0 &&
        request.started_at_s() != member.view.registration.started_at_s()) {
      return Error{Error::Kind::kNotFound, "",
                   "this start of node \"" + request.name() + "\" is not registered"};
    }
    returned = !view_of(member).alive;
    beat(member);
  }
  if (returned) changed_.raise();
  return {};
}

NodeView Fleet::view_of(const Member& member) const {
  NodeView view = member.view;
  view.alive =
      view.last_heartbeat_s != 0 && clock_.steady_s() - member.heartbeat_steady_s < kLease_s;
  return view;
}

std::vector<NodeView> Fleet::nodes() const {
  const std::scoped_lock lock(mutex_);
  std::vector<NodeView> views;
  for (const auto& [name, member] : members_) views.push_back(view_of(member));
  return views;
}

std::optional<NodeView> Fleet::node(const std::string& name) const {
  const std::scoped_lock lock(mutex_);
  const auto found = members_.find(name);
  if (found == members_.end()) return std::nullopt;
  return view_of(found->second);
}

void Fleet::note_status(const std::string& name, const Result<v1::NodeStatus>& status) {
  const std::scoped_lock lock(mutex_);
  const auto found = members_.find(name);
  if (found == members_.end()) return;
  NodeView& view = found->second.view;
  if (!status) {
    view.trouble = status.error().text();
    return;
  }
  if (status->started_at_s() == view.registration.started_at_s()) beat(found->second);
  view.status = *status;
  view.status_at_s = clock_.unix_s();
  view.trouble.clear();
}

std::vector<std::string> Fleet::expire_leases() {
  const std::scoped_lock lock(mutex_);
  std::vector<std::string> expired;
  for (auto& [name, member] : members_) {
    if (!member.had_lease || view_of(member).alive) continue;
    member.had_lease = false;
    expired.push_back(name);
  }
  return expired;
}

}  // namespace flowkeep
