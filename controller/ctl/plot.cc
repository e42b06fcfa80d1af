#include "controller/ctl/plot.h"

#include <langinfo.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "controller/ctl/table.h"

namespace flowkeep {
namespace {

constexpr std::array<const char*, 9> kBlocks = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr std::array<const char*, 3> kAscii = {" ", ".", "#"};

// One character of a column: how much of it is filled, from 0 to 1.
template <size_t kCount>
const char* cell(const std::array<const char*, kCount>& characters, double filled) {
  const double step = std::round(std::clamp(filled, 0.0, 1.0) * (kCount - 1));
  return characters[static_cast<size_t>(step)];
}

}  // namespace

Characters terminal_characters() {
  return std::string(nl_langinfo(CODESET)) == "UTF-8" ? Characters::kUnicode : Characters::kAscii;
}

std::vector<std::string> plot_columns(const std::vector<double>& values, double top, size_t lines,
                                      Characters characters) {
  std::vector<std::string> drawn(lines);
  for (const double value : values) {
    const double height = top <= 0 ? 0 : value / top * static_cast<double>(lines);
    for (size_t line = 0; line < lines; ++line) {
      const double filled = height - static_cast<double>(lines - 1 - line);
      drawn[line] +=
          characters == Characters::kUnicode ? cell(kBlocks, filled) : cell(kAscii, filled);
    }
  }
  return drawn;
}

std::string rate_text(double packets_per_s) {
  if (packets_per_s >= 1e6) return number_text(packets_per_s / 1e6, 2) + " M";
  if (packets_per_s >= 1e3) return number_text(packets_per_s / 1e3, 1) + " k";
  return number_text(packets_per_s, 0);
}

}  // namespace flowkeep
