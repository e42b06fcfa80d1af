// Whether the functions of a chain exist and take their configurations: asked of the functions
// themselves.
#pragma once

#include "controller/store.h"
#include "state/result.h"

namespace flowkeep {

Result<void> validate_functions(const StoredChain& chain);

}  // namespace flowkeep
