"""`flowkeep bench idle`: what a deployed chain costs while there is no traffic.

CPU time of every process of controller and node, from /proc, over intervals of ten seconds.
"""

import os
import sys
import time

import bench
import measurement

from fixtures.lab import VethSite

_INTERVAL_S = 10.0
_SAMPLES = 3
_GOAL_PERCENT = 5.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def _stat(pid):
    """Fields of /proc/PID/stat from the third on, or None if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()
    except OSError:
        return None


def _tree(root):
    """The process ids of a process and all its descendants."""
    parents = {int(name): int(fields[1]) for name in os.listdir("/proc") if name.isdigit()
               if (fields := _stat(name))}
    found, added = {root}, True
    while added:
        added = {pid for pid, parent in parents.items() if parent in found} - found
        found |= added
    return found


def _cpu_s(pids):
    """CPU seconds, those of children that ended meanwhile included."""
    return sum(sum(int(ticks) for ticks in fields[11:15]) for pid in pids if (fields := _stat(pid))) / _TICKS_PER_S


def measure(lab):
    site = VethSite(lab)
    site.deploy()
    groups = {"controller": _tree(site.controller.pid), "node": _tree(site.node.pid)}
    time.sleep(2.0)     # what the deployment set in motion comes to rest
    samples = {name: [] for name in groups}
    for _ in range(_SAMPLES):
        before = {name: _cpu_s(pids) for name, pids in groups.items()}
        started = time.monotonic()
        time.sleep(_INTERVAL_S)
        passed_s = time.monotonic() - started
        for name, pids in groups.items():
            samples[name].append(100 * (_cpu_s(pids) - before[name]) / passed_s)
    total = [sum(values) for values in zip(*samples.values())]
    rows = [measurement.result("chain deployed, no traffic", f"cpu, {name}", "% of core", values)
            for name, values in samples.items()]
    rows.append(measurement.result("chain deployed, no traffic", "cpu, all", "% of core", total, _GOAL_PERCENT,
                                   at_most=True))
    return rows


if __name__ == "__main__":
    sys.exit(bench.run(__file__, "idle", measure))
