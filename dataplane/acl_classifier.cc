#include "dataplane/acl_classifier.h"

#include <rte_acl.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_memory.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <string>

namespace flowkeep {
namespace {

// What rte_acl searches, in network order. It reads the first field as one byte and then 4 bytes
// for each input index.
struct AclTuple {
  uint8_t protocol;
  uint8_t unread[3];
  uint32_t side;  // 1 from the inside, 2 from the outside
  uint32_t src;
  uint32_t dst;
  uint16_t src_port;
  uint16_t dst_port;
};
static_assert(sizeof(AclTuple) == 20);

enum Field : uint8_t {
  kProtocol,
  kSide,
  kSource,
  kDestination,
  kSourcePort,
  kDestinationPort,
  kFields
};

constexpr rte_acl_field_def kLayout[kFields] = {
    {RTE_ACL_FIELD_TYPE_BITMASK, 1, kProtocol, 0, offsetof(AclTuple, protocol)},
    {RTE_ACL_FIELD_TYPE_BITMASK, 4, kSide, 1, offsetof(AclTuple, side)},
    {RTE_ACL_FIELD_TYPE_MASK, 4, kSource, 2, offsetof(AclTuple, src)},
    {RTE_ACL_FIELD_TYPE_MASK, 4, kDestination, 3, offsetof(AclTuple, dst)},
    {RTE_ACL_FIELD_TYPE_RANGE, 2, kSourcePort, 4, offsetof(AclTuple, src_port)},
    {RTE_ACL_FIELD_TYPE_RANGE, 2, kDestinationPort, 4, offsetof(AclTuple, dst_port)},
};
RTE_ACL_RULE_DEF(AclRule, kFields);

constexpr unsigned kSearchBurst = 64;

bool start_private_eal() {
  static const bool kStarted = [] {
    std::string prefix = "flowkeep-zygote-" + std::to_string(getpid());
    std::string name = "flowkeep-zygote";
    char* arguments[] = {name.data(),
                         const_cast<char*>("--no-huge"),
                         const_cast<char*>("--no-shconf"),
                         const_cast<char*>("--no-telemetry"),
                         const_cast<char*>("--no-pci"),
                         const_cast<char*>("-m"),
                         const_cast<char*>("512"),
                         const_cast<char*>("--file-prefix"),
                         prefix.data(),
                         const_cast<char*>("--log-level"),
                         const_cast<char*>("*:3")};
    const bool up = rte_eal_init(static_cast<int>(std::size(arguments)), arguments) >= 0;
    std::error_code ignored;
    std::filesystem::remove_all("/var/run/dpdk/" + prefix, ignored);
    return up;
  }();
  return kStarted;
}

uint32_t prefix_mask(uint8_t bits) {
  return bits == 0 ? 0 : ~uint32_t{0} << (32 - bits);
}

AclRule acl_rule(const ClassifierRule& rule, int32_t priority) {
  AclRule acl{};
  acl.data.category_mask = 1;
  acl.data.priority = priority;
  acl.data.userdata = rule.rule + 1;  // 0 is rte_acl's "no match"
  acl.field[kProtocol].value.u8 = rule.protocol;
  acl.field[kProtocol].mask_range.u8 = rule.protocol == 0 ? 0 : 0xff;
  acl.field[kSide].value.u32 = rule.direction == RuleDirection::kFromOutside ? 2 : 1;
  acl.field[kSide].mask_range.u32 = rule.direction == RuleDirection::kAny ? 0 : 0xff;
  acl.field[kSource].value.u32 = rule.src.host() & prefix_mask(rule.src_bits);
  acl.field[kSource].mask_range.u32 = rule.src_bits;
  acl.field[kDestination].value.u32 = rule.dst.host() & prefix_mask(rule.dst_bits);
  acl.field[kDestination].mask_range.u32 = rule.dst_bits;
  acl.field[kSourcePort].value.u16 = rule.src_port_first;
  acl.field[kSourcePort].mask_range.u16 = rule.src_port_last;
  acl.field[kDestinationPort].value.u16 = rule.dst_port_first;
  acl.field[kDestinationPort].mask_range.u16 = rule.dst_port_last;
  return acl;
}

}  // namespace

AclClassifier::~AclClassifier() {
  rte_acl_free(context_);
}

Result<void> AclClassifier::build(std::vector<ClassifierRule> rules) {
  if (rules.empty()) return {};
  const auto fail = [&rules](const char* what, int code) {
    return internal_error("rules", std::string(what) + " of " + std::to_string(rules.size()) +
                                       " rule entries failed: " + rte_strerror(std::abs(code)));
  };
  if (rules.size() > RTE_ACL_MAX_PRIORITY) return invalid("rules", "too many rule entries");
  if (!start_private_eal()) return fail("starting EAL for the search tables", rte_errno);
  static unsigned contexts = 0;
  const std::string name = "acl" + std::to_string(contexts++);
  rte_acl_param parameters{};
  parameters.name = name.c_str();
  parameters.socket_id = SOCKET_ID_ANY;
  parameters.rule_size = RTE_ACL_RULE_SZ(kFields);
  parameters.max_rule_num = static_cast<uint32_t>(rules.size());
  context_ = rte_acl_create(&parameters);
  if (context_ == nullptr) return fail("rte_acl_create", rte_errno);
  std::vector<AclRule> acl_rules;
  acl_rules.reserve(rules.size());
  auto priority = static_cast<int32_t>(rules.size());  // earlier rules win
  for (const ClassifierRule& rule : rules) acl_rules.push_back(acl_rule(rule, priority--));
  int code = rte_acl_add_rules(context_, reinterpret_cast<const rte_acl_rule*>(acl_rules.data()),
                               static_cast<uint32_t>(acl_rules.size()));
  if (code != 0) return fail("rte_acl_add_rules", code);
  rte_acl_config config{};
  config.num_categories = 1;
  config.num_fields = kFields;
  std::copy(std::begin(kLayout), std::end(kLayout), config.defs);
  code = rte_acl_build(context_, &config);
  if (code != 0) return fail("rte_acl_build", code);
  return {};
}

void AclClassifier::classify(std::span<const FlowKey> tuples, std::span<uint32_t> rules) const {
  for (size_t begin = 0; begin < tuples.size(); begin += kSearchBurst) {
    const auto count = static_cast<unsigned>(std::min<size_t>(kSearchBurst, tuples.size() - begin));
    AclTuple searched[kSearchBurst];
    const uint8_t* pointers[kSearchBurst];
    uint32_t found[kSearchBurst] = {};
    for (unsigned i = 0; i < count; ++i) {
      const FlowKey& key = tuples[begin + i];
      const uint32_t side = Be32::from_host(key.side == Side::kInside ? 1 : 2).raw;
      searched[i] = {key.protocol,    {}, side, key.src.raw, key.dst.raw, key.src_port.raw,
                     key.dst_port.raw};
      pointers[i] = reinterpret_cast<const uint8_t*>(&searched[i]);
    }
    if (context_ != nullptr) rte_acl_classify(context_, pointers, found, count, 1);
    for (unsigned i = 0; i < count; ++i) rules[begin + i] = found[i] == 0 ? kNoRule : found[i] - 1;
  }
}

void protect_acl_tables() {
  rte_memseg_list_walk(
      [](const rte_memseg_list* list, void*) {
        if (list->external == 0) mprotect(list->base_va, list->len, PROT_READ);
        return 0;
      },
      nullptr);
}

}  // namespace flowkeep
