// Sparse files: a pool's non-zero words, for the tree. Bytes: size of the pool, 8; then for each
// run of non-zero 8-byte words its offset, 8, its count of words, 8, and the words. Little-endian.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

namespace flowkeep {

inline void write_sparse(const std::string& path, const std::vector<uint64_t>& words) {
  std::ofstream file(path, std::ios::binary);
  const auto put = [&](const uint64_t* from, size_t count) {
    file.write(reinterpret_cast<const char*>(from),
               static_cast<std::streamsize>(count * sizeof(*from)));
  };
  const uint64_t bytes = words.size() * sizeof(uint64_t);
  put(&bytes, 1);
  for (size_t at = 0; at < words.size();) {
    size_t end = at;
    while (end < words.size() && words[end] != 0) ++end;
    if (end != at) {
      const uint64_t run[2] = {at * sizeof(uint64_t), end - at};
      put(run, 2);
      put(&words[at], end - at);
    }
    at = end + 1;
  }
}

// Empty: not a sparse file.
inline std::vector<uint64_t> read_sparse(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const auto get = [&](uint64_t* to, size_t count) {
    file.read(reinterpret_cast<char*>(to), static_cast<std::streamsize>(count * sizeof(*to)));
    return file.good();
  };
  uint64_t bytes = 0;
  if (!get(&bytes, 1) || bytes > uint64_t{1} << 30) return {};
  std::vector<uint64_t> words(bytes / sizeof(uint64_t));
  for (uint64_t run[2]; get(run, 2);) {
    const uint64_t first = run[0] / sizeof(uint64_t);
    if (first > words.size() || run[1] > words.size() - first) return {};
    if (!get(&words[first], run[1])) return {};
  }
  return words;
}

}  // namespace flowkeep
