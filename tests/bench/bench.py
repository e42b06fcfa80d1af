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


def run(script, benchmark, measure, add_options=None, publish=measurement.publish):
    """`measure(lab)` returns the results; with options of its own, `measure(lab, options)`. Returns the exit
    status."""
    parser = argparse.ArgumentParser(prog=f"flowkeep bench {benchmark}")
    parser.add_argument("--json", action="store_true", help="results as JSON on standard output")
    parser.add_argument("--inside", metavar="DIRECTORY", help=argparse.SUPPRESS)
    if add_options:
        add_options(parser)
    options = parser.parse_args()
    if options.inside:
        with Lab(options.inside) as lab:
            results = measure(lab, options) if add_options else measure(lab)
        with open(os.path.join(options.inside, "results.json"), "w") as file:
            json.dump(results, file)
        return 0
    return _outer(script, benchmark, options.json, publish)


def _outer(script, benchmark, as_json, publish):
    directory = tempfile.mkdtemp(prefix="flowkeep-bench-")
    try:
        with hugepages.reserved():
            sandbox = Sandboxed([script, "--inside", directory, *sys.argv[1:]], directory, stdout=sys.stderr)
            try:
                status = sandbox.wait(_TIME_LIMIT_S)
            finally:
                sandbox.end()
        if status != 0:
            return status
        with open(os.path.join(directory, "results.json")) as file:
            return publish(benchmark, json.load(file), as_json)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
