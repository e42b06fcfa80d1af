#include "controller/ctl/table.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstdio>
#include <ctime>

namespace flowkeep {

Table::Table(std::vector<std::string> titles) : titles_(std::move(titles)) {
  for (std::string& title : titles_) {
    right_.push_back(title.starts_with('>'));
    if (right_.back()) title.erase(0, 1);
  }
}

void Table::add(std::vector<std::string> cells) {
  assert(cells.size() == titles_.size());
  rows_.push_back(std::move(cells));
}

void Table::print(std::ostream& out) const {
  std::vector<size_t> widths;
  for (size_t column = 0; column < titles_.size(); ++column) {
    size_t width = titles_[column].size();
    for (const auto& row : rows_) width = std::max(width, row[column].size());
    widths.push_back(width);
  }
  const auto print_row = [&](const std::vector<std::string>& row) {
    std::string line;
    for (size_t column = 0; column < row.size(); ++column) {
      const std::string gap(widths[column] - row[column].size(), ' ');
      line += (column == 0 ? "" : "   ") + (right_[column] ? gap + row[column] : row[column] + gap);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out << line << '\n';
  };
  print_row(titles_);
  for (const auto& row : rows_) print_row(row);
}

std::string age_text(double since_unix_s, double now_unix_s) {
  if (since_unix_s <= 0) return "-";
  const auto s = static_cast<int64_t>(std::max(0.0, now_unix_s - since_unix_s));
  const auto joined = [](int64_t high, const char* high_unit, int64_t low, const char* low_unit) {
    return std::to_string(high) + high_unit + (low == 0 ? "" : std::to_string(low) + low_unit);
  };
  if (s < 120) return std::to_string(s) + "s";
  if (s < 3'600) return joined(s / 60, "m", s % 60, "s");
  if (s < 86'400) return joined(s / 3'600, "h", s % 3'600 / 60, "m");
  return joined(s / 86'400, "d", s < 10 * 86'400 ? s % 86'400 / 3'600 : 0, "h");
}

std::string number_text(double value, int decimals) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f", decimals, value);
  return text.data();
}

std::string bytes_text(uint64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1'024 && unit + 1 < kUnits.size()) {
    value /= 1'024;
    ++unit;
  }
  return number_text(value, unit == 0 ? 0 : 1) + " " + kUnits[unit];
}

std::string microseconds_text(double microseconds) {
  if (microseconds < 0) return "-";
  if (microseconds < 1e3) return number_text(microseconds, microseconds < 10 ? 1 : 0) + " us";
  if (microseconds < 1e6) return number_text(microseconds / 1e3, 2) + " ms";
  return number_text(microseconds / 1e6, 2) + " s";
}

std::string time_text(double unix_s) {
  const auto seconds = static_cast<std::time_t>(unix_s);
  std::tm local = {};
  ::localtime_r(&seconds, &local);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &local);
  return text.data();
}

}  // namespace flowkeep
