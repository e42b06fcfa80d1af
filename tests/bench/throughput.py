"""`flowkeep bench throughput`: firewall and NAT, one worker, between two memif ports.

Generator, switch and worker share the machine's cores; the generator sends as fast as it can.
"""

import sys

import bench
import measurement

from fixtures.lab import MemifSite
from fixtures.traffic import Generator

_SIZES = (64, 256, 512, 1500)
_FLOWS = (1, 1000, 50_000)
_SAMPLES = 3
_DURATION_S = 4


def measure(lab):
    site = MemifSite(lab)
    site.deploy()
    rows = []
    cases = [(size, 1000) for size in _SIZES] + [(64, flows) for flows in _FLOWS if flows != 1000]
    for size, flows in cases:
        reports = [Generator(lab, site, f"{size}-{flows}-{sample}", size=size, flows=flows, rate="max",
                             duration=_DURATION_S).report() for sample in range(_SAMPLES)]
        case = f"{size}-byte frames, {flows} flows"
        rows.append(measurement.result(case, "received", "Mpackets/s", [report["rx_pps"] / 1e6 for report in reports]))
        rows.append(measurement.result(case, "lost", "%", [100 * report["lost"] / max(1, report["tx_packets"])
                                                           for report in reports]))
    return rows


if __name__ == "__main__":
    sys.exit(bench.run(__file__, "throughput", measure))
