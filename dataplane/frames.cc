#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "dataplane/agent.h"

namespace flowkeep {

bool send_frame(int socket, const std::string& message) {
  const auto length = static_cast<uint32_t>(message.size());
  std::string frame(reinterpret_cast<const char*>(&length), sizeof(length));
  frame += message;
  for (size_t sent = 0; sent < frame.size();) {
    const ssize_t taken = send(socket, frame.data() + sent, frame.size() - sent, MSG_NOSIGNAL);
    if (taken < 0 && errno == EINTR) continue;
    if (taken <= 0) return false;
    sent += static_cast<size_t>(taken);
  }
  return true;
}

bool receive_frames(int socket, std::string& input, Wait wait) {
  char part[65536];
  ssize_t got = 0;
  do {
    got = recv(socket, part, sizeof(part), wait == Wait::kNot ? MSG_DONTWAIT : 0);
  } while (got < 0 && errno == EINTR);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
  if (got <= 0) return false;
  input.append(part, static_cast<size_t>(got));
  return true;
}

std::optional<std::string> take_frame(std::string& input) {
  uint32_t length = 0;
  if (input.size() < sizeof(length)) return std::nullopt;
  std::memcpy(&length, input.data(), sizeof(length));
  if (input.size() < sizeof(length) + length) return std::nullopt;
  std::string frame = input.substr(sizeof(length), length);
  input.erase(0, sizeof(length) + length);
  return frame;
}

}  // namespace flowkeep
