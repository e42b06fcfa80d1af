// Small plots for a terminal: one column for each value, drawn with block characters, or with ASCII
// where the terminal is not set to UTF-8.
#pragma once

#include <string>
#include <vector>

namespace flowkeep {

enum class Characters { kUnicode, kAscii };
// By the locale's character set.
Characters terminal_characters();

// The lines of a plot from 0 to `top`, the highest first, without axes. A value below 0 is not
// known and leaves its column empty.
std::vector<std::string> plot_columns(const std::vector<double>& values, double top, size_t lines,
                                      Characters characters);

std::string rate_text(double packets_per_s);  // "1.21 M", "240.0 k", "12"

}  // namespace flowkeep
