// Validation: what may be stored. Pure functions: nothing is changed, every error names the field,
// the value and what would be accepted.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "controller/store.h"
#include "flowkeep/v1/flowkeep.pb.h"
#include "state/result.h"

namespace flowkeep {

inline constexpr uint32_t kMaxWorkers = 8;
inline constexpr uint32_t kMinBuckets = 16;
inline constexpr uint32_t kMaxBuckets = 1'024;
inline constexpr int kMaxFunctions = 16;
inline constexpr size_t kMaxNameBytes = 63;
inline constexpr size_t kMaxSpecBytes = 1'000'000;

// Builds the chain's functions and throws them away: types and configurations are right or it says
// what is not.
using FunctionValidator = std::function<Result<void>(const StoredChain& chain)>;

// [a-z0-9]([a-z0-9-]*[a-z0-9])?, at most 63 characters.
Result<void> check_name(const std::string& field, const std::string& name);

Result<void> check_registration(const v1::RegisterRequest& request);

// The specification with its defaults filled in: node (the one it has, or the only one), workers,
// buckets. `current` is the node of the chain so far, or empty. kUnavailable: there is no node at
// all.
Result<v1::ChainSpec> complete_spec(const v1::ChainSpec& spec, const std::string& current_node,
                                    const std::vector<v1::RegisterRequest>& nodes);

// `chain` is complete; `node` is its node; `others` are all stored chains (itself included or not).
Result<void> check_chain(const StoredChain& chain, const v1::RegisterRequest& node,
                         const std::vector<StoredChain>& others,
                         const FunctionValidator& functions);

}  // namespace flowkeep
