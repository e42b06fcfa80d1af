"""`flowkeep demo`: the product on real traffic, in a sandbox, with a report of what was measured.

The outer half makes the sandbox and, when the inner half and everything that it started are gone,
looks for leftovers and prints the report. The exit status is 0 only if every claim was checked and true.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import generator_traffic
import leftovers
import real_traffic
from report import Report, heading, say

from fixtures import hugepages
from fixtures.lab import Lab
from fixtures.sandbox import Sandboxed

_TIME_LIMIT_S = 600
_LOG_LINES = 40


def run_part(part, report, directory):
    """One lab and its steps. A step that cannot be done is a claim that is not true."""
    os.makedirs(directory)
    name = "the lab"
    try:
        with Lab(directory) as lab:
            steps = part(lab, report)
            for name, step in steps:
                heading(name)
                step()
            name = "everything ends when asked to"
    except Exception as error:
        traceback.print_exc()
        report.check(name, False, f"{type(error).__name__}", "done")
        for log, text in Lab(directory).logs().items():
            say(f"---- the end of {log}")
            say("\n".join(text.splitlines()[-_LOG_LINES:]))


def inner(directory):
    report = Report()
    try:
        run_part(real_traffic.steps, report, os.path.join(directory, "real"))
        run_part(generator_traffic.steps, report, os.path.join(directory, "generator"))
    finally:
        report.save(os.path.join(directory, "report.json"))
    return 0


def _run_sandboxed(directory):
    sandbox = Sandboxed([__file__, "--inside", directory], directory)
    try:
        return sandbox.wait(_TIME_LIMIT_S)
    except subprocess.TimeoutExpired:
        say(f"The demo did not end within {_TIME_LIMIT_S} s.")
        return None
    finally:
        sandbox.end()


def outer(json_path):
    started = time.monotonic()
    mark = tempfile.mkdtemp(prefix="flowkeep-demo-")
    before = leftovers.snapshot(mark) - {f"temporary file {mark}"}
    report = Report()
    try:
        with hugepages.reserved():
            status = _run_sandboxed(mark)
        saved = os.path.join(mark, "report.json")
        if os.path.exists(saved):
            report = Report.load(saved)
        if status != 0:
            report.check("the demo ran to its end", False, f"status {status}", "status 0")
    finally:
        shutil.rmtree(mark, ignore_errors=True)
    heading("Nothing is left behind")
    left = leftovers.left_since(before, mark)
    for thing in left:
        say(f"  left: {thing}")
    report.equal("processes, namespaces, mounts, sockets, files left behind", len(left), 0, "things")
    heading("Report")
    say(report.text())
    say(f"Took {time.monotonic() - started:.0f} s.")
    if json_path:
        report.save_json(json_path)
    return 0 if report.true() else 1


def _interrupt(*_):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(prog="flowkeep demo")
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON too")
    parser.add_argument("--inside", metavar="DIRECTORY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    if options.inside:
        return inner(options.inside)
    return outer(os.path.abspath(options.json) if options.json else None)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
