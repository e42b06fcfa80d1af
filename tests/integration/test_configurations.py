"""Every chain of configs/chains/ can be deployed, and removed without a trace."""

import glob
import os

import yaml

from fixtures import paths
from fixtures.controller import Controller
from fixtures.lab import MemifSite
from fixtures.waiting import wait_until


def test_every_chain_deploys(lab):
    site = MemifSite(lab)
    free_before = site.ctl.node()["pool_pages_free"]
    files = sorted(glob.glob(os.path.join(paths.CHAINS, "*.yaml")))
    assert files
    for path in files:
        site.ctl.apply(path)
        with open(path) as file:
            names = [document["metadata"]["name"] for document in yaml.safe_load_all(file) if document]
        for name in names:
            site.ctl.wait_for_chain(name)
            site.ctl("delete", "chain", name)
            wait_until(lambda: site.ctl.chain_on_node(name) is None, f"chain {name} to be gone")
    # The last worker and its zygote end in their own time.
    wait_until(lambda: not site.ctl.list("workers"), "all workers to be gone")
    wait_until(lambda: site.ctl.node()["pool_pages_free"] == free_before, "all pages to be free again")


def test_an_unchanged_chain_makes_no_revision(lab):
    site = MemifSite(lab)
    site.deploy()
    revision = site.ctl.list("chains")[0]["revision"]
    site.deploy()
    assert site.ctl.list("chains")[0]["revision"] == revision


def test_a_restarted_controller_knows_its_chains(lab):
    site = MemifSite(lab)
    site.deploy()
    site.controller.send(9)
    site.controller.wait()
    again = lab.add(Controller(lab.directory)).wait_until_ready()
    assert [chain["name"] for chain in again.ctl.list("chains")] == ["edge"]
    site.node.wait_until_ready(again.ctl)
    assert again.ctl.wait_for_chain("edge")["revision"] == 1
