"""Workers that die by their own fault: at every step of a burst, of poison packets, again and again.

Sites with faulty=True run test programs that know one more function, `faulty`, which crashes on chosen packets.
"""

import os
import signal
import subprocess
import sys

from fixtures.controller import Controller
from fixtures.killing import dead
from fixtures.lab import CHAIN, OUTSIDE_HOST, MemifSite, VethSite, edge_chain
from fixtures.outcome import time_limit
from fixtures.process import run
from fixtures.traffic import Generator
from fixtures.waiting import wait_until

_STEPS = ("peeked", "run", "staged", "committed", "marked", "published", "applied", "undo_forgotten", "released")
_GENERATOR_PORT = 7
_POISON_PORT = 9


def _chain(fault=None, **config):
    """edge.yaml, with a faulty function in front."""
    document = edge_chain()
    if fault:
        document["spec"]["functions"].insert(0, {"type": "faulty", "config": {"fault": fault, **config}})
    return document


def _generate(lab, site, name="pktgen", **options):
    before = site.ctl.chain_on_node(CHAIN).get("forwarded_packets", 0)
    generator = Generator(lab, site, name, **{"flows": 500, "size": 64, "rate": "60kpps", **options})
    wait_until(lambda: not generator.running()
               or site.ctl.chain_on_node(CHAIN).get("forwarded_packets", 0) > before + 1000, "packets to pass")
    return generator


def _assert_lost(report, lost, site):
    found = {key: report[key] for key in ("lost", "duplicated", "reordered", "mapping_changes")}
    assert report["tx_packets"] > 0 and found == {"lost": lost, "duplicated": 0, "reordered": 0,
                                                  "mapping_changes": 0}, f"{report}\n{site.ctl.node()}"


def _events(site, kind):
    return [event for event in site.ctl.json("get", "events", CHAIN, "--limit", "1000").get("events", [])
            if event["kind"] == kind]


def _wait_for_event(site, kind, timeout_s=30.0):
    return wait_until(lambda: _events(site, kind), f"the event {kind}", timeout_s, interval_s=0.1)[-1]


def _apply(lab, site, document, **options):
    return site.ctl.apply(lab.write_yaml("chain.yaml", document), **options)


def test_workers_killed_at_each_step_of_a_burst_lose_nothing(lab):
    site = MemifSite(lab)
    site.deploy()
    generator = _generate(lab, site, duration=25, source_ports="2000-60000")
    for step in _STEPS:
        drill = site.ctl.json("drill", "kill-worker", "--count", "3", "--interval-ms", "20", "--at-step", step)
        assert len(drill["injections"]) == 3, drill
        redone = [injection.get("burst_redone", False) for injection in drill["injections"]]
        if step in ("run", "staged"):     # edited, not committed
            assert all(redone), drill
        if step in ("marked", "published", "applied", "undo_forgotten", "released"):
            assert not any(redone), drill
    assert generator.running(), "the generator ended before the last kill"
    refused = site.ctl("drill", "kill-worker", "--at-step", "somewhere", check=False)
    assert refused.returncode == site.ctl.EXIT_REFUSED and "undo_forgotten" in refused.stderr, refused
    _assert_lost(generator.report(), 0, site)
    assert site.ctl.drops(CHAIN, "poison_packet") == 0


def _listen(lab, site):
    listener = lab.add(site.outside.start(
        [sys.executable, "-u", "-c",
         "import socket\n"
         "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
         f"s.bind(('{OUTSIDE_HOST}', {_POISON_PORT}))\n"
         "print('listening')\n"
         "while True: print(s.recvfrom(2000)[0].decode(), flush=True)"], lab.path("listener.log"), name="listener"))
    listener.wait_for_output("listening")
    return listener


def _send(site, texts):
    site.inside.run(sys.executable, "-c",
                    "import socket, sys, time\n"
                    "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                    "s.bind(('10.0.0.2', 4000))\n"
                    "for text in sys.argv[1:]:\n"
                    f"    s.sendto(text.encode(), ('{OUTSIDE_HOST}', {_POISON_PORT}))\n", *texts)


def _poison_is_taken_out(lab, fault, cause):
    site = VethSite(lab, faulty=True)
    site.deploy(_chain(fault, port=_POISON_PORT, payload="poison"))
    listener = _listen(lab, site)
    _send(site, ["hello"])     # the flow is open, its next hop known
    listener.wait_for_output("hello")
    texts = [f"packet {n}" for n in range(40)]
    texts.insert(17, "poison!")
    _send(site, texts)
    wanted = ["listening", "hello"] + [text for text in texts if text != "poison!"]
    listener.wait_for_output("packet 39")
    assert listener.output().split("\n")[:-1] == wanted
    assert site.ctl.drops(CHAIN, "poison_packet") == 1
    message = _wait_for_event(site, "poison_packet")["message"]
    assert cause in message and f"udp 10.0.0.2:4000 > {OUTSIDE_HOST}:{_POISON_PORT}" in message, message
    path = os.path.join(site.node.document["state_dir"], "dead-letters", f"{CHAIN}.pcapng")
    assert path in message, message
    return site, path, cause


def test_a_poison_packet_becomes_a_dead_letter_and_its_flow_goes_on(lab):
    site, path, cause = _poison_is_taken_out(lab, "SIGSEGV", "SIGSEGV")
    shown = run("tcpdump", "-nn", "-A", "-r", path).stdout
    assert f"10.0.0.2.4000 > {OUTSIDE_HOST}.{_POISON_PORT}: UDP, length 7" in shown and "poison!" in shown, shown
    from scapy.all import IP, UDP, rdpcap
    (packet,) = rdpcap(path)
    assert bytes(packet[UDP].payload).startswith(b"poison!") and packet[IP].src == "10.0.0.2", packet
    arrived = float(packet.time)
    assert abs(arrived - _events(site, "poison_packet")[-1]["at_s"]) < 60, arrived
    with open(path, "rb") as file:
        assert (f"chain={CHAIN} revision=1 signal={cause} "
                f"flow=udp 10.0.0.2:4000 > {OUTSIDE_HOST}:{_POISON_PORT}").encode() in file.read()


def test_a_packet_that_makes_workers_exit_is_poison(lab):
    _poison_is_taken_out(lab, "exit", "exit status 0")


def test_a_packet_on_which_workers_call_the_system_is_poison(lab):
    _poison_is_taken_out(lab, "SIGSYS", "SIGSYS")


def test_a_packet_on_which_workers_loop_is_poison(lab):
    _poison_is_taken_out(lab, "loop", "a hang")


def test_a_revision_that_keeps_crashing_is_rolled_back(lab):
    site = MemifSite(lab, faulty=True)
    site.deploy(_chain())
    generator = _generate(lab, site, duration=15)
    _apply(lab, site, _chain("SIGSEGV", port=_GENERATOR_PORT))
    message = _wait_for_event(site, "rolled_back")["message"]
    assert "from revision 2 to revision 1" in message and "SIGSEGV" in message, message
    site.ctl.wait_for_chain(CHAIN, 1)
    assert generator.running(), "the generator ended before the roll-back"
    _assert_lost(generator.report(), site.ctl.drops(CHAIN, "poison_packet"), site)

    # The controller says so and leaves it at that, also when asked again; a changed chain is another matter.
    def shown():
        status = site.ctl.json("get", "chains")["chains"][0]["status"]
        return status.get("given_up_revision") == 2 and status
    status = wait_until(shown, "the controller to know")
    assert status["phase"] == "Degraded" and status["running_revision"] == 1, status
    assert "revision 2 was given up" in status["message"], status
    refused = _apply(lab, site, _chain("SIGSEGV", port=_GENERATOR_PORT), check=False)
    assert refused.returncode == site.ctl.EXIT_REFUSED and "revision 2 was given up" in refused.stderr, refused

    # A restarted node does not try it again either.
    site.node.send(signal.SIGKILL)
    site.node.wait()
    for port in (0, 1):
        os.remove(lab.path(f"port{port}.sock"))
    site.node.restart()
    wait_until(lambda: site.ctl.json("stats").get("nodes"), "the node to answer", interval_s=0.1)
    site.ctl.wait_for_chain(CHAIN, 1)
    assert site.ctl.chain_on_node(CHAIN)["given_up_revision"] == 2

    _apply(lab, site, _chain("SIGSEGV", port=_POISON_PORT))   # of which there is no packet
    wait_until(lambda: not site.ctl.wait_for_chain(CHAIN, 3).get("given_up_revision"), "the new revision to be on trial")
    _assert_lost(_generate(lab, site, "fixed", duration=2).report(), 0, site)


def test_a_node_rolls_back_without_its_controller(lab):
    site = MemifSite(lab, faulty=True)
    site.deploy(_chain())
    _assert_lost(_generate(lab, site, "before", duration=1).report(), 0, site)
    _apply(lab, site, _chain("SIGILL", port=_GENERATOR_PORT))
    site.ctl.wait_for_chain(CHAIN, 2)
    site.controller.send(signal.SIGKILL)
    site.controller.wait()
    generator = Generator(lab, site, "during", flows=500, size=64, rate="20kpps", duration=6)
    site.node.wait_for_output("rolled_back")
    report = generator.report()
    lab.add(Controller(lab.directory, program=site.controller_program)).wait_until_ready()
    site.ctl.wait_for_chain(CHAIN, 1)
    _wait_for_event(site, "rolled_back")
    _assert_lost(report, site.ctl.drops(CHAIN, "poison_packet"), site)


def test_workers_that_crash_at_their_start_are_rolled_back(lab):
    site = MemifSite(lab, faulty=True)
    site.deploy(_chain())
    generator = _generate(lab, site, duration=10)
    _apply(lab, site, _chain("SIGFPE", at_start=True), check=False)
    _wait_for_event(site, "rolled_back")
    site.ctl.wait_for_chain(CHAIN, 1)
    assert generator.running(), "the generator ended before the roll-back"
    _assert_lost(generator.report(), 0, site)


def test_a_crash_loop_backs_off_until_the_chain_is_mended(lab):
    site = MemifSite(lab, faulty=True)
    site.deploy(_chain("SIGSEGV", port=_GENERATOR_PORT))
    generator = Generator(lab, site, "pktgen", flows=100, size=64, rate="2kpps", duration=20, drain=5)
    assert "SIGSEGV" in _wait_for_event(site, "crash_loop")["message"]
    deaths = wait_until(lambda: (lambda n: n > 8 and n)(site.ctl.chain_on_node(CHAIN).get("worker_deaths", 0)),
                        "more deaths")
    assert site.ctl.chain_on_node(CHAIN)["state"].startswith("degraded: crash loop"), site.ctl.chain_on_node(CHAIN)
    assert deaths < 100 and not _events(site, "rolled_back")
    _apply(lab, site, _chain())
    site.ctl.wait_for_chain(CHAIN, 2)
    assert generator.running(), "the generator ended before the chain was mended"
    report = generator.report()
    # What waited comes out at once, some of it before the next hop has answered its first ARP request.
    drops = {reason: site.ctl.drops(CHAIN, reason) for reason in ("poison_packet", "neighbour_unresolved")}
    print(drops)
    _assert_lost(report, sum(drops.values()), site)


@time_limit(300)
def test_standbys_zygotes_root_and_workers_die_together(lab):
    """Several workers at once, the standby that just took over, zygote and zygote root, in one go and again."""
    site = MemifSite(lab)
    document = edge_chain()
    document["spec"]["workers"] = 3
    site.deploy(document)
    generator = _generate(lab, site, duration=25)
    supervisor = site.node.pid
    for _ in range(8):
        children = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(supervisor)], capture_output=True, text=True,
                                  check=True).stdout.split("\n")
        victims = [int(line.split()[0]) for line in children if line.split()[1:] and line.split()[1] in
                   ("flowkeep-worker", "flowkeep-zygote", "flowkeep-root")]
        assert len(victims) >= 4, children
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: all(dead(pid) for pid in victims), "all of them to die")
        site.ctl.wait_for_chain(CHAIN)
        wait_until(lambda: len([worker for worker in site.ctl.workers(CHAIN)
                                if worker["pid"] not in victims and not dead(worker["pid"])]) == 3, "three new workers")
    assert generator.running(), "the generator ended before the last kill"
    _assert_lost(generator.report(), 0, site)
