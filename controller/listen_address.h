// The address a server is to listen on, looked at ahead of gRPC, which does not say why it cannot.
#pragma once

#include <string>

#include "state/result.h"

namespace flowkeep {

// "host:port", with a port that is free. The error says what is wrong: no such form, no such
// address of this machine, in use, no permission.
Result<void> check_listen_address(const std::string& listen);

}  // namespace flowkeep
