"""The programs of test_programs.py over IPv6: through the firewall, untranslated."""

import os

from fixtures.dual_stack import INSIDE_HOST6, NODE_INSIDE6, OUTSIDE_HOST6, DualStackSite
from fixtures.lab import CHAIN, edge_chain
from fixtures.traffic import HttpServer, random_file, sha256


def _site(lab):
    site = DualStackSite(lab)
    document = edge_chain()
    rules = document["spec"]["functions"][0]["config"]["rules"]
    rules.append({"name": "ping6", "action": "accept", "direction": "from_inside", "protocol": "icmpv6"})
    site.deploy(document)
    return site


def test_curl_over_ipv6(lab):
    site = _site(lab)
    server = HttpServer(lab, site.outside, OUTSIDE_HOST6)
    digest = random_file(os.path.join(server.folder, "file"), 8)
    site.inside.run("curl", "-sS", "--fail", "-o", lab.path("file"), f"{server.url}/file")
    assert sha256(lab.path("file")) == digest
    assert server.clients() == {INSIDE_HOST6}
    # Nobody outside opens a connection.
    HttpServer(lab, site.inside, INSIDE_HOST6, 8080)
    done = site.outside.run("curl", "-sS", "--connect-timeout", "1", f"http://[{INSIDE_HOST6}]:8080/", check=False)
    assert done.returncode in (7, 28), done
    assert site.ctl.drops(CHAIN, "firewall_denied") > 0


def test_ping_and_traceroute_over_ipv6(lab):
    site = _site(lab)
    for size in (56, 1400, 4000):
        answers = site.inside.run("ping", "-6", "-n", "-c", "3", "-i", "0.2", "-s", size, OUTSIDE_HOST6)
        assert " 0% packet loss" in answers.stdout, answers.stdout
    trace = site.inside.run("traceroute", "-6", "-I", "-n", "-q", "1", "-w", "2", "-m", "5", OUTSIDE_HOST6).stdout
    assert [line.split()[1] for line in trace.splitlines()[1:]] == [NODE_INSIDE6, OUTSIDE_HOST6], trace
