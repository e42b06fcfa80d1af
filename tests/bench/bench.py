"""How a benchmark runs: in a sandbox, with its results handed out of it as JSON."""

import argparse
import json
import os
import shutil
import sys
import tempfile

from fixtures import hugepages
from fixtures.lab import Lab
from fixtures.sandbox import Sandboxed

import measurement

_TIME_LIMIT_S = 900


def run(script, benchmark, measure):
    """`measure(lab)` returns the results. Returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"flowkeep bench {benchmark}")
    parser.add_argument("--json", action="store_true", help="results as JSON on standard output")
    parser.add_argument("--inside", metavar="DIRECTORY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        with Lab(options.inside) as lab:
            results = measure(lab)
        with open(os.path.join(options.inside, "results.json"), "w") as file:
            json.dump(results, file)
        return 0
    return _outer(script, benchmark, options.json)


def _outer(script, benchmark, as_json):
    directory = tempfile.mkdtemp(prefix="flowkeep-bench-")
    try:
        with hugepages.reserved():
            sandbox = Sandboxed([script, "--inside", directory], directory, stdout=sys.stderr)
            try:
                status = sandbox.wait(_TIME_LIMIT_S)
            finally:
                sandbox.end()
        if status != 0:
            return status
        with open(os.path.join(directory, "results.json")) as file:
            return measurement.publish(benchmark, json.load(file), as_json)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
