#include "controller/listen_address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

namespace flowkeep {
namespace {

Error listen_error(const std::string& listen, const std::string& why) {
  return invalid("--listen", "cannot listen on \"" + listen + "\": " + why);
}

}  // namespace

Result<void> check_listen_address(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  if (colon == std::string::npos || colon + 1 == listen.size()) {
    return listen_error(listen, "it is no \"host:port\", such as \"127.0.0.1:7470\"");
  }
  std::string host = listen.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int code = ::getaddrinfo(host.empty() ? nullptr : host.c_str(), listen.c_str() + colon + 1,
                                 &hints, &found);
  if (code != 0) return listen_error(listen, ::gai_strerror(code));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, ::freeaddrinfo);

  const int probe = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (probe < 0) return listen_error(listen, std::strerror(errno));
  const int on = 1;
  ::setsockopt(probe, SOL_SOCKET, SO_REUSEADDR, &on,
               sizeof(on));  // as gRPC does: old connections do not count
  const bool is_free =
      ::bind(probe, found->ai_addr, found->ai_addrlen) == 0 && ::listen(probe, 1) == 0;
  const int why = errno;
  ::close(probe);
  if (is_free) return {};
  if (why == EADDRINUSE)
    return listen_error(listen, "the address is in use; is another flowkeep-controller running?");
  return listen_error(listen, std::strerror(why));
}

}  // namespace flowkeep
