#include "nfs/faulty/faulty.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace flowkeep {
namespace {

constexpr std::array<std::string_view, 6> kFaults = {"SIGSEGV", "SIGILL", "SIGFPE",
                                                     "SIGSYS",  "exit",   "loop"};

}  // namespace

Result<Faulty> Faulty::create(const Config& config, const FunctionContext& context) {
  if (std::find(kFaults.begin(), kFaults.end(), config.fault()) == kFaults.end())
    return invalid(context.field + ".fault", "\"" + config.fault() + "\" is no fault");
  return Faulty(config);
}

Faulty::Soft Faulty::make_soft() const {
  if (config_.at_start()) misbehave();
  return {};
}

bool Faulty::is_chosen(const FlowPacket<Faulty>& packet) const {
  const PacketMeta& meta = packet.meta();
  if (config_.port() != 0 && packet.inside_key().dst_port.host() != config_.port()) return false;
  const std::string& wanted = config_.payload();
  const size_t begin = meta.l4_offset + sizeof(UdpHeader);
  return wanted.empty() ||
         (meta.key.protocol == kProtocolUdp && begin + wanted.size() <= meta.length &&
          std::memcmp(packet.bytes() + begin, wanted.data(), wanted.size()) == 0);
}

void Faulty::process(Burst<Faulty>& burst, Soft&) const {
  if (burst.side() != Side::kInside || config_.at_start()) return;
  burst.for_each([this](FlowPacket<Faulty>& packet) {
    if (!is_chosen(packet)) return;
    packet.edit()[0] ^= 0xff;  // what the packet was like must come from the undo log
    misbehave();
  });
}

void Faulty::misbehave() const {
  const std::string& fault = config_.fault();
  if (fault == "SIGSEGV") *reinterpret_cast<volatile int*>(8) = 1;
  if (fault == "SIGILL") __builtin_trap();
  if (fault == "SIGFPE")
    __asm__ volatile("xor %%edx, %%edx; xor %%ecx, %%ecx; div %%ecx" ::: "eax", "ecx", "edx");
  if (fault == "SIGSYS") syscall(SYS_getppid);
  if (fault == "exit") _exit(0);
  for (;;) __asm__ volatile("pause");
}

}  // namespace flowkeep
