"""`flowkeep bench storm`: workers killed at random under load, and nothing lost.

Two chains on one node: a generator sends numbered packets through one, curl and iperf3 use the other; `drill
storm` kills workers of both at random moments. Afterwards the generator's accounting, a model of the flows, the
packet buffers and the transfers are checked.
"""

import json
import random
import sys

import bench
import measurement

from fixtures.storm import Storm

_FLOWS = 10_000


def _options(parser):
    parser.add_argument("--kills", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 2**32), help="decides victims and moments")
    parser.add_argument("--kills-per-second", type=int, default=33)
    parser.add_argument("--rate", default="1.2Mpps", help="offered by the generator")
    parser.add_argument("--report", metavar="FILE", help="write the drill's and the generator's reports, as JSON")


def measure(lab, options):
    print(f"seed {options.seed}", file=sys.stderr)
    storm = Storm(lab, options.kills, options.seed, _FLOWS, options.rate, options.kills_per_second)
    storm.run()
    checks = storm.checks()
    goal = 1.0
    forwarded = storm.generator["rx_pps"] / 1e6
    checks.add("rate offered and received", forwarded >= goal, round(forwarded, 3), goal, "Mpackets/s at least")
    drill = storm.drill
    goals = {("first_packet_us", "p50"): 1_000, ("first_packet_us", "p99"): 10_000}     # on two cores under load
    rows = [{"case": f"{options.kills} kills, seed {options.seed}", "metric": f"{name}, {rank}", "unit": "us",
             "median": drill[name][rank], "min": drill[name]["p50"], "max": drill[name]["max"], "goal": goals.get((name, rank)),
             "met": drill[name][rank] <= goals[name, rank] if (name, rank) in goals else None}
            for name in ("detect_us", "takeover_us", "first_packet_us") for rank in ("p50", "p90", "p99", "p999", "max")]
    if options.report:
        with open(options.report, "w") as file:
            json.dump({"drill": drill, "generator": storm.generator}, file, indent=1)
    with open(lab.path("drill.log")) as file:
        print(file.read(), file=sys.stderr)
    return {"results": rows, "checks": checks}


if __name__ == "__main__":
    sys.exit(bench.run(__file__, "storm", measure, _options, measurement.publish_checks))
