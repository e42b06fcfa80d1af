#include "dataplane/dead_letter.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "dataplane/node_config.h"

namespace flowkeep {
namespace {

// Block types and options of draft-ietf-opsawg-pcapng, sections 3.5 and 4.1 to 4.3.
constexpr uint32_t kSectionHeader = 0x0a0d0d0a;
constexpr uint32_t kInterfaceDescription = 1;
constexpr uint32_t kEnhancedPacket = 6;
constexpr uint32_t kByteOrderMagic = 0x1a2b3c4d;
constexpr uint16_t kOptionEnd = 0;
constexpr uint16_t kOptionComment = 1;
constexpr uint16_t kSectionApplication = 4;
constexpr uint16_t kInterfaceName = 2;
constexpr uint16_t kInterfaceResolution = 9;
constexpr uint16_t kLinkTypeEthernet = 1;
constexpr char kNanoseconds = 9;  // if_tsresol: 10^-9 s

template <typename Word>
void put(std::string& block, Word word) {
  block.append(reinterpret_cast<const char*>(&word), sizeof(word));
}

void pad(std::string& block) {
  block.append((4 - block.size() % 4) % 4, '\0');
}

void put_option(std::string& block, uint16_t code, std::string_view value) {
  put(block, code);
  put(block, static_cast<uint16_t>(value.size()));
  block.append(value);
  pad(block);
}

// Type and total length around the body, which is a multiple of 4 bytes.
std::string framed(uint32_t type, const std::string& body) {
  const auto total = static_cast<uint32_t>(body.size() + 12);
  std::string block;
  put(block, type);
  put(block, total);
  block += body;
  put(block, total);
  return block;
}

std::string protocol_text(uint8_t protocol) {
  if (protocol == kProtocolTcp) return "tcp";
  if (protocol == kProtocolUdp) return "udp";
  if (protocol == kProtocolIcmp) return "icmp";
  return std::to_string(protocol);
}

Error cannot_write(const std::string& path) {
  return unavailable("dead_letters.directory",
                     path + " cannot be written: " + std::strerror(errno));
}

bool append(const std::string& path, const std::string& bytes) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return false;
  const bool written = write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
  const int reason = errno;
  close(fd);
  errno = reason;
  return written;
}

}  // namespace

std::string flow_text(const FlowKey& flow) {
  return protocol_text(flow.protocol) + " " + format_ipv4(flow.src) + ":" +
         std::to_string(flow.src_port.host()) + " > " + format_ipv4(flow.dst) + ":" +
         std::to_string(flow.dst_port.host());
}

std::string comment_of(const DeadLetter& letter) {
  return "chain=" + letter.chain + " revision=" + std::to_string(letter.revision) +
         " signal=" + letter.signal + " flow=" + flow_text(letter.flow);
}

std::string section_blocks(const std::vector<std::string>& ports) {
  std::string section;
  put(section, kByteOrderMagic);
  put(section, uint16_t{1});  // version 1.0
  put(section, uint16_t{0});
  put(section, UINT64_MAX);  // length of the section: not said
  put_option(section, kSectionApplication, "flowkeep");
  put_option(section, kOptionEnd, "");
  std::string blocks = framed(kSectionHeader, section);
  for (const std::string& name : ports) {
    std::string port;
    put(port, kLinkTypeEthernet);
    put(port, uint16_t{0});
    put(port, uint32_t{0});  // no limit to a packet's captured bytes
    put_option(port, kInterfaceName, name);
    put_option(port, kInterfaceResolution, std::string_view(&kNanoseconds, 1));
    put_option(port, kOptionEnd, "");
    blocks += framed(kInterfaceDescription, port);
  }
  return blocks;
}

std::string packet_block(const DeadLetter& letter) {
  std::string packet;
  put(packet, uint32_t{letter.port});
  put(packet, static_cast<uint32_t>(letter.arrived_unix_ns >> 32));
  put(packet, static_cast<uint32_t>(letter.arrived_unix_ns));
  put(packet, static_cast<uint32_t>(letter.frame.size()));  // captured
  put(packet, static_cast<uint32_t>(letter.frame.size()));  // on the wire
  packet.append(letter.frame.begin(), letter.frame.end());
  pad(packet);
  put_option(packet, kOptionComment, comment_of(letter));
  put_option(packet, kOptionEnd, "");
  return framed(kEnhancedPacket, packet);
}

uint64_t whole_blocks(const std::string& file) {
  const auto word = [&file](uint64_t at) {
    uint32_t value = 0;
    std::memcpy(&value, file.data() + at, sizeof(value));
    return value;
  };
  if (file.size() < 12 || word(0) != kSectionHeader || word(8) != kByteOrderMagic) return 0;
  uint64_t end = 0;
  while (file.size() - end >= 12) {
    const uint64_t total = word(end + 4);
    if (total < 12 || total % 4 != 0 || total > file.size() - end) break;
    if (word(end + total - 4) != total) break;
    end += total;
  }
  return end;
}

// What an earlier node left is kept, and a section of this one's appended.
Result<uint64_t> DeadLetterOffice::begin_section(const std::string& path) {
  std::error_code ignored;
  std::filesystem::create_directories(directory_, ignored);
  std::ifstream before(path, std::ios::binary);
  const std::string old((std::istreambuf_iterator<char>(before)), {});
  const uint64_t whole = whole_blocks(old);
  if (whole == 0 && !old.empty()) {
    return unavailable("dead_letters.directory",
                       path + " is no pcapng file of this machine's byte order; move it away");
  }
  if (whole < old.size() && truncate(path.c_str(), static_cast<off_t>(whole)) != 0)
    return cannot_write(path);
  const std::string section = section_blocks(ports_);
  if (!append(path, section)) return cannot_write(path);
  return whole + section.size();
}

Result<std::string> DeadLetterOffice::keep(const DeadLetter& letter) {
  const std::string path =
      (std::filesystem::path(directory_) / (letter.chain + ".pcapng")).string();
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) bytes_.erase(path);  // never made, or moved away
  if (!bytes_.contains(path)) {
    Result<uint64_t> begun = begin_section(path);
    if (!begun) return begun.error();
    bytes_[path] = *begun;
  }
  const std::string block = packet_block(letter);
  if (bytes_[path] + block.size() > limit_bytes_) {
    return unavailable("dead_letters.limit_mib",
                       path + " has reached " + std::to_string(limit_bytes_ >> 20) + " MiB");
  }
  if (!append(path, block)) {
    bytes_.erase(path);  // what was written of the block is cut off by the next letter
    return cannot_write(path);
  }
  bytes_[path] += block.size();
  return path;
}

}  // namespace flowkeep
