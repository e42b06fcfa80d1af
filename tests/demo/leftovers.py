"""What the machine holds that a run could leave behind, before and after."""

import glob
import os
import re
import time

from fixtures.sandbox import MARK

_PATIENCE_S = 5.0     # the kernel takes dead namespaces apart in its own time


def _marked_processes(mark):
    wanted = f"{MARK}={mark}".encode()
    found = set()
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            with open(path, "rb") as file:
                if wanted in file.read().split(b"\0"):
                    found.add(f"process {path.split('/')[2]}")
        except OSError:
            pass
    return found


def _names(kind, folder):
    try:
        return {f"{kind} {os.path.join(folder, name)}" for name in os.listdir(folder)}
    except OSError:
        return set()


def _mounts():
    with open("/proc/self/mountinfo") as file:
        return {f"mount {line.split()[4]}" for line in file}


def _sockets():
    with open("/proc/net/unix") as file:
        return {f"socket {found}" for found in re.findall(r"(\S*(?:flowkeep|memif|/fk-)\S*)$", file.read(), re.M)}


def snapshot(mark):
    return (_marked_processes(mark) | _names("network namespace", "/run/netns") | _names("interface", "/sys/class/net")
            | _names("EAL directory", "/var/run/dpdk") | _names("shared memory", "/dev/shm")
            | {f"temporary file {path}" for path in glob.glob("/tmp/flowkeep*")} | _mounts() | _sockets())


def left_since(before, mark):
    """What is there now and was not before, once the kernel has had time to tidy up."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        left = sorted(snapshot(mark) - before)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)
