#include "state/pool_check.h"
#include "state/tool/json.h"
#include "state/tool/pool_tool.h"

namespace flowkeep {

namespace {

void check_size(const PoolImage& image, Findings& findings) {
  if (image.file_bytes() == image.bytes()) return;
  findings.add(Severity::kDamage, "file", "size", std::to_string(image.file_bytes()),
               std::to_string(image.bytes()));
}

void print_text(const PoolImage& image, const Findings& findings, const PoolCounts& counts,
                std::ostream& out) {
  for (const Finding& finding : findings.listed()) out << text_of(finding) << "\n";
  if (findings.omitted() != 0) out << "... and " << findings.omitted() << " more\n";
  out << image.path() << ": " << counts.chains << " chains, " << counts.flows << " flows in "
      << counts.records << " records, " << counts.pages_claimed
      << " pages in use: " << findings.count(Severity::kDamage) << " damaged, "
      << findings.count(Severity::kWaste) << " wasted, " << findings.count(Severity::kNote)
      << " notes\n";
}

void print_json(const PoolImage& image, const Findings& findings, const PoolCounts& counts,
                std::ostream& out) {
  std::vector<std::string> listed;
  for (const Finding& finding : findings.listed()) listed.push_back(json_of(finding));
  out << JsonObject()
             .add("path", image.path())
             .add("clean", findings.clean())
             .add("in_use", image.in_use())
             .add("chains", counts.chains)
             .add("flows", counts.flows)
             .add("records", counts.records)
             .add("pages_claimed", counts.pages_claimed)
             .add("damaged", findings.count(Severity::kDamage))
             .add("wasted", findings.count(Severity::kWaste))
             .add("notes", findings.count(Severity::kNote))
             .add("omitted", findings.omitted())
             .add_json("findings", json_list(listed))
             .text()
      << "\n";
}

}  // namespace

int run_check(const PoolToolOptions& options, PoolImage& image, std::ostream& out,
              std::ostream& err) {
  if (image.in_use()) {
    err << "flowkeep-pool: " << image.path()
        << " is in use: what bursts change meanwhile may look wrong. Stop the node to be sure\n";
  }
  Findings findings;
  check_size(image, findings);
  check_superblocks(image.regions(), findings);
  image.restore_superblock();
  check_logs(image.regions(), findings);
  check_chain_directory(image.regions(), findings);
  if (!image.in_use()) image.complete();
  const PoolCounts counts = check_pool(image.regions(), findings);
  (options.json ? print_json : print_text)(image, findings, counts, out);
  return findings.clean() ? kPoolFine : kPoolFindings;
}

}  // namespace flowkeep
