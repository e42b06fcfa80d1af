// AclClassifier: the firewall's rule search by DPDK's rte_acl, a table for each address family.
//
// Large tables are first built in a child that is ended when it takes too long or too much memory:
// some combinations of rules need a thousand times the room of others, and rte_acl itself cannot be
// told to stop. A refused table costs the time limit and nothing else.
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

  // Errors: rte_acl refuses a rule; the tables would need more than the limits.
  Result<void> build(std::vector<ClassifierRule> rules) override;
  void classify(std::span<const HeaderTuple> tuples, std::span<uint32_t> rules) const override;

 private:
  rte_acl_ctx* ipv4_ = nullptr;
  rte_acl_ctx* ipv6_ = nullptr;
};

// Makes all of the private EAL's memory read-only in this process and those forked from it: a
// worker's wild store cannot change the tables that others use. No more build() afterwards.
void protect_acl_tables();

}  // namespace flowkeep
