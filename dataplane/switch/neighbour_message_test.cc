#include "dataplane/switch/neighbour_message.h"

#include <gtest/gtest.h>

#include <vector>

namespace flowkeep {
namespace {

using Bytes = std::vector<uint8_t>;

constexpr Mac kMac{{2, 0, 0, 0, 0, 9}};

Ipv6Address address(const char* text) {
  return *parse_ipv6(text, "x");
}
const Ipv6Address kTarget = address("2001:db8::12:3456");
const WideAddresses kToGroup{address("2001:db8::2"), solicited_node_group(kTarget)};
const WideAddresses kToUs{address("2001:db8::2"), kTarget};
const WideAddresses kFromNobody{Ipv6Address{}, solicited_node_group(kTarget)};
const WideAddresses kToAll{kTarget, address("ff02::1")};

Bytes message(uint8_t type, uint8_t flags, uint8_t option, const Ipv6Address& target = kTarget) {
  Bytes made(NeighbourMessage::kBytes);
  made[0] = type;
  made[4] = flags;
  std::copy(target.begin(), target.end(), made.begin() + 8);
  if (option == 0) return made;
  made.push_back(option);
  made.push_back(1);
  for (const uint8_t byte : kMac.bytes) made.push_back(byte);
  return made;
}

std::optional<NeighbourMessage> read(const Bytes& bytes, const WideAddresses& addresses) {
  return NeighbourMessage::read(bytes.data(), bytes.size(), addresses);
}

TEST(NeighbourMessage, SolicitationNamesItsSender) {
  const auto found = read(message(kNeighbourSolicitation, 0, 1), kToGroup);
  ASSERT_TRUE(found);
  EXPECT_TRUE(found->is_solicitation);
  EXPECT_EQ(found->target, kTarget);
  EXPECT_EQ(found->link_layer, kMac);
  const auto plain = read(message(kNeighbourSolicitation, 0, 0), kToUs);
  ASSERT_TRUE(plain);
  EXPECT_FALSE(plain->link_layer);
  // A target's option says nothing about a sender.
  EXPECT_FALSE(read(message(kNeighbourSolicitation, 0, 2), kToUs)->link_layer);
}

TEST(NeighbourMessage, WhoHasNoAddressYetAsksTheGroupAndNamesNobody) {
  EXPECT_TRUE(read(message(kNeighbourSolicitation, 0, 0), kFromNobody));
  EXPECT_FALSE(read(message(kNeighbourSolicitation, 0, 1), kFromNobody));
  EXPECT_FALSE(read(message(kNeighbourSolicitation, 0, 0), {Ipv6Address{}, kTarget}));
}

TEST(NeighbourMessage, AdvertisementNamesItsTarget) {
  const auto found = read(message(kNeighbourAdvertisement, NeighbourMessage::kOverride, 2), kToAll);
  ASSERT_TRUE(found);
  EXPECT_FALSE(found->is_solicitation);
  EXPECT_EQ(found->flags, NeighbourMessage::kOverride);
  EXPECT_EQ(found->link_layer, kMac);
  EXPECT_TRUE(read(message(kNeighbourAdvertisement, NeighbourMessage::kSolicited, 2), kToUs));
  EXPECT_FALSE(read(message(kNeighbourAdvertisement, NeighbourMessage::kSolicited, 2), kToAll));
}

TEST(NeighbourMessage, WrongOnesAreDiscarded) {
  EXPECT_FALSE(read(message(kNeighbourSolicitation, 0, 0, address("ff02::1")), kToUs));
  EXPECT_FALSE(read(message(kRouterAdvertisement, 0, 0), kToUs));
  Bytes no_length = message(kNeighbourSolicitation, 0, 1);
  no_length[NeighbourMessage::kBytes + 1] = 0;
  EXPECT_FALSE(read(no_length, kToGroup));
  const Bytes whole = message(kNeighbourSolicitation, 0, 1);
  for (size_t length = 0; length < whole.size(); ++length) {
    const Bytes part(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(length));
    EXPECT_EQ(read(part, kToGroup).has_value(), length == NeighbourMessage::kBytes) << length;
  }
}

}  // namespace
}  // namespace flowkeep
