"""Programs that know nothing of flowkeep, through firewall and NAT between two namespaces."""

import json
import os
import signal

from fixtures.killing import dead, kill_worker, kill_workers_while
from fixtures.lab import CHAIN, NAT_ADDRESS, OUTSIDE_HOST, VethSite, edge_chain
from fixtures.process import run
from fixtures.traffic import EchoClient, EchoServer, HttpServer, random_file, sha256
from fixtures.waiting import wait_until


def _deployed(lab, **changes):
    site = VethSite(lab, **changes)
    site.deploy()
    return site


def _fetch(site, url, *options, **settings):
    return site.inside.run("curl", "-sS", "--fail", *options, url, **settings)


def test_server_sees_the_address_of_the_nat(lab):
    site = _deployed(lab)
    server = HttpServer(lab, site.outside, OUTSIDE_HOST)
    digest = random_file(os.path.join(server.folder, "file"), 16)
    _fetch(site, f"{server.url}/file", "-o", lab.path("file"))
    assert sha256(lab.path("file")) == digest
    assert server.clients() == {NAT_ADDRESS}
    flows = site.ctl.flows(CHAIN, "proto=tcp dport=80")
    assert flows and all(flow["external"].startswith(NAT_ADDRESS + ":") for flow in flows), flows


def test_forbidden_port_is_refused(lab):
    site = _deployed(lab)
    server = HttpServer(lab, site.outside, OUTSIDE_HOST, 9090)
    before = site.ctl.drops(CHAIN, "firewall_denied")
    assert _fetch(site, server.url, "--connect-timeout", "2", check=False).returncode == 28
    assert site.ctl.drops(CHAIN, "firewall_denied") > before
    assert server.clients() == set()


def test_outside_cannot_open_connections(lab):
    site = _deployed(lab)
    site.outside.run("ip", "route", "add", "10.0.0.0/24", "via", "203.0.113.1")
    for target in ("10.0.0.2", NAT_ADDRESS):
        done = site.outside.run("curl", "-sS", "--connect-timeout", "1", f"http://{target}/", check=False)
        assert done.returncode in (7, 28), done


def test_ping(lab):
    site = _deployed(lab)
    answers = site.inside.run("ping", "-n", "-c", "5", "-i", "0.2", OUTSIDE_HOST)
    assert " 0% packet loss" in answers.stdout, answers.stdout
    # The node's own addresses answer too.
    assert " 0% packet loss" in site.inside.run("ping", "-n", "-c", "2", "-i", "0.2", "10.0.0.1").stdout


def test_traceroute_shows_the_node_and_the_server(lab):
    site = _deployed(lab)
    trace = site.inside.run("traceroute", "-I", "-n", "-q", "1", "-w", "2", "-m", "5", OUTSIDE_HOST).stdout
    assert [line.split()[1] for line in trace.splitlines()[1:]] == ["10.0.0.1", OUTSIDE_HOST], trace


def test_iperf_both_ways(lab):
    site = VethSite(lab)
    document = edge_chain()
    _rules(document).insert(0, {"name": "iperf", "action": "accept", "protocol": "tcp",
                                "destination_ports": ["5201"]})
    site.deploy(document)
    server = lab.add(site.outside.start(["iperf3", "-s", "--forceflush", "-B", OUTSIDE_HOST], lab.path("iperf3.log")))
    server.wait_for_output("Server listening")
    for direction in ([], ["-R"]):
        def run():
            """None while the server is not done with the run before."""
            end = json.loads(site.inside.run("iperf3", "-J", "-t", "3", "-c", OUTSIDE_HOST, *direction).stdout)
            return None if "busy" in end.get("error", "") else end

        done = wait_until(run, "iperf3", 30)
        assert "sum_received" in done["end"], done
        received = done["end"]["sum_received"]["bits_per_second"]
        print(f"iperf3 {direction}: {received / 1e6:.0f} Mbit/s")
        assert received > 20e6, done


def _rules(document):
    return next(function["config"]["rules"] for function in document["spec"]["functions"]
                if function["type"] == "firewall")


def test_download_survives_killed_workers(lab):
    site = _deployed(lab)
    server = HttpServer(lab, site.outside, OUTSIDE_HOST)
    digest = random_file(os.path.join(server.folder, "file"), 100)
    curl = lab.add(site.inside.start(["curl", "-sS", "--fail", "--limit-rate", "20M", "-o", lab.path("file"),
                                      f"{server.url}/file"], lab.path("curl.log")))
    wait_until(lambda: os.path.exists(lab.path("file")), "the download to begin")
    killed = kill_workers_while(curl.running, site.ctl, CHAIN, 0.1)
    assert curl.wait() == 0, curl.tail()
    assert sha256(lab.path("file")) == digest
    assert len(killed) >= 10 and all(dead(pid) for pid in killed), killed
    # The last one is dead, but its death may still have to be noticed.
    wait_until(lambda: site.ctl.chain_on_node(CHAIN)["worker_deaths"] >= len(killed), "every death to be counted")


def test_connection_outlives_the_node_process(lab):
    site = _deployed(lab)
    server = EchoServer(lab, site.outside, OUTSIDE_HOST)
    client = EchoClient(lab, site.inside, server)
    peer = client.wait_for_more()
    site.node.send(signal.SIGKILL)
    assert site.node.wait() == -signal.SIGKILL
    site.node.restart()
    assert client.wait_for_more() == peer
    flows = site.ctl.wait_for_chain(CHAIN) and site.ctl.flows(CHAIN, f"dport={server.port}")
    assert [flow["external"] for flow in flows] == [peer]


def test_connection_outlives_a_clean_restart_of_the_node(lab):
    site = _deployed(lab)
    server = EchoServer(lab, site.outside, OUTSIDE_HOST)
    client = EchoClient(lab, site.inside, server)
    peer = client.wait_for_more()
    assert site.node.stop() == 0
    site.node.restart()
    assert client.wait_for_more() == peer


def test_switch_killed_alone_is_started_again(lab):
    site = _deployed(lab)
    server = EchoServer(lab, site.outside, OUTSIDE_HOST)
    client = EchoClient(lab, site.inside, server)
    peer = client.wait_for_more()
    before = site.ctl.node()
    os.kill(before["switch_pid"], signal.SIGKILL)
    assert client.wait_for_more() == peer
    after = site.ctl.node()
    assert after["supervisor_pid"] == before["supervisor_pid"] and after["switch_pid"] != before["switch_pid"]
    assert after["switch_restarts"] == before.get("switch_restarts", 0) + 1


def test_standby_may_die_too(lab):
    site = _deployed(lab)
    server = EchoServer(lab, site.outside, OUTSIDE_HOST)
    client = EchoClient(lab, site.inside, server)
    peer = client.wait_for_more()

    def standby():
        return next((worker["pid"] for worker in site.ctl.list("workers") if worker.get("slot", 0) < 0), None)
    victim = wait_until(standby, "a standby")
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: standby() not in (None, victim), "another standby")
    kill_worker(site.ctl, CHAIN)
    assert client.wait_for_more() == peer


def _pid_of(name):
    """The one process of that name in this sandbox; None while there is none, or more: one that was just forked still
    has its parent's name."""
    found = [int(pid) for pid in run("pgrep", "-x", name, check=False).stdout.split() if not dead(int(pid))]
    return found[0] if len(found) == 1 else None


def _kill_and_wait_for_the_next(name):
    victim = wait_until(lambda: _pid_of(name), f"one {name}")
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: _pid_of(name) not in (None, victim), f"another {name}")


def test_zygote_and_zygote_root_may_die(lab):
    site = _deployed(lab)
    server = EchoServer(lab, site.outside, OUTSIDE_HOST)
    client = EchoClient(lab, site.inside, server)
    peer = client.wait_for_more()
    _kill_and_wait_for_the_next("flowkeep-zygote")
    killed = []
    for _ in range(3):      # more than there are standbys: the new zygote forks workers
        killed.append(kill_worker(site.ctl, CHAIN, killed))
    assert client.wait_for_more() == peer
    _kill_and_wait_for_the_next("flowkeep-root")
    document = edge_chain()
    document["spec"]["functions"][0]["config"]["rules"].pop()
    revision = site.ctl.chain_on_node(CHAIN)["revision"]
    site.ctl.apply(lab.write_yaml("chain.yaml", document))     # the new root forks its zygote
    site.ctl.wait_for_chain(CHAIN, revision + 1)
    assert client.wait_for_more() == peer


def test_agent_may_die(lab):
    site = _deployed(lab)
    server = EchoServer(lab, site.outside, OUTSIDE_HOST)
    client = EchoClient(lab, site.inside, server)
    peer = client.wait_for_more()
    _kill_and_wait_for_the_next("flowkeep-agent")
    wait_until(lambda: site.ctl("flows", CHAIN, check=False).returncode == 0, "the new agent to answer")
    assert client.wait_for_more() == peer


def test_a_stopped_worker_does_not_hold_an_update_up(lab):
    site = _deployed(lab)
    victim = site.ctl.workers(CHAIN)[0]["pid"]
    os.kill(victim, signal.SIGSTOP)     # without traffic: nothing else tells that it is stopped
    document = edge_chain()
    document["spec"]["functions"][0]["config"]["rules"].pop()
    revision = site.ctl.chain_on_node(CHAIN)["revision"]
    site.ctl.apply(lab.write_yaml("chain.yaml", document))
    site.ctl.wait_for_chain(CHAIN, revision + 1)
    wait_until(lambda: dead(victim), "the stopped worker to be gone")
    wait_until(lambda: all(worker["pid"] != victim for worker in site.ctl.workers(CHAIN)), "it to be reaped")


def test_node_leaves_nothing_when_stopped(lab):
    site = _deployed(lab)
    assert site.node.stop() == 0
    left = run("pgrep", "-l", "^flowkeep-(node|switch|agent|root|zygote|worker)", check=False).stdout
    assert not left, left
    eal = "/run/dpdk"
    assert not os.path.isdir(eal) or not os.listdir(eal), os.listdir(eal)
