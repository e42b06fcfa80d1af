// AclClassifier: the firewall's rule search by DPDK's rte_acl.
//
// rte_acl builds its tables in EAL memory, so the first build() of a process starts a private EAL
// without huge pages, ports or shared files. Built in a zygote; workers, forked afterwards, only
// classify, which calls nothing that allocates or locks.
#pragma once

#include <memory>

#include "nfs/firewall/classifier.h"

struct rte_acl_ctx;

namespace flowkeep {

class AclClassifier final : public Classifier {
 public:
  AclClassifier() = default;
  ~AclClassifier() override;
  AclClassifier(const AclClassifier&) = delete;
  AclClassifier& operator=(const AclClassifier&) = delete;

  // Errors: rte_acl refuses a rule or runs out of memory.
  Result<void> build(std::vector<ClassifierRule> rules) override;
  void classify(std::span<const FlowKey> tuples, std::span<uint32_t> rules) const override;

 private:
  rte_acl_ctx* context_ = nullptr;
};

// Makes all of the private EAL's memory read-only in this process and those forked from it: a
// worker's wild store cannot change the tables that others use. No more build() afterwards.
void protect_acl_tables();

}  // namespace flowkeep
