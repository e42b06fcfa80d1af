// Dead letters: packets that were taken out because they kill their workers, kept in one pcapng
// file for each chain (draft-ietf-opsawg-pcapng), which tcpdump, Wireshark and scapy read.
//
// A file is a sequence of sections, one for each time that the node opened it: Section Header
// Block, an Interface Description Block for each port, an Enhanced Packet Block for each packet
// with a comment that says what it did. Every block is one write(), so that the death of the node
// leaves whole blocks; a torn end (power failure) is cut off when the file is opened again. Nothing
// is synced: dead letters are for people, not for recovery.
//
// Thread rule: one process, the supervisor; not on the path of a failover.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "nfs/packet.h"
#include "state/result.h"

namespace flowkeep {

struct DeadLetter {
  std::string chain;
  uint32_t revision = 0;
  std::string signal;  // how it ended its last worker: "SIGSEGV", "exit status 1"
  FlowKey flow;        // as the packet is addressed
  uint8_t port = 0;    // index in the node's ports
  uint64_t arrived_unix_ns = 0;
  std::vector<uint8_t> frame;  // as it came
};

// "udp 10.0.0.2:40000 > 203.0.113.2:53"
std::string flow_text(const FlowKey& flow);
// "chain=edge revision=3 signal=SIGSEGV flow=udp 10.0.0.2:40000 > 203.0.113.2:53"
std::string comment_of(const DeadLetter& letter);

// Blocks as they lie in the file.
std::string section_blocks(const std::vector<std::string>& ports);
std::string packet_block(const DeadLetter& letter);
// Bytes of the whole blocks at the beginning of `file`; 0 if it does not begin with a section
// header of this machine's byte order.
uint64_t whole_blocks(const std::string& file);

class DeadLetterOffice {
 public:
  // Makes nothing until the first letter. `limit_bytes`: of each chain's file.
  DeadLetterOffice(std::string directory, uint64_t limit_bytes, std::vector<std::string> ports)
      : directory_(std::move(directory)), limit_bytes_(limit_bytes), ports_(std::move(ports)) {}

  // The file that it was put into. Errors: the file is full, is no pcapng file, or cannot be
  // written.
  Result<std::string> keep(const DeadLetter& letter);

 private:
  Result<uint64_t> begin_section(const std::string& path);

  std::string directory_;
  uint64_t limit_bytes_;
  std::vector<std::string> ports_;
  std::map<std::string, uint64_t> bytes_;  // of the files that were opened, by path
};

}  // namespace flowkeep
