// Text for people: aligned tables and short forms of quantities.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

namespace flowkeep {

// Columns are as wide as their widest cell; those whose title begins with '>' are aligned to the
// right.
class Table {
 public:
  explicit Table(std::vector<std::string> titles);
  void add(std::vector<std::string> cells);
  bool empty() const { return rows_.empty(); }
  void print(std::ostream& out) const;

 private:
  std::vector<std::string> titles_;
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;
};

// "42s", "3m12s", "5h10m", "12d"; "-" for a time that is not known (0).
std::string age_text(double since_unix_s, double now_unix_s);
std::string number_text(double value, int decimals);
std::string bytes_text(uint64_t bytes);              // "256.0 MiB"
std::string microseconds_text(double microseconds);  // "87 us", "1.20 ms", "2.31 s"; "-" below 0
std::string time_text(double unix_s);                // "2026-05-01 12:00:00" local time

}  // namespace flowkeep
