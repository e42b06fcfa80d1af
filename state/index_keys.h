// By which keys the index finds a record.
//
// A flow has two, as the inside and the outside see it. Where an endpoint's flows share one
// translation (a mapping, RFC 4787), the first of them is the endpoint's *host*: it is found by the
// endpoint alone, under both of its names, and so needs no more entries than any other flow. The
// endpoint's further flows are *guests*, found by their own keys; the host counts them. A host that
// ends before its guests stays as a record that is no flow (FlowPhase::kKeyed), until a flow of the
// endpoint opens, which takes it, or the last guest ends.
//
// State that a function keeps beside the flows is a kKeyed record with no users; its second key is
// optional.
#pragma once

#include <array>
#include <cstdint>

#include "state/flow_record.h"

namespace flowkeep {

// FlowRecord::users: 0 of what is no mapping's, kGuest of a guest, otherwise the record is its
// endpoint's host and so many flows use it, its own included. With kUnleased no lease of ports
// backs the outside name. Two bits are the translator's, to know at the end of a mapping what it
// has counted for it. A guest has the marks of its host.
inline constexpr uint32_t kUnleased = 1u << 31;
inline constexpr uint32_t kAccountShift = 29;
inline constexpr uint32_t kMostAccount = 2;
// What guests have here that were written before there were accounts.
inline constexpr uint32_t kNoAccount = 3;
inline constexpr uint32_t kMappingMarks = kUnleased | kNoAccount << kAccountShift;
inline constexpr uint32_t kGuest = ~kMappingMarks;

inline uint32_t user_count(const FlowRecord& record) {
  return record.users & ~kMappingMarks;
}
constexpr uint32_t mapping_marks(bool leased, uint32_t account) {
  return (leased ? 0 : kUnleased) | account << kAccountShift;
}
inline uint8_t mapping_account(const FlowRecord& record) {
  const uint32_t account = (record.users & ~kUnleased) >> kAccountShift;
  return static_cast<uint8_t>(account == kNoAccount ? 0 : account);
}
inline bool is_leased(const FlowRecord& record) {
  return (record.users & kUnleased) == 0;
}
// Of the mapping that a record in use belongs to.
inline uint32_t mapping_marks(const FlowRecord& record) {
  return mapping_marks(is_leased(record), mapping_account(record));
}
inline bool is_guest(const FlowRecord& record) {
  return user_count(record) == kGuest;
}
inline bool is_host(const FlowRecord& record) {
  return record.users != 0 && !is_guest(record);
}
inline bool is_flow(const FlowRecord& record) {
  return record.phase != FlowPhase::kFree && record.phase != FlowPhase::kKeyed;
}

// A host that nobody shares its mapping with.
inline bool is_lone_flow(const FlowRecord& record) {
  return is_flow(record) && is_host(record) && user_count(record) == 1;
}

struct IndexKeys {
  std::array<FlowKey, 2> keys;
  uint32_t count;
  const FlowKey* begin() const { return keys.data(); }
  const FlowKey* end() const { return keys.data() + count; }
};

// Of a record in use.
inline IndexKeys index_keys(const FlowRecord& record) {
  if (is_host(record)) {
    return {{endpoint_key(record.inside_key), endpoint_key(record.outside_key)}, 2};
  }
  const bool single = record.phase == FlowPhase::kKeyed && record.outside_key.mark == 0;
  return {{record.inside_key, record.outside_key}, single ? 1u : 2u};
}

}  // namespace flowkeep
