"""`flocker up` and `flocker down` when something is wrong with this host: what they say, and that there is a way on."""
import concurrent.futures
import json
import re

import pytest

from host import CommandFailed
from paths import wait_for

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def refused(host, *words, as_user=()):
    with pytest.raises(CommandFailed) as caught:
        host.run([*as_user, host.flocker_binary, *words])
    return caught.value


def test_a_pool_that_cannot_be_opened_is_named_and_given_up(host, flocker_binary):
    host.flocker_binary = flocker_binary
    failed = refused(host, "up", "--rest=none", "--pool=/dev/null")
    said = failed.stderr
    assert "waiting for agent: the pool is not open: /dev/null is not" in failed.stdout
    assert "/dev/null is not" in said and "`flocker down` stops it" in said
    said = refused(host, "up", "--rest=none", "--pool=/var/lib/flocker/good.img").stderr
    assert "agent is running, but not ready" in said and "/dev/null is not" in said and "count when it starts: `flocker down` first" in said
    assert "agent stopped" in host.flocker("down").stdout
    host.flocker("up", "--rest=none", "--pool=/var/lib/flocker/good.img")
    assert "options count when it starts" in host.flocker("up", "--pool=/dev/null").stdout
    host.flocker("down")
    assert not host.loops()


CONFIG = "/etc/flocker/flocker.conf"


def test_options_are_kept(host, flocker_binary):
    """Given once they count at each start, however the daemons are started; they can be changed, forgotten, and edited by hand."""
    host.flocker_binary = flocker_binary
    words = ["--rest=127.0.0.1:4600", "--pool=mine.img", "--pool-size=512M", "--format", "--host=10.9.8.7"]
    said = host.run(["sh", "-c", 'cd /var/lib/flocker && exec "$@"', "sh", flocker_binary, "up", *words]).stdout
    assert "options are kept in /etc/flocker/flocker.conf" in said
    kept = host.path(CONFIG).read_text()
    assert kept.startswith("# ") and kept.splitlines()[1:] == [
        "rest=127.0.0.1:4600", "pool=/var/lib/flocker/mine.img", "pool-size=512M", "host=10.9.8.7"], kept

    def is_as_told(port=4600, address="10.9.8.7"):
        connect = ["python3", "-c", f"import socket; socket.create_connection(('127.0.0.1', {port}))"]
        assert host.run(connect, check=False).returncode == 0 and host.flocker_json("node", "ls")[0]["host"] == address
        assert host.path("/var/lib/flocker/mine.img").exists() and not host.path("/var/lib/flocker/pool.img").exists()

    is_as_told()
    for role in ("agent", "control"):
        host.kill_flocker(role)
    assert "kept" not in host.flocker("up").stdout
    is_as_told()
    host.reboot()
    host.flocker("up")
    is_as_told()
    # One that runs keeps what it has; the next start takes what was told last.
    assert "options count when it starts" in host.flocker("up", "--rest=127.0.0.1:4601").stdout
    is_as_told()
    host.flocker("down")
    host.flocker("up")
    is_as_told(4601)
    host.flocker("down")
    host.path(CONFIG).write_text("# by hand\n" + host.path(CONFIG).read_text() + "\n# of the cluster\ntrash-keep = 60\n")
    assert "kept" in host.flocker("up", "--forget=host", "--forget=rest").stdout
    is_as_told(4523, "127.0.0.1")
    kept = host.path(CONFIG).read_text()
    assert kept.startswith("# by hand\n") and "# of the cluster\ntrash-keep=60\n" in kept and "host" not in kept.split("pool", 1)[1], kept
    host.flocker("down")
    # What a service manager starts reads them too; its own words go before them.
    with open(host.work / "log" / "foreground.log", "w") as log:
        control = host.popen([flocker_binary, "control", "--rest=127.0.0.1:4602"], stdout=log, stderr=log)
        agent = host.popen([flocker_binary, "agent"], stdout=log, stderr=log)
        assert "agent is running" in wait_for("both", lambda: host.flocker("up", check=False).stdout, 20)
        is_as_told(4602, "127.0.0.1")
        host.flocker("down")
        assert control.wait(10) == 0 and agent.wait(10) == 0
    host.flocker("up", "--forget=all", "--pool-size=512M")
    assert host.path(CONFIG).read_text().splitlines()[-1] == "pool-size=512M" and host.path("/var/lib/flocker/pool.img").exists()
    said = host.flocker("up", "--forget=pool-size").stdout
    assert "control is running\n" in said and "agent is running; options count" in said
    host.flocker("down")


def test_what_is_meant_for_one_start_is_not_kept(host, flocker_binary):
    host.flocker_binary = flocker_binary
    said = host.flocker("up", "--rest=none", "--backend=memory", "--format").stdout
    assert "memory" in host.flocker("status").stdout and "kept" in said
    assert host.path(CONFIG).read_text().splitlines()[1:] == ["rest=none"]
    host.flocker("down")
    host.flocker("up", "--pool-size=512M")
    assert "btrfs" in host.flocker("status").stdout
    host.flocker("down")


def test_options_that_are_no_good_are_not_kept(host, flocker_binary):
    """And a file that is no good is told by whatever reads it, with the line."""
    host.flocker_binary = flocker_binary
    for words, said in ((["--rest=nowhere"], "--rest: 'nowhere' is not ADDRESS:PORT"), (["--peers=1.2.3.4"], "--peers"),
                        (["--pool-size=x"], "size"), (["--host=a\nb"], "several lines"), (["--host="], "--host is empty"),
                        (["--forget=hots"], "no such option")):
        assert said in refused(host, "up", *words).stderr, words
    assert not host.path(CONFIG).exists()
    host.path("/etc/flocker").mkdir(exist_ok=True)
    host.path(CONFIG).write_text("rest=none\nagnets=0.0.0.0:4524\n")
    for command in ("up", "control", "agent"):
        assert "/etc/flocker/flocker.conf line 2: there is no option 'agnets'" in refused(host, command).stderr
    assert host.processes() == {}


# Accepts one connection that comes later than 6 s from now: by then the agent makes its longest pauses.
LISTEN = """
import os, socket, time
path = "/run/flocker/agents.sock"
end = time.monotonic() + 6
while True:
    if os.path.exists(path):
        os.unlink(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.accept()[0].close()
    if time.monotonic() > end:
        break
os.unlink(path)
"""


def test_up_waits_for_an_agent_that_pauses_before_it_tries_control_again(host, flocker_binary):
    host.start_flocker(flocker_binary, ["--rest=none"])
    host.kill_flocker("control")
    host.run(["python3", "-c", LISTEN])
    said = host.flocker("up", "--rest=none").stdout
    assert "control started" in said and "agent is running" in said


def test_a_pool_that_an_earlier_agent_left_mounted_is_not_taken_for_unmounted(host, flocker_binary):
    host.start_flocker(flocker_binary, ["--rest=none"])
    host.flocker("down", "--keep-mounted")
    refused(host, "up", "--rest=none", "--pool=/dev/null")
    assert "the pool is not open" in refused(host, "down").stderr
    host.flocker("down", "--keep-mounted")
    host.flocker("up", "--forget=pool")
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


def test_started_by_several_at_once_one_of_each_runs(host, flocker_binary):
    """Also over the sockets that killed ones left: nobody takes the socket of somebody who has just made it."""
    host.start_flocker(flocker_binary, ["--pool-size=512M"])
    for _ in range(15):
        pids = [host.kill_flocker(role) for role in ("agent", "control")]
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            list(pool.map(lambda _: host.flocker("up"), range(5)))
        assert "up" in host.flocker("status").stdout
        wait_for("the others to give up", lambda: len([line for line in host.processes().values() if "flocker" in line]) == 2)
        assert not set(pids) & set(host.processes())
    host.flocker("down")
    assert host.processes() == {}


def test_run_folder_removed(host, flocker_binary):
    """status says so, down does not take them for ended, up replaces them; volumes stay mounted."""
    host.start_flocker(flocker_binary, ["--rest=none", "--pool-size=512M"])
    node = host.flocker_json("node", "ls")[0]["id"]
    dataset = json.dumps({"primary": node, "metadata": {"name": "db"}})  # stays mounted without a container
    assert host.ask("/run/flocker/control.sock", "POST", "/v1/configuration/datasets", dataset.encode())[0] == 201
    point = wait_for("the mount", lambda: host.flocker_json("volume", "inspect", "db")[0].get("path"))
    before = host.processes()
    host.run(["rm", "-r", "/run/flocker"])
    status = host.run([flocker_binary, "status"], check=False)
    for role in ("control", "agent"):
        assert f"{role} runs as process" in status.stdout and "`flocker up` replaces it" in status.stdout, status.stdout
    assert status.returncode
    assert "`flocker up` mends that" in refused(host, "down").stderr
    assert host.processes() == before
    said = host.flocker("up", "--rest=none", "--pool-size=512M").stdout
    assert "agent (process" in said and "control (process" in said and said.count("is replaced") == 2
    assert not set(before) & set(host.processes())
    assert f" {point} " in host.path("/proc/1/mountinfo").read_text()
    assert host.flocker_json("volume", "inspect", "db")[0]["path"] == point
    assert host.flocker("down").stdout.count("stopped") == 2
    assert host.processes() == {}


def test_a_disk_too_small_for_the_pool_is_told(host, flocker_binary):
    host.run(["mkdir", "/tmp/disk"])
    host.run(["mount", "-t", "tmpfs", "-o", "size=300M", "tmpfs", "/tmp/disk"])
    host.start_flocker(flocker_binary, ["--rest=none", "--pool=/tmp/disk/pool.img", "--pool-size=256M"])
    assert "warning" not in host.flocker("status").stdout
    told = r"the pool's file may still become \S+ larger, but the disk below it has only \S+ free"
    assert re.search(told, host.flocker("pool", "grow", "2G").stdout)
    assert re.search("warning: " + told, host.flocker("status").stdout)
    host.flocker("down")


def test_mount_root_that_others_may_enter_is_told(host, flocker_binary):
    log = host.path("/var/log/flocker/agent.log")
    for mode, told in ((0o755, 1), (0o700, 0)):
        host.path("/flocker").chmod(mode)
        host.start_flocker(flocker_binary, ["--rest=none", "--pool-size=512M"])
        assert log.read_text().count("/flocker has mode 0755: other users of this host") == told
        assert host.path("/flocker").stat().st_mode & 0o777 == mode
        host.flocker("down")
        log.unlink()


def test_keys_that_others_may_read_are_told(host, flocker_binary):
    host.start_flocker(flocker_binary, ["--rest=none", "--pool-size=512M"])
    logs = [host.path(f"/var/log/flocker/{role}.log") for role in ("agent", "control")]
    assert not any("root's alone" in log.read_text() for log in logs)
    host.path("/etc/flocker/node.key").chmod(0o640)
    host.stop_flocker()
    host.start_flocker(flocker_binary, ["--rest=none", "--pool-size=512M"])
    for log in logs:
        assert log.read_text().count("root's alone") == 1
        assert "/etc/flocker/node.key is not root's alone (owner 0, mode 0640)" in log.read_text()


def test_down_ends_although_another_namespace_keeps_the_pool(host, flocker_binary):
    host.start_flocker(flocker_binary)
    keeper = host.popen(["unshare", "--mount", "--propagation", "private", "sleep", "600"])
    wait_for("its copy of the mounts", lambda: "sleep 600" in host.processes().values())
    done = host.flocker("down", check=False)
    keeper.kill()
    assert done.returncode and "another mount namespace, such as a container's, has it mounted" in done.stderr
    assert "agent stopped" in done.stdout and "control stopped" in done.stdout
    assert "started" in host.flocker("up").stdout
    host.flocker("down")
