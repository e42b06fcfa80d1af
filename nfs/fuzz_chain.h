// For fuzzers: a chain of random configuration, random packets through it, and what must hold for
// all of them, whatever functions it has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace flowkeep {

// `function`: the type that the chain consists of; "chain": several.
void fuzz_chain(std::span<const uint8_t> input, std::string_view function);

}  // namespace flowkeep
