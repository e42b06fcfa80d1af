// The reference classifier: tries one entry after the other.
#pragma once

#include "nfs/firewall/classifier.h"

namespace flowkeep {

class LinearClassifier final : public Classifier {
 public:
  Result<void> build(std::vector<ClassifierRule> rules) override;
  void classify(std::span<const HeaderTuple> tuples, std::span<uint32_t> rules) const override;

 private:
  std::vector<ClassifierRule> rules_;
};

}  // namespace flowkeep
