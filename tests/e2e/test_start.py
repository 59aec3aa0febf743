"""`flocker up` and `flocker down` when something is wrong with this host: what they say, and that there is a way on."""
import pytest

from host import CommandFailed

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def refused(host, *words, as_user=()):
    with pytest.raises(CommandFailed) as caught:
        host.run([*as_user, host.flocker_binary, *words])
    return caught.value


def test_a_pool_that_cannot_be_opened_is_named_and_given_up(host, flocker_binary):
    host.flocker_binary = flocker_binary
    said = refused(host, "up", "--rest=none", "--pool=/dev/null").stderr
    assert "/dev/null is not" in said and "`flocker down` stops it" in said
    said = refused(host, "up", "--rest=none", "--pool=/var/lib/flocker/good.img").stderr
    assert "agent is running, but not ready" in said and "/dev/null is not" in said
    assert "agent stopped" in host.flocker("down").stdout
    host.flocker("up", "--rest=none", "--pool=/var/lib/flocker/good.img")
    assert "options count when it starts" in host.flocker("up", "--pool=/dev/null").stdout
    host.flocker("down")
    assert not host.loops()


def test_a_pool_that_an_earlier_agent_left_mounted_is_not_taken_for_unmounted(host, flocker_binary):
    host.start_flocker(flocker_binary, ["--rest=none"])
    host.flocker("down", "--keep-mounted")
    refused(host, "up", "--rest=none", "--pool=/dev/null")
    assert "the pool is not open" in refused(host, "down").stderr
    host.flocker("down", "--keep-mounted")
    host.flocker("up", "--rest=none")
    host.flocker("down")
    assert not host.loops()


def test_users_are_told_that_it_is_for_root(host, flocker_binary):
    host.start_flocker(flocker_binary, ["--rest=none"])
    for words in (["up"], ["down"], ["status"], ["volume", "ls"], ["pool", "ls"]):
        error = refused(host, *words, as_user=NOBODY)
        assert error.returncode == 3 and "root" in error.stderr, words
        assert "down" not in error.stdout
    assert "is running" in host.flocker("up").stdout
    host.flocker("down")
