"""The unit tests, which meson knows: those of pure code under ASan and UBSan, the others as built for release. Those
of the state pool run both ways: what the optimiser makes of them lies between a node and its state.

  unit.py sanitized-targets    the ninja targets of build/asan that the first kind needs
  unit.py release-targets      those of build/release for the second kind
"""

import json
import os
import re
import subprocess
import sys

from fixtures import paths

# Code that links no DPDK process: what runs under sanitizers without hugepages, ports or forks.
_SANITIZED_FOLDERS = ("state/", "nfs/", "dataplane/pktgen/")
_SANITIZER_OPTIONS = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1", "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}


def _tests(build):
    """[(name, executable relative to the build directory)] of the suite `unit`."""
    listed = subprocess.run(["meson", "introspect", "--tests", build], check=True, capture_output=True, text=True)
    return [(test["name"], os.path.relpath(test["cmd"][0], build)) for test in json.loads(listed.stdout)
            if any(suite.split(":")[-1] in ("unit", "dpdk") for suite in test["suite"])]


def sanitized_tests():
    return [test for test in _tests(paths.ASAN_BUILD) if test[1].startswith(_SANITIZED_FOLDERS)]


def release_tests():
    return [test for test in _tests(paths.BUILD)
            if test[1].startswith("state/") or not test[1].startswith(_SANITIZED_FOLDERS)]


def _skipped_cases(output):
    """{name: why} of the cases that a GoogleTest program skipped: the program itself then still passes."""
    names = re.findall(r"^\[  SKIPPED \] (\S+) \(", output, re.M)
    reasons = re.findall(r"^\S+:\d+: Skipped\n(.*)$", output, re.M)
    return {name: reasons[i] if i < len(reasons) else "no reason given" for i, name in enumerate(names)}


def run(build, names, tally, environment=None, label=""):
    """Runs the named tests of a build and tells the tally of each, and of each case that was skipped."""
    if not names:
        return
    subprocess.run(["meson", "test", "-C", build, "--no-rebuild", "--quiet", "--timeout-multiplier", "4", *names],
                   capture_output=True, env={**os.environ, **(environment or {})})
    with open(os.path.join(build, "meson-logs", "testlog.json")) as log:
        results = [json.loads(line) for line in log]
    for result in results:
        name = result["name"].split(" / ")[-1] + label
        output = result.get("stdout", "") + result.get("stderr", "")
        tally.report(name, result["result"] in ("OK", "EXPECTEDFAIL"), result["duration"], output)
        for case, why in _skipped_cases(output).items():
            tally.skip(f"{name}: {case}", why)
    missing = len(names) - len(results)
    if missing:
        tally.report(f"{missing} tests that did not run", False, 0.0, "meson test gave no result for them")


def run_release(tally):
    tests = release_tests()
    both_ways = [name for name, executable in tests if executable.startswith("state/")]
    run(paths.BUILD, [name for name, _ in tests if name not in both_ways], tally)
    run(paths.BUILD, both_ways, tally, label=" (release)")


def run_sanitized(tally):
    if not os.path.isdir(paths.ASAN_BUILD):
        tally.report("sanitizer build", False, 0.0, f"{paths.ASAN_BUILD} is missing: ./flowkeep test makes it")
        return
    run(paths.ASAN_BUILD, [name for name, _ in sanitized_tests()], tally, _SANITIZER_OPTIONS)


if __name__ == "__main__" and sys.argv[1:] == ["sanitized-targets"]:
    print("\n".join(executable for _, executable in sanitized_tests()))
if __name__ == "__main__" and sys.argv[1:] == ["release-targets"]:
    print("\n".join(executable for _, executable in release_tests()))
