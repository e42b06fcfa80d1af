// FlowKey: the five-tuple of a packet as seen on the wire at the port where it entered, and its
// keyed hash. Addresses and ports are kept in network byte order, as big-endian integer types of
// their own that convert explicitly.
//
// An IPv6 address does not fit: in its place is a keyed fold of it, and the addresses themselves
// travel beside the key as WideAddresses. Two flows may so have the same key; they are one only if
// their addresses are equal too.
#pragma once

#include <array>
#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace flowkeep {

static_assert(std::endian::native == std::endian::little,
              "the pool format and these types assume x86-64");

struct Be16 {
  uint16_t raw = 0;  // network byte order
  static constexpr Be16 from_host(uint16_t host) { return Be16{__builtin_bswap16(host)}; }
  constexpr uint16_t host() const { return __builtin_bswap16(raw); }
  friend constexpr bool operator==(Be16, Be16) = default;
};

struct Be32 {
  uint32_t raw = 0;  // network byte order
  static constexpr Be32 from_host(uint32_t host) { return Be32{__builtin_bswap32(host)}; }
  constexpr uint32_t host() const { return __builtin_bswap32(raw); }
  friend constexpr bool operator==(Be32, Be32) = default;
};

// The port of a chain that a packet entered by.
enum class Side : uint8_t { kInside = 0, kOutside = 1 };
constexpr Side opposite(Side side) {
  return side == Side::kInside ? Side::kOutside : Side::kInside;
}

enum class Family : uint8_t { kIpv4 = 0, kIpv6 = 6 };

// Marks of keys that no packet has, for records that are found by them.
inline constexpr uint8_t kEndpointMark = 1;  // an endpoint: the remote half is zero
inline constexpr uint8_t kKeyedMark = 2;     // and above: state of a function beside the flows

// 16 bytes, no padding, compared and hashed as two 64-bit words.
// TCP, UDP: ports. ICMP echo: the identifier is in src_port and dst_port is 0 for packets from the
// inside; from the outside the identifier is in dst_port and src_port is 0 (so that the reversed
// key of a request equals the key of its reply). Other protocols: both ports 0.
struct FlowKey {
  Be32 src;  // IPv6: fold_address() of the address
  Be32 dst;
  Be16 src_port;
  Be16 dst_port;
  uint8_t protocol = 0;  // IANA protocol number
  Side side = Side::kInside;
  uint8_t mark =
      0;  // 0: of packets; otherwise of state that a function keeps under keys of its own
  Family family = Family::kIpv4;

  // The key of the answering packet, which enters by the other port.
  constexpr FlowKey reversed() const {
    return FlowKey{dst, src, dst_port, src_port, protocol, opposite(side), mark, family};
  }
  friend bool operator==(const FlowKey& a, const FlowKey& b) {
    return std::memcmp(&a, &b, sizeof(FlowKey)) == 0;
  }
};
static_assert(sizeof(FlowKey) == 16);

// The local endpoint of a flow: what its key says of the inside host, or of the external endpoint
// that stands for it.
// Made word by word: who hashes or compares it reads whole words, and would wait for smaller
// stores.
constexpr FlowKey endpoint_key(const FlowKey& key) {
  constexpr uint64_t kSource = 0xffffffff, kSourcePort = 0xffff, kMark = uint64_t{0xff} << 48;
  auto words = std::bit_cast<std::array<uint64_t, 2>>(key);
  const bool is_inside = key.side == Side::kInside;
  words[0] &= is_inside ? kSource : ~kSource;
  words[1] &= is_inside ? ~(kSourcePort << 16 | kMark) : ~(kSourcePort | kMark);
  words[1] |= uint64_t{kEndpointMark} << 48;
  return std::bit_cast<FlowKey>(words);
}
static_assert(offsetof(FlowKey, dst) == 4 && offsetof(FlowKey, src_port) == 8 &&
              offsetof(FlowKey, dst_port) == 10 && offsetof(FlowKey, mark) == 14);

// Secret of the keyed hash: drawn at random when a pool is formatted, kept in its superblock, so
// that nobody outside can aim flows at one bucket or one index group.
struct HashSecret {
  uint64_t k0 = 0;
  uint64_t k1 = 0;
};

// Two folded 64x64->128-bit multiplications (the construction of wyhash, Wang Yi, 2019).
inline uint64_t fold_multiply(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

inline uint64_t hash_words(uint64_t low, uint64_t high, HashSecret secret) {
  const uint64_t first = fold_multiply(low ^ secret.k0, high ^ secret.k1);
  return fold_multiply(first ^ secret.k1, 0x9e3779b97f4a7c15ULL ^ secret.k0);
}

inline uint64_t hash_key(const FlowKey& key, HashSecret secret) {
  uint64_t words[2];
  std::memcpy(words, &key, sizeof(words));
  return hash_words(words[0], words[1], secret);
}

using Ipv6Address = std::array<uint8_t, 16>;

// The addresses of an IPv6 packet or flow, as they lie on the wire.
struct WideAddresses {
  Ipv6Address src{};
  Ipv6Address dst{};

  constexpr WideAddresses reversed() const { return {dst, src}; }
  friend bool operator==(const WideAddresses& a, const WideAddresses& b) {
    return std::memcmp(&a, &b, sizeof(WideAddresses)) == 0;
  }
};
static_assert(sizeof(WideAddresses) == 32);

// What stands for an IPv6 address in a FlowKey. Keyed, so that nobody outside can find two
// addresses of the same fold.
inline Be32 fold_address(const Ipv6Address& address, HashSecret secret) {
  uint64_t words[2];
  std::memcpy(words, address.data(), sizeof(words));
  return Be32{static_cast<uint32_t>(hash_words(words[0], words[1], secret))};
}

// The key of an IPv6 packet, without what its upper layer adds.
inline FlowKey wide_key(const WideAddresses& addresses, uint8_t protocol, Side side,
                        HashSecret secret) {
  FlowKey key;
  key.src = fold_address(addresses.src, secret);
  key.dst = fold_address(addresses.dst, secret);
  key.protocol = protocol;
  key.side = side;
  key.family = Family::kIpv6;
  return key;
}

// Hash of an inside endpoint, the scope that NAT chains are steered by.
inline uint64_t hash_endpoint(Be32 address, Be16 port, uint8_t protocol, HashSecret secret) {
  return hash_words(address.raw, static_cast<uint64_t>(port.raw) << 8 | protocol, secret);
}

}  // namespace flowkeep
