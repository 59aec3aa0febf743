"""Wall clocks that are wrong: what still works, what is said, and that all goes on by itself when they are right again."""
import re
import subprocess
import time
from datetime import datetime, timedelta

import pytest

from cluster import agent_log, control_log, join, make_cluster, node_of, start_control, token, wait_state
from faults import Flocker
from host import CommandFailed
from paths import wait_for

HOUR, DAY = 3600, 86400


def refused(host, *words):
    with pytest.raises(CommandFailed) as failure:
        host.flocker(*words, timeout=60)
    return failure.value.stderr


def trash(one):
    return {entry["name"] for entry in one.flocker_json("volume", "ls", "--all") if entry["state"] == "trashed"}


@pytest.fixture(name="pair")
def two_hosts(hosts, flocker_binary):
    return make_cluster(hosts, flocker_binary, 2, own_clock=True)


def test_the_clock_of_a_host_is_its_own(host, hosts):
    """The fixture itself: a process that runs sees each change, and neither other hosts nor other clocks do."""
    two = hosts("two", own_clock=True)
    now = ["python3", "-c", "import time; print(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))"]
    two.set_clock(400 * DAY)
    plain, shifted = ([float(word) for word in which.run(now).stdout.split()] for which in (host, two))
    assert [round((b - a) / DAY) for a, b in zip(plain, shifted)] == [400, 0, 0]
    two.reboot()
    assert round((float(two.run(now).stdout.split()[0]) - plain[0]) / DAY) == 400
    years = []
    tell = "import time\nwhile True: print(input(), time.strftime('%Y'), flush=True)"
    with two.popen(["python3", "-c", tell], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as runs:
        for days in (-9000, 0):
            two.set_clock(days * DAY)
            runs.stdin.write("\n")
            runs.stdin.flush()
            years.append(int(runs.stdout.readline()))
        runs.kill()
    assert years[1] - years[0] in (24, 25), years


def test_clocks_that_are_some_days_apart(hosts, flocker_binary):
    """A host joins, volumes are made and move, and what is shown of times is sane."""
    network = hosts.network()
    one, two, three = (hosts(f"host{number}", network=network, own_clock=True) for number in (1, 2, 3))
    one.set_clock(2 * DAY)
    two.set_clock(-6 * DAY)
    three.set_clock(8 * DAY)
    start_control(one, flocker_binary)
    for member in (two, three):
        join(member, one)
        wait_state(one, member, "up")
    assert "s behind this host's: set the one that is wrong" in control_log(one) and "s ahead of this host's" in control_log(one)
    booted = [datetime.fromisoformat(node["booted"].replace("Z", "+00:00")) for node in one.flocker_json("node", "ls")]
    assert max(booted) - min(booted) < timedelta(minutes=2), "all by one clock: they are one machine"
    flockers = [Flocker(member, flocker_binary) for member in (one, two, three)]
    flockers[1].ok("Create", Name="db")
    for number, flocker in enumerate([*flockers[1:], *flockers[1:], flockers[0]]):
        wait_for("a mount", lambda f=flocker: f.plugin("Mount", Name="db", ID="1")[0] == 200, 30)
        path = flocker.get("db")["Mountpoint"]
        log = flocker.host.path(f"{path}/log")
        assert (log.read_text() if log.exists() else "") == "x" * number
        log.write_text("x" * (number + 1))
        flocker.ok("Unmount", Name="db", ID="1")
    one.set_clock(-3 * DAY)
    assert re.search(r" 0s\b", one.flocker("volume", "ls").stdout), "what was made later than now has no negative age"


@pytest.mark.parametrize("days, said", [(-1000, "not yet valid"), (500, "expired")])
def test_a_host_with_a_wrong_clock_joins_when_it_is_right(hosts, flocker_binary, days, said):
    network = hosts.network()
    one, two = (hosts(f"host{number}", network=network, own_clock=True) for number in (1, 2))
    start_control(one, flocker_binary)
    two.flocker_binary = flocker_binary
    text = token(one)
    two.set_clock(days * DAY)
    error = refused(two, "join", "10.77.0.1", "--token", text)
    assert said in error and "by this host's clock, which says" in error and "is that right?" in error, error
    two.set_clock(0)
    two.flocker("join", "10.77.0.1", "--token", text, timeout=60)
    wait_state(one, two, "up")


@pytest.mark.parametrize("days, said", [(-1000, "not yet valid"), (500, "expired")])
def test_a_node_with_a_wrong_clock_goes_on_when_it_is_right(pair, flocker_binary, days, said):
    """Its own volumes work all the while; the agent is not started anew."""
    one, two = pair
    flocker = Flocker(two, flocker_binary)
    flocker.ok("Create", Name="db")
    two.set_clock(days * DAY)
    assert flocker.ok("Mount", Name="db", ID="1")  # the connection that is there goes on
    assert node_of(one, two)["state"] == "up"
    two.kill_flocker("agent")
    refused(two, "up")
    error = refused(two, "status")
    assert said in error and "by this host's clock, which says" in error, error
    assert flocker.ok("Mount", Name="db", ID="2")
    logged = agent_log(two).count("by this host's clock")
    pid = two.path("/run/flocker/agent.pid").read_text()
    two.set_clock(0)
    wait_state(one, two, "up")
    assert two.path("/run/flocker/agent.pid").read_text() == pid and logged <= 2
    two.flocker("status")


def test_renewal_by_clocks_that_disagree(pair):
    """The node's says that its certificate is due, that of control signs one that is due again: once is enough."""
    one, two = pair
    two.set_clock(300 * DAY)
    two.kill_flocker("agent")
    two.flocker("up")
    wait_for("the reason", lambda: "control's do not agree" in agent_log(two), 20)
    end = time.monotonic() + 5
    wait_for("some time", lambda: time.monotonic() > end)
    assert agent_log(two).count("this node has new certificates") == 1
    assert node_of(one, two)["state"] == "up"


@pytest.mark.parametrize("days", [-1000, 500])
def test_control_with_a_wrong_clock_goes_on_when_it_is_right(pair, flocker_binary, days):
    """Also if it has renewed certificates meanwhile: they are good by all clocks. Its own host works all the while."""
    one, two = pair
    flockers = [Flocker(member, flocker_binary) for member in pair]
    one.set_clock(days * DAY)
    one.kill_flocker("control")
    start_control(one, flocker_binary)
    wait_for("the agent to say why", lambda: "this host's says" in agent_log(two))
    wait_for("control to say why", lambda: "by this host's clock, which says" in control_log(one))
    flockers[0].ok("Create", Name="here")
    if days > 0:
        wait_for("the renewal", lambda: "control-service.crt is renewed" in control_log(one))
    else:
        assert "the cluster began later" in refused(one, "ca", "user", "alice", "-o", "/tmp")
        assert "renewed" not in control_log(one)
    one.set_clock(0)
    wait_state(one, two, "up")
    one.kill_flocker("control")
    start_control(one, flocker_binary)
    wait_state(one, two, "up")
    flockers[1].ok("Create", Name="there")
    verify = "openssl s_client -connect 127.0.0.1:4523 -CAfile /etc/flocker/cluster.crt </dev/null 2>/dev/null | grep 'Verify return code'"
    assert "0 (ok)" in one.run(["sh", "-c", verify]).stdout


def test_tokens_run_out_by_the_clock_of_control(pair, hosts):
    one, _ = pair
    three = hosts("host3", network=one.network, own_clock=True)
    three.flocker_binary = one.flocker_binary
    text = token(one)
    one.set_clock(2 * HOUR)
    assert "expired" in refused(three, "join", "10.77.0.1", "--token", text)
    three.set_clock(2 * DAY)
    three.flocker("join", "10.77.0.1", "--token", token(one), timeout=60)
    wait_state(one, three, "up")


def test_no_clock_empties_the_trash(hosts, flocker_binary):
    """Ahead by years, while control runs or when it starts; then right again."""
    one = hosts("trash", own_clock=True)
    one.start_flocker(flocker_binary, ["--rest=none"])
    flocker = Flocker(one, flocker_binary)
    for name in ("old", "new", "last"):
        flocker.ok("Create", Name=name)
    flocker.ok("Remove", Name="old")
    one.set_clock(1000 * DAY)
    flocker.ok("Remove", Name="new")  # control looks at what is due
    wait_for("control to notice", lambda: "the clock was set forward by" in control_log(one), 70)
    assert trash(one) == {"old", "new"}
    one.kill_flocker("control")
    one.flocker("up", "--rest=none")
    flocker.ok("Remove", Name="last")
    assert trash(one) == {"old", "new", "last"}
    one.set_clock(0)
    one.kill_flocker("control")
    one.flocker("up", "--rest=none")
    assert trash(one) == {"old", "new", "last"}
    for name in ("old", "new", "last"):
        one.flocker("volume", "restore", name)
    one.flocker("volume", "rm", "--purge", "old")
    wait_for("it to be gone", lambda: {entry["name"] for entry in one.flocker_json("volume", "ls", "--all")} == {"new", "last"})
