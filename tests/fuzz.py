"""Fuzzers: programs that think up input, under sanitizers, until something does not hold.

  fuzz.py NAME|all [--inputs N] [--seed N] [--jobs N]    runs them; what was learnt stays in build/fuzz/corpus
  fuzz.py NAME --replay FILE                             runs one input again
  fuzz.py targets ARGUMENTS                              the ninja targets of build/fuzz that such a command takes

The exit status is 0 only if nothing was found; the input that found something is kept in build/fuzz/findings.
"""

import argparse
import concurrent.futures
import dataclasses
import glob
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

from fixtures import paths

_BUILD = os.path.join(paths.ROOT, "build", "fuzz")
_CORPUS = os.path.join(_BUILD, "corpus")
_FINDINGS = os.path.join(_BUILD, "findings")
_DEFAULT_INPUTS = 1_000_000
# An input may wait for a processor: the time-out is for those that never end. Inputs are long from the beginning.
_INPUT_LIMIT_S = 60
_TEST_LIMIT_S = 120       # of one fuzzer in ./flowkeep test, whose inputs then are fewer: the line says how many
_ENDING_LIMIT_S = 300     # to report what was found, and to look for leaks
_OPTIONS = [f"-timeout={_INPUT_LIMIT_S}", "-len_control=0", "-rss_limit_mb=3000", "-print_final_stats=1", "-verbosity=1"]


@dataclasses.dataclass(frozen=True)
class Fuzzer:
    program: str
    what: str
    test_inputs: int            # in ./flowkeep test
    most_bytes: int = 512
    seeds: tuple = ()           # patterns of files to begin with


FUZZERS = {
    "parse": Fuzzer("nfs/fuzz_parse", "the parser, and the rewrites that trust it", 300_000),
    "config": Fuzzer("nfs/fuzz_config", "configurations of every function, rules included", 20_000),
    "chain": Fuzzer("nfs/fuzz_chain", "packets through chains of several functions", 1_500),
    "firewall": Fuzzer("nfs/fuzz_firewall", "packets through a firewall", 1_500),
    "nat44": Fuzzer("nfs/fuzz_nat44", "packets through a NAT", 1_500),
    "dscp": Fuzzer("nfs/fuzz_dscp", "packets through a marker", 1_500),
    "chain-yaml": Fuzzer("controller/fuzz_chain_yaml", "chains and files of rules as flowkeepctl reads them", 10_000, 4096,
                         ("configs/chains/*.yaml", "tests/seeds/chain*")),
    "node-yaml": Fuzzer("dataplane/fuzz_node_config", "a node's configuration", 10_000, 4096, ("configs/nodes/*.yaml",)),
    "pool": Fuzzer("state/fuzz_pool", "everything that reads a state pool, over a damaged one", 300),
}


@dataclasses.dataclass
class Outcome:
    name: str
    status: int | None          # None: it did not end
    wanted: int
    inputs: int
    seconds: float
    output: str
    time_was_up: bool

    def passed(self):
        return self.status == 0 and (self.inputs >= self.wanted or self.time_was_up and self.inputs > 0)

    def count(self):
        of_how_many = f" of {self.wanted:,}" if self.inputs < self.wanted else ""
        return f"{self.inputs:,}{of_how_many} inputs"

    def line(self):
        rate = self.inputs / self.seconds if self.seconds else 0
        return f"{'ok  ' if self.passed() else 'FAIL'}  {self.name:<12}{self.inputs:>12,} inputs {rate:>10,.0f} /s"


def _seeds(fuzzer, directory):
    """Copies what the fuzzer begins with into `directory`."""
    os.makedirs(directory, exist_ok=True)
    for pattern in fuzzer.seeds:
        for path in glob.glob(os.path.join(paths.ROOT, pattern)):
            with open(path, "rb") as source, open(os.path.join(directory, os.path.basename(path)), "wb") as copy:
                copy.write(source.read())
    return directory


def fuzz(name, inputs, seed, corpus, limit_s=None):
    """Runs one fuzzer for so many inputs, or until the time is up; what it learns goes to `corpus`."""
    fuzzer = FUZZERS[name]
    os.makedirs(_FINDINGS, exist_ok=True)
    command = [os.path.join(_BUILD, fuzzer.program), *_OPTIONS, f"-runs={inputs}", f"-seed={seed}",
               f"-max_len={fuzzer.most_bytes}", f"-artifact_prefix={_FINDINGS}/{name}-", _seeds(fuzzer, corpus)]
    if limit_s:
        command.insert(1, f"-max_total_time={limit_s}")
    started = time.monotonic()
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True, errors="replace", cwd=_BUILD, start_new_session=True,
                               env={**os.environ, "ASAN_OPTIONS": "detect_leaks=1:quarantine_size_mb=32",
                                    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"})
    try:
        _, told = program.communicate(timeout=limit_s and limit_s + _INPUT_LIMIT_S + _ENDING_LIMIT_S)
        status = program.returncode
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        _, told = program.communicate()
        status, told = None, told + "\nit did not end, and was killed"
    seconds = time.monotonic() - started
    ran = re.search(r"stat::number_of_executed_units:\s*(\d+)", told)
    return Outcome(name, status, inputs, int(ran[1]) if ran else 0, seconds,
                   f"seed {seed}\n" + "\n".join(told.splitlines()[-60:]), bool(limit_s) and seconds >= limit_s)


def run_bounded(tally):
    """Each fuzzer for a few inputs, from nothing but its seeds: for ./flowkeep test."""
    seed = int.from_bytes(os.urandom(3), "big") + 1

    def run(name):
        with tempfile.TemporaryDirectory(prefix="flowkeep-fuzz-") as corpus:
            return fuzz(name, FUZZERS[name].test_inputs, seed, corpus, _TEST_LIMIT_S)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for outcome in pool.map(run, FUZZERS):
            tally.report(f"fuzzer {outcome.name}: {outcome.count()}", outcome.passed(), outcome.seconds, outcome.output)


def _replay(name, path):
    return subprocess.run([os.path.join(_BUILD, FUZZERS[name].program), path]).returncode


def _options(arguments):
    """Of the command line; ends the program where it makes no sense."""
    parser = argparse.ArgumentParser(prog="flowkeep fuzz", description="Runs fuzzers for long.", epilog="\n".join(
        f"{name}: {fuzzer.what}" for name, fuzzer in FUZZERS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[*FUZZERS, "all"])
    parser.add_argument("--inputs", type=int, default=_DEFAULT_INPUTS, help=f"of each (default {_DEFAULT_INPUTS:,})")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big") + 1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="fuzzers that run at a time")
    parser.add_argument("--replay", metavar="FILE", help="run this one input")
    options = parser.parse_args(arguments)
    if options.replay and options.name == "all":
        parser.error("--replay runs one input of one fuzzer: name it instead of 'all'")
    if options.replay and not os.path.isfile(options.replay):
        parser.error(f"--replay {options.replay}: there is no such file")
    return options


def _names(options):
    return list(FUZZERS) if options.name == "all" else [options.name]


def main(arguments):
    options = _options(arguments)
    names = _names(options)
    if options.replay:
        return _replay(options.name, options.replay)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        running = [pool.submit(fuzz, name, options.inputs, options.seed, os.path.join(_CORPUS, name)) for name in names]
        for future in concurrent.futures.as_completed(running):
            outcome = future.result()
            print(outcome.line() + f"  (seed {options.seed})", flush=True)
            if not outcome.passed():
                failed += 1
                print("".join(f"      | {line}\n" for line in outcome.output.splitlines()), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["targets"]:
        print("\n".join(FUZZERS[name].program for name in _names(_options(sys.argv[2:]))))
        sys.exit(0)
    sys.exit(main(sys.argv[1:]))
