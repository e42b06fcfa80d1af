#include "dataplane/acl_classifier.h"

#include <rte_acl.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_memory.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <string>

namespace flowkeep {
namespace {

// What rte_acl searches, in network order. It reads the first field as one byte and then 4 bytes
// for each input index. `Words`: of an address.
template <size_t Words>
struct AclTuple {
  uint8_t protocol;
  uint8_t unread[3];
  uint8_t side;  // 1 from the inside, 2 from the outside
  uint8_t tcp_flags;
  uint8_t zero[2];
  uint32_t src[Words];
  uint32_t dst[Words];
  uint16_t src_port;
  uint16_t dst_port;
};
static_assert(sizeof(AclTuple<1>) == 20 && sizeof(AclTuple<4>) == 44);

constexpr uint8_t kProtocol = 0, kSideAndFlags = 1, kSource = 2;

template <size_t Words>
constexpr uint8_t kFields = 2 + 2 * Words + 2;

template <size_t Words>
constexpr std::array<rte_acl_field_def, kFields<Words>> layout() {
  using Tuple = AclTuple<Words>;
  std::array<rte_acl_field_def, kFields<Words>> fields{};
  fields[kProtocol] = {RTE_ACL_FIELD_TYPE_BITMASK, 1, kProtocol, 0, offsetof(Tuple, protocol)};
  fields[kSideAndFlags] = {RTE_ACL_FIELD_TYPE_BITMASK, 4, kSideAndFlags, 1, offsetof(Tuple, side)};
  uint8_t input = 2;
  for (uint8_t word = 0; word < 2 * Words; ++word, ++input) {
    const auto field = static_cast<uint8_t>(kSource + word);
    fields[field] = {RTE_ACL_FIELD_TYPE_MASK, 4, field, input,
                     static_cast<uint32_t>(offsetof(Tuple, src) + 4 * word)};
  }
  const auto src_port = static_cast<uint8_t>(kSource + 2 * Words);
  const auto dst_port = static_cast<uint8_t>(src_port + 1);
  fields[src_port] = {RTE_ACL_FIELD_TYPE_RANGE, 2, src_port, input, offsetof(Tuple, src_port)};
  fields[dst_port] = {RTE_ACL_FIELD_TYPE_RANGE, 2, dst_port, input, offsetof(Tuple, dst_port)};
  return fields;
}

// As RTE_ACL_RULE_DEF declares it.
template <size_t Words>
struct AclRule {
  rte_acl_rule_data data;
  rte_acl_field field[kFields<Words>];
};
static_assert(sizeof(AclRule<1>) == RTE_ACL_RULE_SZ(kFields<1>));

constexpr unsigned kSearchBurst = 64;
// Limits of one table. The private EAL has kEalMebibytes for all of them.
constexpr size_t kTriedEntries = 1000;  // more than these are tried in a child first
constexpr rlim_t kBuildSeconds = 60;    // of processor time
constexpr rlim_t kBuildBytes = rlim_t{3} << 30;
constexpr size_t kTableBytes = size_t{512} << 20;
constexpr const char* kEalMebibytes = "1024";
constexpr rlim_t kEalBytes = rlim_t{1024} << 20;

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
                         const_cast<char*>(kEalMebibytes),
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

uint32_t word_of(const AddressBytes& address, size_t word) {
  Be32 value;
  std::memcpy(&value.raw, address.data() + 4 * word, sizeof(value.raw));
  return value.host();
}

// A prefix over words of 32 bits each.
template <size_t Words>
void set_prefix(rte_acl_field* fields, const AddressBytes& address, uint8_t bits) {
  for (size_t word = 0; word < Words; ++word) {
    const int left = std::clamp(static_cast<int>(bits) - static_cast<int>(32 * word), 0, 32);
    fields[word].value.u32 = word_of(address, word);
    fields[word].mask_range.u32 = static_cast<uint32_t>(left);
  }
}

// As the four bytes of the tuple lie in it, read as a number in network order.
uint32_t side_and_flags(uint8_t side, uint8_t flags) {
  return static_cast<uint32_t>(side) << 24 | static_cast<uint32_t>(flags) << 16;
}

template <size_t Words>
AclRule<Words> acl_rule(const ClassifierRule& rule, int32_t priority) {
  AclRule<Words> acl{};
  acl.data.category_mask = 1;
  acl.data.priority = priority;
  acl.data.userdata = rule.rule + 1;  // 0 is rte_acl's "no match"
  acl.field[kProtocol].value.u8 = rule.protocol;
  acl.field[kProtocol].mask_range.u8 = rule.any_protocol ? 0 : 0xff;
  acl.field[kSideAndFlags].value.u32 =
      side_and_flags(rule.direction == RuleDirection::kAny           ? 0
                     : rule.direction == RuleDirection::kFromOutside ? 2
                                                                     : 1,
                     rule.tcp_flags);
  acl.field[kSideAndFlags].mask_range.u32 =
      side_and_flags(rule.direction == RuleDirection::kAny ? 0 : 0xff, rule.tcp_flags_mask);
  set_prefix<Words>(&acl.field[kSource], rule.src, rule.src_bits);
  set_prefix<Words>(&acl.field[kSource + Words], rule.dst, rule.dst_bits);
  rte_acl_field* ports = &acl.field[kSource + 2 * Words];
  ports[0].value.u16 = rule.src_port_first;
  ports[0].mask_range.u16 = rule.src_port_last;
  ports[1].value.u16 = rule.dst_port_first;
  ports[1].mask_range.u16 = rule.dst_port_last;
  return acl;
}

template <size_t Words>
AclTuple<Words> acl_tuple(const HeaderTuple& tuple) {
  AclTuple<Words> acl{};
  acl.protocol = tuple.protocol;
  acl.side = tuple.side == Side::kInside ? 1 : 2;
  acl.tcp_flags = tuple.tcp_flags;
  std::memcpy(acl.src, tuple.src.data(), sizeof(acl.src));
  std::memcpy(acl.dst, tuple.dst.data(), sizeof(acl.dst));
  acl.src_port = Be16::from_host(tuple.src_port).raw;
  acl.dst_port = Be16::from_host(tuple.dst_port).raw;
  return acl;
}

// Earlier rules win.
template <size_t Words>
std::vector<AclRule<Words>> acl_rules(const std::vector<ClassifierRule>& rules) {
  std::vector<AclRule<Words>> acl;
  for (const ClassifierRule& rule : rules) {
    const auto priority = static_cast<int32_t>(rules.size() - acl.size());
    acl.push_back(acl_rule<Words>(rule, priority));
  }
  return acl;
}

std::string table_text(const std::vector<ClassifierRule>& rules) {
  return "the " + std::string(rules.front().family == AddressFamily::kIpv4 ? "IPv4" : "IPv6") +
         " table of " + std::to_string(rules.size()) + " rule entries";
}

// Of entries of one family; nullptr if there are none.
template <size_t Words>
Result<rte_acl_ctx*> build_table(const std::vector<ClassifierRule>& rules) {
  const auto fail = [&rules](const char* what, int code) {
    return internal_error("rules",
                          table_text(rules) + ": " + what + ": " + rte_strerror(std::abs(code)));
  };
  static unsigned contexts = 0;  // one for each family: the names must differ
  const std::string name = "acl" + std::to_string(Words) + "-" + std::to_string(contexts++);
  rte_acl_param parameters{};
  parameters.name = name.c_str();
  parameters.socket_id = SOCKET_ID_ANY;
  parameters.rule_size = RTE_ACL_RULE_SZ(kFields<Words>);
  parameters.max_rule_num = static_cast<uint32_t>(rules.size());
  rte_acl_ctx* context = rte_acl_create(&parameters);
  if (context == nullptr) return fail("rte_acl_create", rte_errno);
  const std::vector<AclRule<Words>> acl = acl_rules<Words>(rules);
  int code = rte_acl_add_rules(context, reinterpret_cast<const rte_acl_rule*>(acl.data()),
                               static_cast<uint32_t>(acl.size()));
  const char* step = "rte_acl_add_rules";
  if (code == 0) {
    rte_acl_config config{};
    config.num_categories = 1;
    config.num_fields = kFields<Words>;
    config.max_size = kTableBytes;
    std::ranges::copy(layout<Words>(), config.defs);
    code = rte_acl_build(context, &config);
    step = "rte_acl_build";
  }
  if (code == 0) return context;
  rte_acl_free(context);
  return fail(step, code);
}

// EAL's memory is a shared mapping without huge pages too, while what describes it is each
// process's own: what a child allocates would be lost to its parent, and what it was about to write
// when it was killed would be found by it.
bool make_eal_memory_private() {
  return rte_memseg_list_walk(
             [](const rte_memseg_list* list, void*) {
               if (list->external != 0) return 0;
               const int fd = rte_memseg_get_fd(rte_mem_virt2memseg(list->base_va, list));
               const int flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE;
               return fd >= 0 && mmap(list->base_va, list->len, PROT_READ | PROT_WRITE, flags, fd,
                                      0) != MAP_FAILED
                          ? 0
                          : -1;
             },
             nullptr) == 0;
}

// In the child of try_table(): its exit status.
template <size_t Words>
int try_build(const std::vector<ClassifierRule>& rules, pid_t parent) {
  // It has inherited the state pool's lock, and may not keep it longer than its parent does.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) return 1;
  const rlimit cpu{kBuildSeconds, kBuildSeconds};
  const rlimit memory{kBuildBytes + kEalBytes, kBuildBytes + kEalBytes};
  setrlimit(RLIMIT_CPU, &cpu);
  setrlimit(RLIMIT_DATA, &memory);
  return make_eal_memory_private() && build_table<Words>(rules).ok() ? 0 : 1;
}

// Would the table be built within the limits? Tried in a child, which is killed if not.
template <size_t Words>
Result<void> try_table(const std::vector<ClassifierRule>& rules) {
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) return internal_error("rules", std::string("fork: ") + std::strerror(errno));
  if (child == 0) _exit(try_build<Words>(rules, parent));
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  const bool too_slow =
      WIFSIGNALED(status) && (WTERMSIG(status) == SIGXCPU || WTERMSIG(status) == SIGKILL);
  return invalid("rules",
                 table_text(rules) + " would take more than " +
                     (too_slow ? std::to_string(kBuildSeconds) + " s of processor time to build"
                               : std::to_string(kTableBytes >> 20) + " MiB") +
                     "; accepted: fewer rules, or fewer different prefix lengths and port ranges");
}

template <size_t Words>
Result<rte_acl_ctx*> make_table(const std::vector<ClassifierRule>& rules) {
  if (rules.empty()) return static_cast<rte_acl_ctx*>(nullptr);
  if (rules.size() > RTE_ACL_MAX_PRIORITY) return invalid("rules", "too many rule entries");
  if (!start_private_eal()) {
    return internal_error(
        "rules", std::string("starting EAL for the search tables: ") + rte_strerror(rte_errno));
  }
  if (rules.size() > kTriedEntries) {
    if (const auto tried = try_table<Words>(rules); !tried.ok()) return tried.error();
  }
  return build_table<Words>(rules);
}

// The tuples of one family, in bursts.
template <size_t Words>
void search(const rte_acl_ctx* context, AddressFamily family, std::span<const HeaderTuple> tuples,
            std::span<uint32_t> rules) {
  if (context == nullptr) return;
  for (size_t next = 0; next < tuples.size();) {
    AclTuple<Words> searched[kSearchBurst];
    const uint8_t* pointers[kSearchBurst];
    size_t places[kSearchBurst];
    uint32_t found[kSearchBurst];
    unsigned count = 0;
    for (; next < tuples.size() && count < kSearchBurst; ++next) {
      if (tuples[next].family != family) continue;
      searched[count] = acl_tuple<Words>(tuples[next]);
      pointers[count] = reinterpret_cast<const uint8_t*>(&searched[count]);
      places[count++] = next;
    }
    if (count == 0) return;
    rte_acl_classify(context, pointers, found, count, 1);
    for (unsigned i = 0; i < count; ++i) {
      if (found[i] != 0) rules[places[i]] = found[i] - 1;
    }
  }
}

}  // namespace

AclClassifier::~AclClassifier() {
  rte_acl_free(ipv4_);
  rte_acl_free(ipv6_);
}

Result<void> AclClassifier::build(std::vector<ClassifierRule> rules) {
  const auto middle = std::stable_partition(rules.begin(), rules.end(), [](const auto& rule) {
    return rule.family == AddressFamily::kIpv4;
  });
  const std::vector<ClassifierRule> wide(middle, rules.end());
  rules.erase(middle, rules.end());
  const auto ipv4 = make_table<1>(rules);
  if (!ipv4.ok()) return ipv4.error();
  ipv4_ = *ipv4;
  const auto ipv6 = make_table<4>(wide);
  if (!ipv6.ok()) return ipv6.error();
  ipv6_ = *ipv6;
  return {};
}

void AclClassifier::classify(std::span<const HeaderTuple> tuples, std::span<uint32_t> rules) const {
  std::ranges::fill(rules, kNoRule);
  search<1>(ipv4_, AddressFamily::kIpv4, tuples, rules);
  search<4>(ipv6_, AddressFamily::kIpv6, tuples, rules);
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
