#include "dataplane/pktgen/report.h"

#include <cmath>
#include <cstdarg>
#include <cstdio>

namespace flowkeep::pktgen {
namespace {

__attribute__((format(printf, 1, 2))) std::string format(const char* pattern, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, pattern);
  std::vsnprintf(text, sizeof(text), pattern, arguments);
  va_end(arguments);
  return text;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') {
      out += '\\';
      out += letter;
    } else if (static_cast<unsigned char>(letter) < 0x20) {
      out += format("\\u%04x", static_cast<unsigned>(letter));
    } else {
      out += letter;
    }
  }
  return out + "\"";
}

// An object's members, in order.
class JsonObject {
 public:
  void add(const char* name, const std::string& value) { member(name, quoted(value)); }
  void add(const char* name, uint64_t value) { member(name, std::to_string(value)); }
  void add(const char* name, bool value) { member(name, value ? "true" : "false"); }
  void add(const char* name, double value) {
    member(name, std::isfinite(value) ? format("%.10g", value) : "null");
  }
  void add(const char* name, const JsonObject& value) { member(name, value.text()); }
  std::string text() const { return "{" + members_ + "}"; }

 private:
  void member(const char* name, const std::string& value) {
    members_ += (members_.empty() ? "\"" : ", \"") + std::string(name) + "\": " + value;
  }
  std::string members_;
};

JsonObject latency_json(const LatencyReport& latency) {
  JsonObject json;
  json.add("packets", latency.packets);
  json.add("min", latency.min_us);
  json.add("p50", latency.p50_us);
  json.add("p90", latency.p90_us);
  json.add("p99", latency.p99_us);
  json.add("p99.9", latency.p999_us);
  json.add("max", latency.max_us);
  return json;
}

void add_path(JsonObject& json, const PathReport& path) {
  json.add("tx_packets", path.sent);
  json.add("rx_packets", path.received);
  json.add("lost", path.lost);
  json.add("lost_flows", path.lost_flows);
  json.add("duplicated", path.duplicated);
  json.add("reordered", path.reordered);
  json.add("too_late", path.too_late);
  json.add("mapping_changes", path.mapping_changes);
  json.add("latency_us", latency_json(path.latency));
}

std::string count(uint64_t value) {
  return format("%12llu", static_cast<unsigned long long>(value));
}

std::string path_table(const PathReport& path) {
  std::string text;
  const double share =
      path.sent == 0 ? 0 : 100.0 * static_cast<double>(path.lost) / static_cast<double>(path.sent);
  text += "  sent        " + count(path.sent) + "\n";
  text += "  received    " + count(path.received) + "\n";
  text += "  lost        " + count(path.lost) +
          format("  (%.4f %%, of %llu flows)\n", share,
                 static_cast<unsigned long long>(path.lost_flows));
  text += "  duplicated  " + count(path.duplicated) + "\n";
  text += "  reordered   " + count(path.reordered) + "\n";
  if (path.too_late != 0) text += "  too late    " + count(path.too_late) + "\n";
  text += "  mapping changes " +
          format("%8llu", static_cast<unsigned long long>(path.mapping_changes)) + "\n";
  const LatencyReport& latency = path.latency;
  if (latency.packets != 0)
    text += format("  latency, us   min %.1f  p50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f  max %.1f\n",
                   latency.min_us, latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us,
                   latency.max_us);
  return text;
}

}  // namespace

LatencyReport LatencyReport::of(const LatencyHistogram& ticks, double ticks_per_us) {
  const auto us = [&](uint64_t value) { return static_cast<double>(value) / ticks_per_us; };
  return {ticks.total(),           us(ticks.smallest()),     us(ticks.quantile(0.5)),
          us(ticks.quantile(0.9)), us(ticks.quantile(0.99)), us(ticks.quantile(0.999)),
          us(ticks.largest())};
}

bool PathReport::lossless() const {
  return lost == 0 && duplicated == 0 && reordered == 0 && too_late == 0;
}

bool Report::lossless() const {
  return path.lossless() && (!echo || echo->lossless()) && bad_checksum == 0;
}

std::string to_json(const Report& report) {
  JsonObject json;
  json.add("profile", report.profile);
  json.add("flows", uint64_t{report.flows});
  json.add("size", report.size_bytes);
  json.add("rate", report.rate);
  json.add("tx_device", report.tx_device);
  json.add("rx_device", report.rx_device);
  json.add("hugepages", report.hugepages);
  json.add("interrupted", report.interrupted);
  json.add("duration_s", report.duration_s);
  add_path(json, report.path);
  json.add("warmup_packets", report.warmup_packets);
  json.add("not_sent", report.not_sent);
  json.add("tx_stalled", report.tx_stalled);
  json.add("foreign", report.foreign);
  json.add("bad_checksum", report.bad_checksum);
  json.add("flows_seen", report.flows_seen);
  json.add("distinct_sources", report.distinct_sources);
  json.add("tx_pps", report.tx_pps);
  json.add("rx_pps", report.rx_pps);
  json.add("throughput_mpps", report.rx_pps / 1e6);
  json.add("throughput_gbps", report.throughput_gbps);
  json.add("longest_gap_ms", report.longest_gap_ms);
  json.add("longest_tx_gap_ms", report.longest_tx_gap_ms);
  json.add("gap_limit_ms", uint64_t{report.gap_limit_ms});
  json.add("gaps", report.gaps);
  json.add("lossless", report.lossless());
  if (report.echo) {
    JsonObject echo;
    add_path(echo, *report.echo);
    echo.add("not_sent", report.echo_not_sent);
    json.add("echo", echo);
  }
  return json.text() + "\n";
}

std::string to_table(const Report& report) {
  std::string text =
      format("%s, %u flows, %.0f-byte frames, %s, %.2f s%s\n", report.profile.c_str(), report.flows,
             report.size_bytes, report.rate.c_str(), report.duration_s,
             report.interrupted ? " (interrupted)" : "");
  text += path_table(report.path);
  text += format("  rate          sent %.4f Mpps  received %.4f Mpps  %.3f Gbit/s\n",
                 report.tx_pps / 1e6, report.rx_pps / 1e6, report.throughput_gbps);
  text += format("  longest gap   received %.2f ms (%llu longer than %u ms)  sent %.2f ms\n",
                 report.longest_gap_ms, static_cast<unsigned long long>(report.gaps),
                 report.gap_limit_ms, report.longest_tx_gap_ms);
  if (report.tagged)
    text +=
        format("  flows seen    %llu of %u, as %llu distinct sources; %llu packets of warm-up\n",
               static_cast<unsigned long long>(report.flows_seen), report.flows,
               static_cast<unsigned long long>(report.distinct_sources),
               static_cast<unsigned long long>(report.warmup_packets));
  text += format("  not sent      %llu (%llu bursts had to wait for the device)\n",
                 static_cast<unsigned long long>(report.not_sent),
                 static_cast<unsigned long long>(report.tx_stalled));
  if (report.foreign + report.bad_checksum != 0)
    text += format("  apart from these: %llu packets of others, %llu with a wrong checksum\n",
                   static_cast<unsigned long long>(report.foreign),
                   static_cast<unsigned long long>(report.bad_checksum));
  if (report.echo) {
    text += "the way back\n" + path_table(*report.echo);
    if (report.echo_not_sent != 0) text += "  not sent    " + count(report.echo_not_sent) + "\n";
  }
  return text;
}

}  // namespace flowkeep::pktgen
