"""Power cuts, simulated: how many distinct images of the state pool were recovered without a violation, and how
many images it takes to find each bug that can be planted in the commit protocol (docs/crash-simulator.md)."""

import argparse
import json
import os
import re
import subprocess
import sys

from fixtures import paths

import measurement

_DISTINCT = 100_000
_ENOUGH_FOR_A_BUG = 100_000
_FEWEST_BUGS = 6
# Rare where workers live for long: young deaths, and few images of many runs.
_RARE = {"old-words-not-logged": ("--life", 40, "--at-fences", 4, "--elsewhere", 0)}


def planted_bugs():
    """The names in state/planted_bug.h."""
    with open(os.path.join(paths.ROOT, "state", "planted_bug.h")) as file:
        found = re.findall(r'PlantedBugName\{PlantedBug::\w+,\s*"([a-z-]+)"\}', file.read())
    if len(found) < _FEWEST_BUGS:
        raise RuntimeError(f"{len(found)} planted bugs are named in state/planted_bug.h; at least {_FEWEST_BUGS} must be")
    return found


def simulate(program, *arguments):
    """(exit status, counts, what was found)"""
    run = subprocess.run([os.path.join(paths.BUILD, "nfs", program), *map(str, arguments)], capture_output=True, text=True)
    if run.returncode not in (0, 1):
        raise RuntimeError(f"{program} {' '.join(map(str, arguments))}: status {run.returncode}: {run.stderr}")
    return run.returncode, json.loads(run.stdout), run.stderr.strip()


def measure(seed, distinct):
    results = []
    status, counts, found = simulate("crash_simulation", "--seed", seed, "--distinct", distinct)
    if found:
        print(found, file=sys.stderr)
    case = f"firewall and nat44, seed {seed}"

    def add(metric, unit, value, **goal):
        results.append(measurement.result(case, metric, unit, [value], **goal))

    add("distinct images", "images", counts["distinct"], goal=_DISTINCT)
    add("violations", "images", counts["violations"], goal=0, at_most=True)
    add("of a recovery", "images", counts["recovery_cuts"])
    add("run went on", "images", counts["continued"])
    add("bursts", "bursts", counts["bursts"])
    add("worker deaths", "workers", counts["worker_deaths"])
    add("handovers", "buckets", counts["handovers"])
    add("rate", "images/s", counts["drawn"] / counts["seconds"])
    bugs = planted_bugs()
    unfound = 0
    for bug in bugs:
        status, counts, _ = simulate("crash_simulation_planted", "--bug", bug, "--seed", seed, "--distinct", _ENOUGH_FOR_A_BUG,
                                     *_RARE.get(bug, ()))
        unfound += status == 0
        results.append(measurement.result(f"planted: {bug}", "until found" if status else "NOT FOUND in", "images",
                                          [counts["distinct"]]))
    results.append(measurement.result("planted bugs", "found", f"of {len(bugs)}", [len(bugs) - unfound], goal=len(bugs)))
    return results


def main():
    parser = argparse.ArgumentParser(prog="flowkeep bench crash")
    parser.add_argument("--json", action="store_true", help="results as JSON on standard output")
    parser.add_argument("--seed", type=int, default=1, help="of the first run")
    parser.add_argument("--distinct", type=int, default=_DISTINCT, help="images to check")
    options = parser.parse_args()
    return measurement.publish("crash", measure(options.seed, options.distinct), options.json)


if __name__ == "__main__":
    sys.exit(main())
