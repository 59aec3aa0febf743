"""Fixtures of the end-to-end tests. Run them all with `/usr/bin/python3 -m pytest -q tests/e2e`, as root."""
import os
from pathlib import Path

import pytest

import engines
from host import Host
from network import Network
from paths import CHECKOUT

LOG_TAIL = 4000
alive = []  # hosts of the running tests, whose logs go into the report of a failure
started = []  # names of all hosts, for the summary


class HostMaker:
    """Makes hosts and ends them all, whatever happens."""

    def __init__(self, folder):
        self.folder, self.made, self.networks = folder, [], []

    def __call__(self, name="one", docker=None, **options):
        """A host, with a Docker of version `docker` running if given."""
        host = Host(name, self.folder / name, **options)
        for known in (self.made, alive):
            known.append(host)
        started.append(name)
        if docker:
            start_docker(host, docker)
        return host

    def network(self):
        self.networks.append(Network())
        return self.networks[-1]

    def close(self):
        errors = []
        for thing in self.made + self.networks:
            if thing in alive:
                alive.remove(thing)
            try:
                thing.close()
            except Exception as error:  # pylint: disable=broad-except
                errors.append(str(error))
        assert not errors, errors


def start_docker(host, version, **options):
    """Starts the engine; skips the test if its packages are neither cached nor to be had because this machine is offline."""
    try:
        return host.start_docker(version, **options)
    except engines.Offline as error:
        pytest.skip(f"docker {version}: {error}")


@pytest.fixture
def hosts(tmp_path):
    maker = HostMaker(tmp_path)
    yield maker
    maker.close()


@pytest.fixture(scope="module")
def module_hosts(tmp_path_factory):
    maker = HostMaker(tmp_path_factory.mktemp("hosts"))
    yield maker
    maker.close()


@pytest.fixture
def host(hosts):
    """One host of this test's own, without an engine."""
    return hosts()


@pytest.fixture(scope="session")
def flocker_binary():
    binary = Path(os.environ.get("FLOCKER_BINARY") or CHECKOUT / "build" / "flocker")
    assert binary.exists(), f"{binary} is not built"
    return binary


def pytest_sessionstart():
    if os.geteuid() != 0:
        raise pytest.UsageError("test hosts are made of namespaces and mounts: run this as root")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for host in alive:
            for log in sorted((host.work / "log").glob("*.log")):
                report.sections.append((f"{host.name}: {log.name}", log.read_text(errors="replace")[-LOG_TAIL:]))


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"test hosts started: {len(started)}")
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        terminalreporter.write_line(f"skipped: {report.nodeid}: {reason}")
