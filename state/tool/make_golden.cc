// Makes the golden pool of this format version: DIRECTORY/pool-vN.sparse and its flows as
// `flowkeep-pool dump --json` prints them, DIRECTORY/pool-vN.json.
//   make_golden DIRECTORY
// To be run once for each released version; state/golden_test.cc reads every file that is there.
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <sstream>

#include "state/flow_table.h"
#include "state/layout.h"
#include "state/sparse_file.h"
#include "state/tool/pool_tool.h"

namespace flowkeep {
namespace {

FlowKey inside_key(uint32_t n) {
  return {Be32::from_host(0x0a000000 + n / 4),
          Be32::from_host(0xc0000201),
          Be16::from_host(static_cast<uint16_t>(20000 + n)),
          Be16::from_host(443),
          static_cast<uint8_t>(n % 3 == 0 ? 17 : 6),
          Side::kInside,
          0};
}

void open_wide(FlowTable& table, uint32_t n) {
  const WideAddresses addresses = {
      {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, static_cast<uint8_t>(n)},
      {0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};
  FlowKey key = wide_key(addresses, 6, Side::kInside, table.hash_secret());
  key.src_port = Be16::from_host(static_cast<uint16_t>(30000 + n));
  key.dst_port = Be16::from_host(443);
  const auto opened = table.open(n % 16, key, key.reversed(), &addresses);
  if (opened.status != OpenStatus::kOk) return;
  FlowRecord& record = table.stage(opened.id);
  record.phase = FlowPhase::kEstablished;
  record.revision = 2;
  record.opened_s = 1'700'002'000 + n;
  record.last_seen_s = 1'700'003'000 + n;
}

void open(FlowTable& table, uint32_t n) {
  const uint32_t bucket = n / 64 % 16;
  table.lease_acquire(0, 16 + n / 64, bucket);
  FlowKey outside = inside_key(n).reversed();
  outside.dst = Be32::from_host(0xcb00710a);
  outside.dst_port = Be16::from_host(static_cast<uint16_t>(1024 + n));
  const auto opened = table.open(bucket, inside_key(n), outside);
  if (opened.status != OpenStatus::kOk) return;
  FlowRecord& record = table.stage(opened.id);
  record.phase = static_cast<FlowPhase>(1 + n % 5);
  record.revision = 1 + n % 2;
  record.opened_s = 1'700'000'000 + n;
  record.last_seen_s = 1'700'001'000 + n;
  std::memcpy(record.hard, &n, sizeof(n));
  const std::vector<std::byte> content(50 + n * 5, static_cast<std::byte>(n));
  if (n % 25 == 0) (void)table.set_extent(opened.id, content);
}

// The last burst is committed, and has not gone home.
void fill(Pool& pool) {
  FlowTable table(pool, 0, 3);
  for (uint32_t n = 0; n < 120; ++n) {
    open(table, n);
    table.commit({});
    table.apply();
  }
  for (uint32_t n = 0; n < 40; ++n) {
    open_wide(table, n);
    table.commit({});
    table.apply();
  }
  const FlowKey closed = inside_key(7);
  table.close(table.find(0, closed, hash_key(closed, table.hash_secret())));
  table.commit({});
  table.apply();
  open(table, 120);
  open_wide(table, 40);
  table.commit({});
}

int make(const std::string& directory) {
  const std::string name = directory + "/pool-v" + std::to_string(kPoolFormatVersion);
  const std::string path = name + ".pool";
  {
    auto pool = Pool::open({path, Pool::minimum_bytes()});
    if (!pool.ok() || !(*pool)->attach_chain("edge", 16)) {
      std::fprintf(stderr, "make_golden: %s\n", pool.ok() ? "chain" : pool.error().text().c_str());
      return 1;
    }
    fill(**pool);
    const auto* words = reinterpret_cast<const uint64_t*>((*pool)->base());
    write_sparse(name + ".sparse", {words, words + (*pool)->bytes() / sizeof(uint64_t)});
  }
  std::ofstream flows(name + ".json");
  std::ostringstream errors;
  const int status = run_pool_tool({"dump", "--json", path}, flows, errors);
  unlink(path.c_str());
  if (status != kPoolFine) std::fprintf(stderr, "%s", errors.str().c_str());
  return status;
}

}  // namespace
}  // namespace flowkeep

int main(int argc, char** argv) {
  if (argc == 2) return flowkeep::make(argv[1]);
  std::fprintf(stderr, "usage: make_golden DIRECTORY\n");
  return 2;
}
