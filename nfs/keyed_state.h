// KeyedState: what a function keeps beside the flows, about a host, an endpoint or whatever else
// its scope covers: up to 64 bytes of hard state under a key of the function's own, in the same
// bucket as the flows and in the same burst commit.
//
// Nobody but the function ends such state. It should so count in it what it is there for (flows,
// ports), from open() to close(), and erase it when nothing is left. State of functions that a
// later revision does not have, or has in another version, is removed by the sweep.
//
// Thread rule: one worker, which owns the bucket.
#pragma once

#include <cassert>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <type_traits>

#include "state/flow_table.h"

namespace flowkeep {

struct StateKey {
  uint8_t kind = 0;  // which of the function's kinds of state, 0 to kMaxKind
  Be32 address;      // such as an inside host
  Be16 port{};
  uint8_t protocol = 0;
  Be32 peer{};  // one more address
  static constexpr uint8_t kMaxKind = 0xff - kKeyedMark;
  friend bool operator==(const StateKey&, const StateKey&) = default;
};

// Tells a chain's functions apart in keys. `instance`: functions of the same type that come before.
constexpr Be16 state_owner(std::string_view type, uint8_t instance, uint32_t version) {
  uint32_t hash = 2166136261;  // FNV-1a
  const auto add = [&hash](uint8_t byte) { hash = (hash ^ byte) * 16777619; };
  for (const char letter : type) add(static_cast<uint8_t>(letter));
  add(instance);
  for (int shift = 0; shift < 32; shift += 8) add(static_cast<uint8_t>(version >> shift));
  return Be16{static_cast<uint16_t>(hash >> 16 ^ hash)};
}

class KeyedState {
 public:
  KeyedState(FlowTable& table, uint32_t bucket, Be16 owner)
      : table_(table), bucket_(bucket), owner_(owner) {}

  // As this burst sees it.
  template <typename T>
  std::optional<T> find(const StateKey& key) const {
    return value_of<T>(id_of(first(key)));
  }
  // State may have a second name, given when it is first put.
  template <typename T>
  std::optional<T> find_second(const StateKey& name) const {
    return value_of<T>(id_of(second(name)));
  }
  // Creates the state or replaces it. False: the pool is full, or the second name is another's;
  // nothing was changed. Of one packet, a function may touch as many keys as its keyed_changes()
  // says.
  template <typename T>
  [[nodiscard]] bool put(const StateKey& key, const T& value,
                         const StateKey* second_name = nullptr) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= kHardStateBytes);
    RecordId id = id_of(first(key));
    if (id == 0) id = open(key, second_name);
    if (id == 0) return false;
    std::memcpy(table_.stage(id).hard, &value, sizeof(value));
    return true;
  }
  void erase(const StateKey& key) {
    if (const RecordId id = id_of(first(key)); id != 0) table_.close(id);
  }

 private:
  FlowKey first(const StateKey& key) const {
    assert(key.kind <= StateKey::kMaxKind);
    return {key.address,
            key.peer,
            key.port,
            owner_,
            key.protocol,
            Side::kInside,
            static_cast<uint8_t>(kKeyedMark + key.kind)};
  }
  FlowKey second(const StateKey& name) const { return first(name).reversed(); }
  RecordId id_of(const FlowKey& key) const {
    return table_.find_indexed(bucket_, key, hash_key(key, table_.hash_secret()));
  }
  RecordId open(const StateKey& key, const StateKey* second_name) {
    const FlowKey name = second_name == nullptr ? FlowKey{} : second(*second_name);
    const auto opened =
        table_.open_keyed(bucket_, first(key), second_name == nullptr ? nullptr : &name);
    assert(opened.status != OpenStatus::kWriteSetFull);  // the runtime ends the burst before
    return opened.status == OpenStatus::kOk ? opened.id : 0;
  }
  template <typename T>
  std::optional<T> value_of(RecordId id) const {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= kHardStateBytes);
    if (id == 0) return std::nullopt;
    T value;
    std::memcpy(&value, table_.record(id).hard, sizeof(value));
    return value;
  }

  FlowTable& table_;
  uint32_t bucket_;
  Be16 owner_;
};

}  // namespace flowkeep
