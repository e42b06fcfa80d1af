"""`flowkeep up`: a controller and a node on this machine, in the foreground, until Ctrl-C.

With configs/nodes/local.yaml (the default) the network is made here and removed again: the namespaces
fk-inside (10.0.0.2) and fk-outside (203.0.113.2), joined only by the node. A node that dies by a signal
is started again at once, as an init system would.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import yaml

from fixtures import hugepages, paths
from fixtures.network import Namespace, Veth

_LOCAL = os.path.join(paths.NODES, "local.yaml")
_STORE = "/var/lib/flowkeep/controller.db"
_LOOK_INTERVAL_S = 0.05
_SHORTEST_LIFE_S = 2.0     # a node that dies sooner, this many times in a row, is given up
_SHORT_LIVES = 5


class Child:
    """A process that a terminal's Ctrl-C does not reach: only we end it."""

    def __init__(self, *arguments):
        self.arguments = arguments
        self.started_s = time.monotonic()
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            say(f"{os.path.basename(self.arguments[0])} does not end: killing it.")
            self.process.kill()
            self.process.wait()


def say(text):
    print(text, file=sys.stderr, flush=True)


def local_network(stack):
    inside = stack.enter_context(Namespace("fk-inside"))
    outside = stack.enter_context(Namespace("fk-outside"))
    stack.enter_context(Veth("fk-in", inside, "eth0", "10.0.0.2/24", ["default via 10.0.0.1"]))
    stack.enter_context(Veth("fk-out", outside, "eth0", "203.0.113.2/24"))
    say("Made the namespaces fk-inside (10.0.0.2) and fk-outside (203.0.113.2).")


def keep_running(controller, start_node):
    """Until a signal to us, or a process that ends of its own accord. Returns the exit status."""
    node, short_lives = start_node(), 0
    try:
        while True:
            time.sleep(_LOOK_INTERVAL_S)
            if controller.process.poll() is not None:
                say(f"The controller ended with status {controller.process.returncode}.")
                return 1
            status = node.process.poll()
            if status is None:
                continue
            if status >= 0:
                say(f"The node ended with status {status}.")
                return status
            # What EAL keeps there, a killed node could not remove.
            shutil.rmtree(f"/run/dpdk/flowkeep-{node.process.pid}", ignore_errors=True)
            short_lives = short_lives + 1 if time.monotonic() - node.started_s < _SHORTEST_LIFE_S else 0
            if short_lives >= _SHORT_LIVES:
                say("The node dies again and again: giving up.")
                return 1
            say(f"The node was killed by {signal.Signals(-status).name}: starting it again.")
            node = start_node()
    finally:
        node.__exit__()


def _interrupt(*_):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(prog="flowkeep up", description="controller and node in the foreground")
    parser.add_argument("--config", default=_LOCAL, help="the node's configuration (default: configs/nodes/local.yaml)")
    parser.add_argument("--listen", default="127.0.0.1:7470", help="the controller's address")
    parser.add_argument("--store", default=_STORE, help="the controller's database")
    options = parser.parse_args()
    with open(options.config) as file:
        document = yaml.safe_load(file)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hugepages.reserved())
            if os.path.realpath(options.config) == _LOCAL:
                local_network(stack)
            for folder in (os.path.dirname(options.store), document.get("state_dir")):
                if folder:
                    os.makedirs(folder, exist_ok=True)
            controller = stack.enter_context(Child(paths.CONTROLLER, "--listen", options.listen,
                                                   "--store", options.store))
            say("Ctrl-C ends both. In another terminal: ./flowkeep apply -f configs/chains/edge.yaml")
            return keep_running(controller, lambda: Child(paths.NODE, "--config", options.config))
        except KeyboardInterrupt:
            say("Ending.")
            return 0


if __name__ == "__main__":
    sys.exit(main())
