"""The packet generator against devices whose behaviour is known: each packet must be accounted for."""

import json
import os
import shutil
import signal
import struct

from fixtures import paths
from fixtures.outcome import Skipped
from fixtures.process import run
from fixtures.waiting import wait_until

_MEASURED, _FAILED, _USAGE, _NOT_LOSSLESS = 0, 1, 2, 3
_FLOWS = 2000


def _generate(*arguments, check=True):
    """Runs the generator; its report."""
    return json.loads(run(paths.PKTGEN, *arguments, "--json", "-", check=check).stdout)


def _memif(lab, number, role, socket):
    return f"net_memif{number},role={role},id=0,socket={lab.path(socket)},socket-abstract=no"


def _crossed(lab):
    """Two ports of one process, joined: a memif server and its client (the socket under two names)."""
    return ["--tx", _memif(lab, 0, "server", "joined.sock"), "--rx", _memif(lab, 1, "client", "./joined.sock")]


def _nothing_left():
    return not os.path.isdir("/run/dpdk") or not [name for name in os.listdir("/run/dpdk") if "pktgen" in name]


def _clean(path_report):
    return {key: path_report[key] for key in ("lost", "duplicated", "reordered", "too_late", "mapping_changes")}


_CLEAN = {"lost": 0, "duplicated": 0, "reordered": 0, "too_late": 0, "mapping_changes": 0}


def test_a_loop_loses_nothing_at_full_speed():
    report = _generate("--tx", "net_ring0", "--flows", _FLOWS, "--duration", 1, "--require-lossless")
    assert _clean(report) == _CLEAN and report["lossless"], report
    assert report["rx_packets"] == report["tx_packets"] > 10 * _FLOWS
    assert report["flows_seen"] == report["distinct_sources"] == _FLOWS
    assert report["warmup_packets"] == _FLOWS and report["bad_checksum"] == report["foreign"] == 0
    latency = report["latency_us"]
    assert latency["packets"] == report["tx_packets"] - _FLOWS
    assert 0 < latency["min"] <= latency["p50"] <= latency["p99"] <= latency["p99.9"] <= latency["max"]
    assert _nothing_left()


def test_every_packet_is_sent_back(lab):
    for threads in (1, 2):
        report = _generate(*_crossed(lab), "--flows", _FLOWS, "--rate", "50kpps", "--duration", 1, "--echo",
                           "--threads", threads)
        assert _clean(report) == _clean(report["echo"]) == _CLEAN, report
        assert report["echo"]["rx_packets"] == report["rx_packets"] == report["tx_packets"] > _FLOWS


def test_syns_of_every_size(lab):
    for size, sent_as in ((64, 76), (76, 76), (1518, 1518)):
        report = _generate(*_crossed(lab), "--profile", "tcp-syn", "--size", size, "--rate", "20kpps",
                           "--duration", 0.2, "--require-lossless")
        assert report["size"] == sent_as and report["rx_packets"] > 0


def test_the_rate_is_kept_or_what_is_missing_is_named():
    report = _generate("--tx", "net_ring0", "--rate", "20kpps", "--duration", 2, "--no-warmup")
    due = 20_000 * report["duration_s"]
    assert report["tx_packets"] <= due + 1
    assert abs(report["tx_packets"] + report["not_sent"] - due) < 0.15 * due, report


def _frames(path):
    """The frames of a capture, each without its record header."""
    with open(path, "rb") as file:
        capture = file.read()
    frames, position = [], 24
    while position < len(capture):
        length = struct.unpack_from("=I", capture, position + 8)[0]
        frames.append(capture[position + 16:position + 16 + length])
        position += 16 + length
    return frames


def _checksum(words):
    total = sum(struct.unpack(f">{len(words) // 2}H", words))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total


def test_what_goes_nowhere_is_lost_and_is_well_formed(lab):
    capture = lab.path("sent.pcap")
    done = run(paths.PKTGEN, "--tx", f"net_pcap0,tx_pcap={capture}", "--rx", "net_ring0", "--flows", 100,
               "--source", "10.0.0.0/29", "--gateway-mac", "02:00:00:00:00:09", "--rate", "10kpps",
               "--duration", 0.2, "--require-lossless", "--json", "-", check=False)
    report = json.loads(done.stdout)
    assert done.returncode == _NOT_LOSSLESS and not report["lossless"]
    assert report["lost"] == report["tx_packets"] > 100 and report["lost_flows"] == 100
    frames = _frames(capture)
    assert len(frames) == report["tx_packets"]
    endpoints = set()
    for frame in frames:
        assert len(frame) == 60 and frame[:6] == bytes.fromhex("020000000009")
        ip, udp = frame[14:34], frame[34:]
        assert _checksum(ip) == 0xffff
        assert _checksum(ip[12:20] + struct.pack(">HH", 17, len(udp)) + udp) == 0xffff
        endpoints.add(ip[12:20] + udp[:4])
    assert len(endpoints) == 100

    replay = _generate("--tx", "net_ring0", "--profile", "pcap", capture, "--loop", 3, "--duration", 30,
                       "--rewrite-source", "172.16.0.0/12")
    assert replay["rx_packets"] == replay["tx_packets"] == 3 * len(frames)


def test_the_gateway_is_asked_for_by_arp():
    run("ip", "link", "add", "fk-gen", "type", "veth", "peer", "name", "fk-gateway")
    run("ip", "address", "add", "10.0.0.1/24", "dev", "fk-gateway")
    for link in ("fk-gen", "fk-gateway"):
        run("ip", "link", "set", link, "up")
    arguments = [paths.PKTGEN, "--tx", "net_af_packet0,iface=fk-gen", "--rx", "net_ring0", "--rate", "1kpps",
                 "--duration", 0.1, "--no-warmup", "--gateway"]
    answered = run(*arguments, "10.0.0.1", check=False)
    assert answered.returncode == _MEASURED, answered.stderr
    unanswered = run(*arguments, "10.0.0.77", check=False)
    assert unanswered.returncode == _FAILED and "10.0.0.77" in unanswered.stderr, unanswered.stderr
    assert _nothing_left()


def test_through_a_forwarder(lab):
    """DPDK's own forwarder between two memif ports, which drops what it cannot send."""
    if not shutil.which("dpdk-testpmd"):
        raise Skipped("dpdk-testpmd is not installed")
    for name, rate, threads in (("paced", "200kpps", 1), ("max", "max", 2)):
        # It does not always outlive its peer: one for each run, that nobody asks for its status.
        forwarder = lab.start(
            ["dpdk-testpmd", "--no-huge", "--no-shconf", "-m", "256", "--no-pci", "--no-telemetry",
             f"--file-prefix=forwarder-{name}", "-l", "0-1",
             "--vdev", _memif(lab, 0, "server", f"{name}-a.sock"), "--vdev", _memif(lab, 1, "server", f"{name}-b.sock"),
             "--", "--forward-mode=mac", "--auto-start", "--total-num-mbufs=16384", "--stats-period=100"], name)
        wait_until(lambda: os.path.exists(lab.path(f"{name}-b.sock")), "the forwarder's ports", 30)
        report = _generate("--tx", _memif(lab, 0, "client", f"{name}-a.sock"),
                           "--rx", _memif(lab, 1, "client", f"{name}-b.sock"), "--flows", _FLOWS,
                           "--rate", rate, "--duration", 2, "--threads", threads)
        assert report["rx_packets"] + report["lost"] == report["tx_packets"], report
        assert report["duplicated"] == report["reordered"] == report["mapping_changes"] == 0, report
        assert report["rx_packets"] > _FLOWS and report["bad_checksum"] == report["foreign"] == 0, report
        forwarder.send(signal.SIGKILL)
        forwarder.wait(20)


def test_a_signal_ends_it_with_a_report(lab):
    report_path = lab.path("report.json")
    generator = lab.start([paths.PKTGEN, "--tx", "net_ring0", "--rate", "10kpps", "--duration", 600, "--progress",
                           "--json", report_path], "generator")
    generator.wait_for_output("received in all")
    assert generator.stop() == _MEASURED
    with open(report_path) as file:
        report = json.load(file)
    assert report["interrupted"] and report["lossless"] and report["rx_packets"] > 0
    assert _nothing_left()


def test_wrong_input_is_answered_with_what_is_accepted(lab):
    for arguments, status, named in (
            ([], _USAGE, ("--tx",)),
            (["--tx", "net_ring0", "--profile", "icmp"], _USAGE, ("icmp", "udp, tcp-syn, pcap FILE")),
            (["--tx", "net_ring0", "--rate", "fast"], _USAGE, ("fast", "kpps", "max")),
            (["--tx", "net_ring0", "--colour", "red"], _USAGE, ("--colour", "--flows")),
            (["--tx", "net_nothing0"], _FAILED, ("net_nothing0", "net_memif0")),
            (["--tx", "net_ring0", "--profile", "pcap", "/nonexistent"], _FAILED, ("/nonexistent",)),
            (["--tx", _memif(lab, 0, "server", "lonely.sock"), "--link-wait", "0"], _FAILED, ("link",))):
        done = run(paths.PKTGEN, *arguments, check=False)
        assert done.returncode == status and all(word in done.stderr for word in named), \
            f"{arguments}: {done.returncode} {done.stderr}"
    assert _nothing_left()
