// Forwards: the static port forwards of a nat44, by either end.
//
// Thread rule: immutable.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "nfs/forward.h"

namespace flowkeep {

class Forwards {
 public:
  // No two have the same external or the same inside endpoint.
  void add(const Forward& forward) { forwards_.push_back(forward); }
  std::span<const Forward> all() const { return forwards_; }

  // Null: there is none.
  const Forward* to_external(uint8_t protocol, Be32 address, Be16 port) const {
    return find_forward(forwards_, {{}, address, {}, port, protocol, Side::kOutside});
  }
  const Forward* of_inside(uint8_t protocol, Be32 address, Be16 port) const {
    for (const Forward& forward : forwards_) {
      if (forward.inside.port == port && forward.inside.address == address &&
          forward.protocol == protocol) {
        return &forward;
      }
    }
    return nullptr;
  }

 private:
  std::vector<Forward> forwards_;
};

}  // namespace flowkeep
