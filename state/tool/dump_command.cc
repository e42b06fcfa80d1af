#include <cstring>

#include "state/flow_text.h"
#include "state/pool_check.h"
#include "state/record_checksum.h"
#include "state/tool/json.h"
#include "state/tool/pool_tool.h"

namespace flowkeep {

namespace {

std::string hex(const uint8_t* bytes, size_t count) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (size_t i = 0; i < count; ++i) {
    (text += kDigits[bytes[i] >> 4]) += kDigits[bytes[i] & 15];
  }
  return text;
}

struct DumpedFlow {
  std::string chain;
  uint32_t id;
  const FlowRecord& record;
  bool whole;  // its checksum is right
};

// The names of flowkeep.v1.Flow, where it has them.
std::string json_of(const DumpedFlow& flow) {
  const FlowRecord& record = flow.record;
  return JsonObject()
      .add("chain", flow.chain)
      .add("record", flow.id)
      .add("protocol", protocol_text(record.inside_key.protocol))
      .add("inside_source", source_text(record))
      .add("destination", destination_text(record))
      .add("external", external_text(record))
      .add("phase", phase_text(record.phase))
      .add("initiator", record.initiator == Side::kInside ? "inside" : "outside")
      .add("bucket", record.bucket)
      .add("revision", record.revision)
      .add("opened_at_s", record.opened_s)
      .add("last_seen_s", record.last_seen_s)
      .add("hard", hex(record.hard, sizeof(record.hard)))
      .add("damaged", !flow.whole)
      .text();
}

std::string text_of(const DumpedFlow& flow) {
  const FlowRecord& record = flow.record;
  std::string text = flow.chain + "  " + inside_text(record);
  if (!(record.outside_key == record.inside_key.reversed())) {
    text += " as " + external_text(record);
  }
  text += "  " + std::string(phase_text(record.phase)) + "  bucket " +
          std::to_string(record.bucket) + "  revision " + std::to_string(record.revision) +
          "  opened " + std::to_string(record.opened_s) + "  seen " +
          std::to_string(record.last_seen_s);
  return flow.whole ? text : text + "  DAMAGED";
}

std::string name_of(const Regions& regions, uint32_t chain) {
  const ChainEntry& entry = regions.chain(chain);
  return {entry.name, strnlen(entry.name, sizeof(entry.name))};
}

}  // namespace

int run_dump(const PoolToolOptions& options, PoolImage& image, std::ostream& out,
             std::ostream& err) {
  const auto filter = FlowFilter::parse(options.filter);
  if (!filter) {
    err << "flowkeep-pool: " << filter.error().text() << "\n";
    return kPoolUnreadable;
  }
  image.restore_superblock();
  if (!image.in_use()) image.complete();
  const Regions regions = image.regions();
  const auto pool = Pool::over(image.base(), image.bytes());
  bool found_chain = options.chain.empty();
  for (uint32_t chain = 0; chain < kMaxChains; ++chain) {
    if (regions.chain(chain).state != ChainState::kAttached) continue;
    const std::string name = name_of(regions, chain);
    if (!options.chain.empty() && name != options.chain) continue;
    found_chain = true;
    pool->for_each_record(chain, [&](uint32_t id, const FlowRecord& record) {
      if (!filter->matches(record)) return true;
      const DumpedFlow flow{name, id, record, record.checksum == record_checksum(id, record)};
      out << (options.json ? json_of(flow) : text_of(flow)) << "\n";
      return out.good();
    });
  }
  if (found_chain) return kPoolFine;
  err << "flowkeep-pool: --chain: the pool has no chain \"" << options.chain
      << "\"; `flowkeep-pool info " << image.path() << "` lists them\n";
  return kPoolUnreadable;
}

}  // namespace flowkeep
