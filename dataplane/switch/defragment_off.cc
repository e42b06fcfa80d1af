// Takes the place of libc's setsockopt() in the node's programs, for one flag of one option.
//
// DPDK's af_packet driver asks the kernel to put the fragments of IPv4 packets together
// (PACKET_FANOUT_FLAG_DEFRAG) and has no argument to prevent it. What comes out is larger than a
// frame's buffer and arrives cut off. The switch puts fragments together itself, with limits and
// counters of its own, and has to see them as they are.
#include <linux/if_packet.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

extern "C" int setsockopt(int fd, int level, int name, const void* value,
                          socklen_t length) noexcept {
  int fanout = 0;  // group in the low half, kind and flags in the high one (packet(7))
  if (level == SOL_PACKET && name == PACKET_FANOUT && length == sizeof(fanout)) {
    std::memcpy(&fanout, value, sizeof(fanout));
    fanout &= ~(PACKET_FANOUT_FLAG_DEFRAG << 16);
    value = &fanout;
  }
  return static_cast<int>(syscall(SYS_setsockopt, fd, level, name, value, length));
}
