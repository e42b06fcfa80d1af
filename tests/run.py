"""Runs the tests: unit tests, unit tests under sanitizers, fuzzers, tidy tests, integration tests.

  run.py            all of them
  run.py PATTERN    only the tidy and integration tests whose names contain PATTERN

Every tidy and integration test is a function test_*(lab) or test_*() of a file test_*.py, and runs in
a sandbox of its own. The last line is "N passed, N failed[, N skipped]"; the exit status is 0 only if
nothing failed.
"""

import glob
import importlib.util
import inspect
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

import fuzz
import unit
from fixtures import hugepages, paths
from fixtures.lab import Lab
from fixtures.outcome import EXIT_FAILED, EXIT_PASSED, EXIT_SKIPPED, Skipped
from fixtures.sandbox import Sandboxed

_TIME_LIMIT_S = 180
_LOG_LINES = 80   # of each log, shown when a test fails


class Tally:
    """Counts results and prints a line for each."""

    def __init__(self):
        self.passed, self.failed, self.skipped = 0, [], 0

    def report(self, name, passed, seconds, output=""):
        if passed:
            self.passed += 1
        else:
            self.failed.append(name)
        print(f"{'ok  ' if passed else 'FAIL'}  {name}  ({seconds:.1f} s)", flush=True)
        if not passed:
            print("".join(f"      | {line}\n" for line in output.splitlines()), flush=True)

    def skip(self, name, why):
        self.skipped += 1
        print(f"skip  {name}: {why}", flush=True)

    def summary(self):
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {len(self.failed)} failed{skipped}"


def load(path):
    spec = importlib.util.spec_from_file_location(os.path.basename(path)[:-3], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def discover(pattern):
    """[(file, function name, time limit)] in the order of the files."""
    files = [os.path.join(paths.ROOT, "tests", "tidy_test.py")]
    files += sorted(glob.glob(os.path.join(paths.ROOT, "tests", "integration", "test_*.py")))
    found = []
    for path in files:
        for name, test in vars(load(path)).items():
            if name.startswith("test_") and inspect.isfunction(test) and pattern in _title(path, name):
                found.append((path, name, getattr(test, "time_limit_s", _TIME_LIMIT_S)))
    return found


def _title(path, name):
    return f"{os.path.basename(path)[:-3].removeprefix('test_')}: {name.removeprefix('test_').replace('_', ' ')}"


def run_one(path, name, directory):
    """Within the sandbox: runs one test, returns the exit status that tells its outcome."""
    test = getattr(load(path), name)
    try:
        if not inspect.signature(test).parameters:
            test()
        else:
            with Lab(directory) as lab:
                test(lab)
        return EXIT_PASSED
    except Skipped as reason:
        print(reason)
        return EXIT_SKIPPED
    except BaseException:
        traceback.print_exc()
        with open(os.path.join(directory, "outcome.txt"), "a") as file:
            for log, text in Lab(directory).logs().items():
                file.write(f"---- {log}\n" + "\n".join(text.splitlines()[-_LOG_LINES:]) + "\n")
        return EXIT_FAILED


def run_sandboxed(path, name, limit_s, tally):
    directory = tempfile.mkdtemp(prefix="flowkeep-test-")
    outcome = os.path.join(directory, "outcome.txt")
    started = time.monotonic()
    try:
        with open(outcome, "wb") as output:
            sandbox = Sandboxed([__file__, "--one", path, name, directory], directory, stdout=output,
                                stderr=subprocess.STDOUT)
            try:
                status = sandbox.wait(limit_s)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                sandbox.end()
        with open(outcome, errors="replace") as file:
            text = file.read()
        if status is None:
            text += f"\nstill running after {limit_s} s\n"
            text += "".join(f"---- {log}\n{content[-8000:]}\n" for log, content in Lab(directory).logs().items())
        title = _title(path, name)
        if status == EXIT_SKIPPED:
            tally.skip(title, text.strip())
        else:
            tally.report(title, status == EXIT_PASSED, time.monotonic() - started, text)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main(arguments):
    if arguments[:1] == ["--one"]:
        return run_one(*arguments[1:4])
    pattern = arguments[0] if arguments else ""
    tally = Tally()
    if not pattern:
        print("Unit tests", flush=True)
        unit.run_release(tally)
        print("Unit tests under AddressSanitizer and UndefinedBehaviorSanitizer", flush=True)
        unit.run_sanitized(tally)
        print("Fuzzers, each for a bounded number of inputs", flush=True)
        fuzz.run_bounded(tally)
    print("Tidy and integration tests, each in a sandbox of its own", flush=True)
    with hugepages.reserved():
        for path, name, limit_s in discover(pattern):
            run_sandboxed(path, name, limit_s, tally)
    if tally.failed:
        print("\nFailed:\n" + "\n".join(f"  {name}" for name in tally.failed))
    print(tally.summary(), flush=True)
    return 1 if tally.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
