// Agent: the node's gRPC service (dataplane/agent.proto), in a process of its own so that no thread
// of gRPC is ever in a process that forks. Reads the arena and the pool (both read-only here);
// whatever changes something it asks the supervisor for, over a socket. Registers with the
// controller and sends it a heartbeat each second; the dataplane does not notice whether there is
// one.
#pragma once

#include <optional>
#include <string>

#include "dataplane/arena.h"
#include "dataplane/node_config.h"
#include "state/pool.h"

namespace flowkeep {

inline constexpr int kAgentCannotListen = 3;  // exit status: the listening address cannot be had

[[noreturn]] void agent_main(const NodeConfig& config, const Arena& arena, Pool& pool,
                             int supervisor_socket);

// Frames on the stream socket between agent and supervisor: 4 bytes of length, then the message.
bool send_frame(int socket, const std::string& message);
// Appends what has arrived, if anything has; false when the peer is gone. The supervisor may not
// wait: a socket that it was told of may be another one by the time it reads.
enum class Wait { kForInput, kNot };
bool receive_frames(int socket, std::string& input, Wait wait);
// Takes the first complete frame off the input.
std::optional<std::string> take_frame(std::string& input);

}  // namespace flowkeep
