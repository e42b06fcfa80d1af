#include "nfs/registry.h"

#include <utility>

#include "nfs/firewall/firewall.h"
#include "nfs/json_config.h"
#include "nfs/nat44/nat44.h"

namespace flowkeep {
namespace {

using Built = Result<std::unique_ptr<AnyFunction>>;

template <typename F>
Built build(const FunctionSpec& spec, const FunctionContext& context) {
  typename F::Config config;
  if (const auto read = read_json_config(spec.config_json, context.field, config); !read.ok()) {
    return read.error();
  }
  auto function = F::create(config, context);
  if (!function.ok()) return function.error();
  return Built(std::make_unique<Function<F>>(std::move(*function)));
}

struct Entry {
  std::string_view type;
  Built (*build)(const FunctionSpec&, const FunctionContext&);
};

constexpr Entry kFunctions[] = {
    {Firewall::kType, build<Firewall>},
    {Nat44::kType, build<Nat44>},
};

}  // namespace

Built build_function(const FunctionSpec& spec, const std::string& field,
                     const FunctionContext& context) {
  FunctionContext own = context;
  own.field = field + ".config";
  std::string accepted;
  for (const Entry& entry : kFunctions) {
    if (entry.type == spec.type) return entry.build(spec, own);
    accepted.append(accepted.empty() ? "" : ", ").append(entry.type);
  }
  if (own.make_function) {
    if (auto made = own.make_function(spec.type)) return Built(std::move(made));
  }
  return invalid(field + ".type", "unknown function \"" + spec.type + "\"; accepted: " + accepted);
}

}  // namespace flowkeep
