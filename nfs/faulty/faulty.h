// A function that misbehaves on demand: it crashes, loops or exits on packets of a chosen port and
// payload. Linked into test programs only (nfs/faulty/faulty_functions.cc).
#pragma once

#include <string>
#include <string_view>

#include "nfs/faulty/faulty.pb.h"
#include "nfs/function.h"

namespace flowkeep {

class Faulty {
 public:
  using Config = nfs::FaultyConfig;
  static constexpr std::string_view kType = "faulty";
  static constexpr Scope kScope = Scope::kFlow;
  struct Hard {};
  struct Soft {};

  static Result<Faulty> create(const Config& config, const FunctionContext& context);
  Soft make_soft() const;
  Decision open(NewFlow<Faulty>&, Soft&) const { return Decision::accept(); }
  bool still_allowed(const FlowKey&, Side, const Hard&, Soft&) const { return true; }
  void process(Burst<Faulty>& burst, Soft&) const;

 private:
  explicit Faulty(Config config) : config_(std::move(config)) {}
  bool is_chosen(const FlowPacket<Faulty>& packet) const;
  void misbehave() const;

  Config config_;
};

}  // namespace flowkeep
