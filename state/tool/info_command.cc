#include <algorithm>
#include <cstring>

#include "state/pool_check.h"
#include "state/redo_record.h"
#include "state/superblock.h"
#include "state/tool/json.h"
#include "state/tool/pool_tool.h"

namespace flowkeep {

namespace {

struct ChainFacts {
  std::string name;
  std::string state;
  uint32_t buckets;
  uint32_t attached_s;
  uint64_t flows;
  uint64_t record_pages;
  uint64_t index_pages;
  uint64_t leases;
};

struct LogFacts {
  uint32_t log;
  uint64_t newest;
  uint64_t retired;
  bool waiting;  // committed bursts that recovery would complete
  bool damaged;
};

const char* state_text(ChainState state) {
  switch (state) {
    case ChainState::kFree:
      return "free";
    case ChainState::kAttached:
      return "attached";
    case ChainState::kDropping:
      return "being dropped";
  }
  return "unknown";
}

std::vector<ChainFacts> chains_of(const Regions& regions) {
  std::vector<ChainFacts> chains;
  for (uint32_t chain = 0; chain < kMaxChains; ++chain) {
    const ChainEntry& entry = regions.chain(chain);
    if (entry.state == ChainState::kFree) continue;
    ChainFacts facts = {{entry.name, strnlen(entry.name, sizeof(entry.name))},
                        state_text(entry.state),
                        entry.buckets,
                        entry.attached_s,
                        0,
                        0,
                        0,
                        0};
    for (uint32_t bucket = 0; bucket < kMaxBuckets; ++bucket) {
      const BucketHeader& header = regions.bucket(chain, bucket);
      facts.flows += header.flows;
      facts.record_pages += header.record_pages;
      facts.index_pages += header.index_pages;
    }
    const uint32_t* leases = regions.leases(chain);
    const uint32_t* end = leases + kMaxExternalAddresses * kPortBlocks;
    facts.leases = static_cast<uint64_t>(end - leases - std::count(leases, end, 0u));
    chains.push_back(facts);
  }
  return chains;
}

std::vector<LogFacts> logs_of(const Regions& regions) {
  std::vector<LogFacts> logs;
  for (uint32_t log = 0; log < kMaxWorkerSlots; ++log) {
    const LogContents contents = read_log(regions, log);
    if (contents.newest() == 0 && !contents.damaged() && !contents.torn()) continue;
    logs.push_back({log, contents.newest(), contents.retired, contents.valid[1] > contents.retired,
                    contents.damaged()});
  }
  return logs;
}

uint64_t pages_used(const Regions& regions) {
  const uint64_t* table = regions.page_table();
  const uint64_t pages = regions.geometry().pages;
  return pages - static_cast<uint64_t>(std::count(table, table + pages, uint64_t{0}));
}

const char* superblock_text(PoolImage::SizeSource source) {
  switch (source) {
    case PoolImage::SizeSource::kSuperblock:
      return "whole";
    case PoolImage::SizeSource::kCopy:
      return "damaged; its copy is whole";
    case PoolImage::SizeSource::kFile:
      return "damaged, and its copy too";
  }
  return "unknown";
}

void print_json(const PoolImage& image, std::ostream& out) {
  const Regions regions = image.regions();
  const Geometry& geometry = regions.geometry();
  std::vector<std::string> chains, logs;
  for (const ChainFacts& chain : chains_of(regions)) {
    chains.push_back(JsonObject()
                         .add("name", chain.name)
                         .add("state", chain.state)
                         .add("buckets", chain.buckets)
                         .add("attached_at_s", chain.attached_s)
                         .add("flows", chain.flows)
                         .add("record_pages", chain.record_pages)
                         .add("index_pages", chain.index_pages)
                         .add("leases", chain.leases)
                         .text());
  }
  for (const LogFacts& log : logs_of(regions)) {
    logs.push_back(JsonObject()
                       .add("slot", log.log)
                       .add("newest", log.newest)
                       .add("retired", log.retired)
                       .add("waiting", log.waiting)
                       .add("damaged", log.damaged)
                       .text());
  }
  const uint64_t used = pages_used(regions);
  out << JsonObject()
             .add("path", image.path())
             .add("format_version", regions.superblock().version)
             .add("superblock", superblock_text(image.size_source()))
             .add("created_at_s", regions.superblock().created_s)
             .add("bytes", image.bytes())
             .add("file_bytes", image.file_bytes())
             .add("in_use", image.in_use())
             .add("medium", medium_name(image.medium()))
             .add("survives", medium_survives(image.medium()))
             .add("pages", geometry.pages)
             .add("pages_used", used)
             .add("pages_free", geometry.pages - used)
             .add("pages_at", geometry.pages_at)
             .add_json("chains", json_list(chains))
             .add_json("redo_logs", json_list(logs))
             .text()
      << "\n";
}

void print_text(const PoolImage& image, std::ostream& out) {
  const Regions regions = image.regions();
  const Geometry& geometry = regions.geometry();
  const uint64_t used = pages_used(regions);
  out << "pool        " << image.path() << (image.in_use() ? ", in use by a node" : "") << "\n"
      << "format      version " << regions.superblock().version << ", superblock "
      << superblock_text(image.size_source()) << "\n"
      << "size        " << image.bytes() << " bytes";
  if (image.file_bytes() != image.bytes()) {
    out << ", but the file has " << image.file_bytes();
  }
  out << "\n"
      << "medium      " << medium_name(image.medium()) << ": survives "
      << medium_survives(image.medium()) << "\n"
      << "geometry    " << geometry.chains << " chains of up to " << geometry.buckets
      << " buckets, " << geometry.worker_slots << " redo logs of 2 x " << geometry.redo_slot_bytes
      << " bytes, pages at " << geometry.pages_at << "\n"
      << "pages       " << used << " used, " << geometry.pages - used << " free, of "
      << geometry.page_bytes << " bytes\n";
  for (const ChainFacts& chain : chains_of(regions)) {
    out << "chain       \"" << chain.name << "\", " << chain.state << ": " << chain.flows
        << " flows, " << chain.buckets << " buckets, " << chain.record_pages << " record and "
        << chain.index_pages << " index pages, " << chain.leases << " port blocks leased\n";
  }
  for (const LogFacts& log : logs_of(regions)) {
    out << "redo log    " << log.log << ": " << log.newest << " bursts committed"
        << (log.waiting ? ", the last of them for recovery to complete" : "")
        << (log.damaged ? ", DAMAGED" : "") << "\n";
  }
}

}  // namespace

int run_info(const PoolToolOptions& options, PoolImage& image, std::ostream& out) {
  image.restore_superblock();
  (options.json ? print_json : print_text)(image, out);
  return kPoolFine;
}

}  // namespace flowkeep
