"""Recorded calls of real engines, played to a fresh Flocker: no crash of an engine may leave anything behind."""
import re

import pytest

from paths import wait_for
from replay import TRACES, Engine, Replay, parse, references, wait_until_unmounted

FEWEST_CALLS = {
    "dockerd-20.10.24-calls.log": 140, "dockerd-20.10.24-headers.log": 10, "dockerd-26.1.5-crash-liverestore.log": 80,
    "dockerd-29.1.5-crash-liverestore.log": 80, "dockerd-29.1.5-managed-plugin.log": 20, "dockerd-29.1.5-misc.log": 50,
    "dockerd-29.1.5-propagation.log": 10, "podman-4.3.1-http200-errors.log": 30, "podman-4.3.1-http500-errors.log": 29,
}


@pytest.fixture
def host(hosts):
    return hosts(network=hosts.network())


def test_every_recording_is_known():
    assert {file.name for file in TRACES.glob("*.log")} == set(FEWEST_CALLS)


@pytest.mark.parametrize("name", FEWEST_CALLS)
def test_parse(name):
    text = (TRACES / name).read_text()
    events = parse(text)
    assert len(events) >= FEWEST_CALLS[name]
    assert len(events) == len(re.findall(r"^[\d.]+ (?:conn|pid)\d+ (?:POST )?/", text, re.MULTILINE))
    assert all(event.kind == name.partition("-")[0].replace("dockerd", "docker") for event in events)


@pytest.mark.parametrize("name", FEWEST_CALLS)
def test_replay(host, flocker_binary, monkeypatch, name):
    monkeypatch.setenv("FLOCKER_RECHECK_S", "1")
    host.start_flocker(flocker_binary)
    replay = Replay(host, parse((TRACES / name).read_text()))
    replay.run()
    wait_until_unmounted(host)
    assert references(host) == {}
    with Engine(host) as engine:
        def listed():
            return engine.send("VolumeDriver.List", {})[1]["Volumes"]

        # The kernel shows an unmount before the worker that did it has told the agent.
        wait_for("List to show no mount point", lambda: not any(volume["Mountpoint"] for volume in listed()))
        assert {volume["Name"] for volume in listed()} == replay.volumes
        for volume in replay.volumes:
            engine.ok("Remove", volume)
        assert engine.send("VolumeDriver.List", {}) == (200, {"Volumes": [], "Err": ""})
