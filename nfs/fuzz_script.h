// For fuzzers: choices taken from the fuzzer's input, byte by byte; zeros when it is used up. Any
// input means something, so that no mutation is wasted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace flowkeep {

class FuzzScript {
 public:
  explicit FuzzScript(std::span<const uint8_t> input) : input_(input) {}

  bool ended() const { return input_.empty(); }
  uint8_t byte() {
    if (input_.empty()) return 0;
    const uint8_t first = input_.front();
    input_ = input_.subspan(1);
    return first;
  }
  // Below `end`, which is 1 to 65536.
  uint32_t below(uint32_t end) {
    if (end <= 256) return byte() % end;
    const uint32_t high = byte();
    return (high << 8 | byte()) % end;
  }
  bool one_in(uint32_t n) { return below(n) == n - 1; }
  template <typename Range>
  const auto& one_of(const Range& choices) {
    return choices[below(static_cast<uint32_t>(std::size(choices)))];
  }
  std::string text(size_t most) {
    const size_t length = below(static_cast<uint32_t>(most) + 1);
    std::string taken;
    for (size_t i = 0; i < length && !ended(); ++i) taken.push_back(static_cast<char>(byte()));
    return taken;
  }
  std::string_view rest() const {
    return {reinterpret_cast<const char*>(input_.data()), input_.size()};
  }

 private:
  std::span<const uint8_t> input_;
};

// What must hold; a fuzzer's finding if it does not.
inline void demand(bool holds, const std::string& what) {
  if (holds) return;
  std::cerr << "does not hold: " << what << std::endl;
  std::abort();
}

}  // namespace flowkeep
