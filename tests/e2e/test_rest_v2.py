"""REST API v2: names, sizes that change, the trash, answers that wait for the effect, and errors that have a code."""
import errno
import json
import os
import re
import signal
import socket
import sqlite3
import threading
import time
from contextlib import closing
from datetime import datetime

import pytest

from paths import wait_for
from rest import MIB, SIZE, Rest, cluster, error_code, new_id, SOME_ID, up

VOLUMES = "/v2/volumes"
MEMBERS = {"id", "name", "state", "size", "metadata", "owner", "host", "target", "epoch", "options", "ready", "mounted", "in_use",
           "node_state", "created", "purge"}
PLAIN = {"uid": 0, "gid": 0, "mode": 0o777, "nocow": False}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(scope="module", name="host")
def host_of_module(module_hosts, flocker_binary):
    with cluster(module_hosts, flocker_binary) as host:
        yield host


@pytest.fixture(scope="module")
def rest(host):
    return Rest(host, by_socket=True)


@pytest.fixture(scope="module")
def node(rest):
    return rest.node()


@pytest.fixture
def name(request):
    return "n" + re.sub(r"\W", ".", request.node.name)[:100] + new_id()[:8]


def create(rest, **body):
    return rest.ok("POST", f"{VOLUMES}?wait=20", body, 201)


def get(rest, name_or_id):
    return rest.ok("GET", f"{VOLUMES}/{name_or_id}")


def remove(rest, name_or_id, query=""):
    return rest.ok("DELETE", f"{VOLUMES}/{name_or_id}{query}")


def refused(rest, code, method, path, body=None):
    reply = rest(method, path, body)
    assert error_code(reply) == code, (method, path, body, reply)
    return reply.json["description"]


INVALID, NOT_FOUND, CONFLICT, BUSY = (400, "invalid"), (404, "not-found"), (409, "conflict"), (409, "in-use")


# ---- create, list, get -----------------------------------------------------------------------------------------------------------


def test_create(rest, node, name):
    created = create(rest, name=name)
    assert set(created) == MEMBERS
    assert created["name"] == name and created["owner"] == created["target"] == node and created["host"] == "127.0.0.1"
    assert (created["state"], created["size"], created["metadata"], created["options"]) == ("live", 0, {}, PLAIN)
    assert created["ready"] and not created["mounted"] and created["epoch"] == 1
    assert re.fullmatch(TIME, created["created"]) and created["purge"] is None
    assert get(rest, name) == get(rest, created["id"]) == get(rest, created["id"].upper()) == created
    assert created in rest.ok("GET", VOLUMES)


def test_create_with_all(rest, node, name):
    wish = {"name": name, "id": new_id(), "size": 100 * MIB, "owner": node, "metadata": {"a": "é", "name": "other"},
            "options": {"uid": 999, "gid": (1 << 32) - 2, "mode": 0o2750, "nocow": True}}
    created = create(rest, **wish)
    assert {member: created[member] for member in wish} == wish
    stat = rest.host.path(mounted(rest, created["id"])).stat()
    assert (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777) == (999, (1 << 32) - 2, 0o2750)


def mounted(rest, volume_id):
    """Wishes it mounted as v1's clients do, and returns where it is."""
    rest.ok("POST", f"/v1/configuration/datasets/{volume_id}", {"primary": rest.node()})
    return rest.mounted(volume_id)["path"]


@pytest.mark.parametrize("size, bytes_", [(0, 0), (SIZE, SIZE), (SIZE + 1, SIZE + 1024), ("64M", SIZE), ("1.5GiB", 3 << 29), ("0", 0),
                                          (1 << 62, 1 << 62)])
def test_sizes(rest, size, bytes_):
    assert rest.ok("POST", VOLUMES, {"size": size, "owner": new_id()}, 201)["size"] == bytes_


def test_nameless(rest):
    created = create(rest)
    assert created["name"] is None and get(rest, created["id"]) == created
    assert remove(rest, created["id"])["state"] == "trashed"
    assert rest.ok("POST", f"{VOLUMES}/{created['id']}/restore", {})["name"] is None


def test_unknown_owner_and_no_wait(rest, name):
    begin = time.monotonic()
    created = rest.ok("POST", f"{VOLUMES}?wait=1", {"name": name, "owner": new_id()}, 201)
    assert 0.9 < time.monotonic() - begin < 5, "it waits as long as it was told to, and no longer"
    assert not created["ready"] and created["host"] == "" and created["error"]["code"] == "unavailable"
    begin = time.monotonic()
    assert not rest.ok("POST", VOLUMES, {"owner": new_id()}, 201)["ready"]
    assert time.monotonic() - begin < 0.9


def test_names_and_ids_are_unique(rest, name):
    created = create(rest, name=name)
    assert name in refused(rest, CONFLICT, "POST", VOLUMES, {"name": name})
    assert created["id"] in refused(rest, CONFLICT, "POST", VOLUMES, {"id": created["id"]})
    remove(rest, name)
    assert create(rest, name=name)["id"] != created["id"], "a name in the trash is free"
    refused(rest, CONFLICT, "POST", VOLUMES, {"id": created["id"]})


def test_list(rest, name):
    live, trashed = create(rest, name=name), create(rest, name=name + ".2")
    remove(rest, trashed["id"])

    def ids(path):
        return {v["id"] for v in rest.ok("GET", path)} & {live["id"], trashed["id"]}

    assert ids(VOLUMES) == ids(f"{VOLUMES}?all=0") == ids(f"{VOLUMES}?x=all&al=1&all2=1") == {live["id"]}
    assert ids(f"{VOLUMES}?all=1") == ids(f"{VOLUMES}?all") == ids(f"{VOLUMES}?x&all=1") == {live["id"], trashed["id"]}


def test_pages(rest, name):
    made = {create(rest, name=f"{name}.{i}")["id"] for i in range(5)}
    seen, target = [], f"{VOLUMES}?limit=2"
    while target:
        page = rest("GET", target)
        assert page.status == 200 and len(page.json) <= 2
        seen += [volume["id"] for volume in page.json]
        target = re.fullmatch(r'<(/v2/volumes\?after=.*&limit=2)>; rel="next"', page.headers["Link"])[1] if "Link" in page.headers else None
    assert seen == sorted(set(seen)) and made <= set(seen)
    assert rest("GET", f"{VOLUMES}?limit=10000&all=1").headers.get("Link") is None
    for query in ("limit=0", "limit=x", "limit=", "after=x", "after="):
        refused(rest, INVALID, "GET", f"{VOLUMES}?{query}")


BAD_NAMES = [None, 5, True, [], {}, "", "é", "-x", ".x", "a b", "a/b", "x" * 256, "x\n", "\x7f", "x\u202e"]
BAD_IDS = [None, 5, "", "x", "0" * 36, "0e2d7f4c-58f5-1b0e-9a27-1f6f7f0c6a11", [], {}]
BAD_SIZES = [None, -1, 1, 1023, SIZE - 1024, (1 << 62) + 1, (1 << 63) - 1, True, 1e9, float(SIZE), "", "x", "-1", "64Q", "1e9", "64 M", " 64M",
             "9999999999999999999999P", [], {}]
BAD_OPTIONS = [None, 5, "x", [], [1], {"uid": -1}, {"uid": (1 << 32) - 1}, {"uid": 1 << 32}, {"gid": -1}, {"uid": "0"}, {"uid": 1.0}, {"uid": None},
               {"mode": -1}, {"mode": 0o10000}, {"mode": "0777"}, {"nocow": 1}, {"nocow": "true"}, {"nocow": None}, {"x": 1}, {"é" * 200: 1}]
BAD_METADATA = [None, 5, "x", [], {"a": 1}, {"a": None}, {"": "x"}, {"a\n": "x"}, {"x" * 257: ""}, {"a": "é" * 257}, {str(i): "" for i in range(17)}]
NOT_JSON = [b"", b" ", b"{", b"{}{}", b'{"name": "a", "name": "a"}', b'{"name": "\\u0000"}', b'{"name": "\xff"}', b"[" * 33 + b"]" * 33, b"[" * 10**6,
            b'{"size": 9223372036854775808}']


def test_bad_wishes(rest):
    before = rest.ok("GET", f"{VOLUMES}?all=1")
    cases = [("name", BAD_NAMES), ("id", BAD_IDS), ("owner", BAD_IDS), ("size", BAD_SIZES), ("options", BAD_OPTIONS), ("metadata", BAD_METADATA)]
    names = ("x", "0" * 36)  # no ids, but nodes could be called so
    for member, values in cases:
        for value in values:
            refused(rest, (404, "not-found") if member == "owner" and value in names else INVALID, "POST", VOLUMES, {member: value})
    for unknown in ("x", "Name", "é" * 400, "x" * 5000, ""):
        refused(rest, INVALID, "POST", VOLUMES, {unknown: 1})
    assert rest.ok("GET", f"{VOLUMES}?all=1") == before


def test_bad_bodies(rest, name):
    created = create(rest, name=name)
    for method, path in (("POST", VOLUMES), ("PATCH", f"{VOLUMES}/{name}"), ("POST", f"{VOLUMES}/{name}/restore"), ("POST", "/v2/backup")):
        for body in NOT_JSON:
            refused(rest, INVALID, method, path, body)
        for body in (None, 5, "x", [], [{}], True):
            refused(rest, INVALID, method, path, json.dumps(body).encode())
    assert get(rest, name) == created
    assert rest("POST", VOLUMES, b" " * (MIB + 1)).status == 413


@pytest.mark.parametrize("wait", ["x", "-1", "1x", "", "1.5", "%31%30%zz"])
def test_bad_wait(rest, name, wait):
    """Refused before anything is done."""
    path = f"?wait={wait}"
    assert "wait" in refused(rest, INVALID, "POST", VOLUMES + path, {"name": name})
    refused(rest, NOT_FOUND, "GET", f"{VOLUMES}/{name}")
    create(rest, name=name)
    refused(rest, INVALID, "PATCH", f"{VOLUMES}/{name}{path}", {"size": SIZE})
    refused(rest, INVALID, "DELETE", f"{VOLUMES}/{name}{path}")
    assert get(rest, name)["state"] == "live" and get(rest, name)["size"] == 0


@pytest.mark.parametrize("wait", ["30", "31", "99999999999999999999999", "%32%30", "0", "00020"])
def test_wait_ends_with_the_effect(rest, name, wait):
    """More than 30 s is taken for 30."""
    begin = time.monotonic()
    created = rest.ok("POST", f"{VOLUMES}?wait={wait}", {"name": name}, 201)
    assert created["ready"] or wait == "0"
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("path", ["/", "/x/y", "/v2", "/v2/x", VOLUMES + "/", f"{VOLUMES}/a/b", f"{VOLUMES}/a/restore/", "/v2/status/", "/v2/%ff"])
def test_paths(rest, path):
    reply = rest("GET", path)
    assert reply.status == 404 and reply.json["description"]
    if path.startswith("/v2/"):
        assert error_code(reply) == NOT_FOUND
    for method, known, allowed in (("PUT", VOLUMES, "GET, POST"), ("POST", f"{VOLUMES}/x", "GET, PATCH, DELETE"), ("DELETE", "/v2/nodes", "GET"),
                                   ("GET", f"{VOLUMES}/x/restore", "POST"), ("GET", "/v2/backup", "POST")):
        reply = rest(method, known)
        assert reply.status == 405 and reply.headers["Allow"] == allowed and reply.json["code"]


@pytest.mark.parametrize("missing", ["nobody", "%6eobody", SOME_ID, "x" * 900, "%ff", "a%20b", "%2f", "%c3%a9" * 100, "..", "%1b[31m"])
def test_what_is_not_there(rest, missing):
    for method, path, body in (("GET", "", None), ("DELETE", "", None), ("DELETE", "?purge=1", None), ("PATCH", "", {"size": SIZE}),
                               ("POST", "/restore", {})):
        text = refused(rest, NOT_FOUND, method, f"{VOLUMES}/{missing}{path}", body)
        assert "no such volume" in text
    for bad in ("%", "%0", "%00", "%gg"):
        refused(rest, INVALID, "GET", f"{VOLUMES}/{bad}")


# ---- resize ------------------------------------------------------------------------------------------------------------------------


def fill(path, megabytes):
    """Megabytes that could be written before the limit was met."""
    with open(path, "wb") as file:
        for written in range(megabytes):
            try:
                file.write(os.urandom(MIB))
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                assert error.errno == errno.EDQUOT
                return written
    return megabytes


def test_resize(rest, name):
    created = create(rest, name=name, size=SIZE)
    file = rest.host.path(mounted(rest, created["id"])) / "file"
    assert 50 <= fill(file, 100) <= 64
    grown = rest.ok("PATCH", f"{VOLUMES}/{name}?wait=20", {"size": "192M"})
    assert grown["size"] == 192 * MIB and "error" not in grown
    assert fill(file, 100) == 100
    assert 150 <= fill(file, 300) <= 192
    assert rest.ok("PATCH", f"{VOLUMES}/{created['id']}?wait=20", {"size": 0})["size"] == 0
    assert fill(file, 250) == 250
    for small in (SIZE, 2 * SIZE):  # less than what is in it: told, and nothing is taken away
        shrunk = rest.ok("PATCH", f"{VOLUMES}/{name}?wait=3", {"size": small})
        assert shrunk["size"] == small and shrunk["error"]["code"] == "conflict" and "250" in shrunk["error"]["description"]
        assert file.stat().st_size == 250 * MIB
    fitting = wait_for("a size that fits", lambda: rest.ok("PATCH", f"{VOLUMES}/{name}?wait=20", {"size": "256M"}))
    assert fitting["size"] == 256 * MIB and "error" not in fitting
    with open(file, "ab", buffering=0) as more, pytest.raises(OSError) as error:
        for _ in range(12):
            more.write(os.urandom(MIB))
        os.fsync(more.fileno())
    assert error.value.errno == errno.EDQUOT
    assert rest.states(created["id"])[0]["maximum_size"] == 256 * MIB


def test_resize_refuses(rest, name):
    created = create(rest, name=name, size=SIZE)
    for size in BAD_SIZES:
        refused(rest, INVALID, "PATCH", f"{VOLUMES}/{name}", {"size": size})
    for body in ({}, {"size": SIZE, "name": "x"}, {"name": "x"}, {"é" * 300: 1}):
        refused(rest, INVALID, "PATCH", f"{VOLUMES}/{name}", body)
    same = rest.ok("PATCH", f"{VOLUMES}/{name}?wait=20", {"size": SIZE})
    assert same == created
    remove(rest, name)
    assert name in refused(rest, NOT_FOUND, "PATCH", f"{VOLUMES}/{name}", {"size": SIZE})


# ---- the trash -----------------------------------------------------------------------------------------------------------------------


def test_remove_and_restore(rest, name):
    created = create(rest, name=name, metadata={"a": "b"})
    (rest.host.path(mounted(rest, created["id"])) / "file").write_text("precious")
    removed = remove(rest, name)
    assert removed["state"] == "trashed" and re.fullmatch(TIME, removed["purge"]) and not removed["ready"]
    assert removed["purge"] > removed["created"]
    assert not rest.host.path(f"/flocker/{created['id']}").is_mount()
    assert get(rest, name)["id"] == get(rest, created["id"])["id"] == created["id"]
    assert "trash" in refused(rest, NOT_FOUND, "DELETE", f"{VOLUMES}/{name}")
    restored = rest.ok("POST", f"{VOLUMES}/{name}/restore?wait=20", {})
    assert restored["state"] == "live" and restored["purge"] is None and restored["metadata"] == {"a": "b"} and restored["ready"]
    assert (rest.host.path(mounted(rest, created["id"])) / "file").read_text() == "precious"
    assert "not in the trash" in refused(rest, CONFLICT, "POST", f"{VOLUMES}/{name}/restore", {})


def test_restore_under_another_name(rest, name):
    first = create(rest, name=name)
    remove(rest, name)
    second = create(rest, name=name)
    assert name in refused(rest, CONFLICT, "POST", f"{VOLUMES}/{first['id']}/restore", {})
    assert name in refused(rest, CONFLICT, "POST", f"{VOLUMES}/{first['id']}/restore", {"name": name})
    for bad in BAD_NAMES:
        refused(rest, INVALID, "POST", f"{VOLUMES}/{first['id']}/restore", {"name": bad})
    refused(rest, INVALID, "POST", f"{VOLUMES}/{first['id']}/restore", {"name": name + ".old", "x": 1})
    restored = rest.ok("POST", f"{VOLUMES}/{first['id']}/restore?wait=20", {"name": name + ".old"})
    assert (restored["id"], restored["name"], restored["ready"]) == (first["id"], name + ".old", True)
    assert get(rest, name)["id"] == second["id"] and get(rest, name + ".old")["id"] == first["id"]


def test_trash_by_name_is_the_latest(rest, name):
    """Several of one name in the trash: the one removed last is meant, unless it is to be destroyed."""
    ids = []
    for _ in range(5):
        ids.append(create(rest, name=name)["id"])
        remove(rest, name)
        time.sleep(0.01)
    assert get(rest, name)["id"] == ids[-1]
    text = refused(rest, CONFLICT, "DELETE", f"{VOLUMES}/{name}?purge=1")
    assert name in text and "id" in text
    assert rest.ok("POST", f"{VOLUMES}/{name}/restore", {})["id"] == ids[-1]
    remove(rest, name)
    assert get(rest, name)["id"] == ids[-1]


def test_purge(rest, name):
    created = create(rest, name=name)
    path = rest.host.path(mounted(rest, created["id"]))
    (path / "file").write_text("x")
    assert remove(rest, name, "?purge=1")["state"] == "trashed", "what is live goes to the trash first"
    purged = remove(rest, name, "?purge=1&wait=20")
    assert purged["state"] == "deleted" and not purged["ready"]
    assert created["id"] not in [v["id"] for v in rest.ok("GET", f"{VOLUMES}?all=1")]
    refused(rest, NOT_FOUND, "GET", f"{VOLUMES}/{name}")
    for query in ("", "?purge=1"):
        assert "deleted" in refused(rest, NOT_FOUND, "DELETE", f"{VOLUMES}/{created['id']}{query}")
    refused(rest, CONFLICT, "POST", f"{VOLUMES}/{created['id']}/restore", {})
    assert rest.dataset(created["id"])["deleted"], "v1 goes on listing it"


def test_purge_zero_is_no_purge(rest, name):
    create(rest, name=name)
    remove(rest, name)
    refused(rest, NOT_FOUND, "DELETE", f"{VOLUMES}/{name}?purge=0")
    assert get(rest, name)["state"] == "trashed"


def test_purge_of_what_has_no_owner(rest, name):
    created = rest.ok("POST", VOLUMES, {"name": name, "owner": new_id()}, 201)
    assert created["owner"] in refused(rest, (503, "unavailable"), "DELETE", f"{VOLUMES}/{name}")
    assert rest.ok("DELETE", f"/v1/configuration/datasets/{created['id']}")["deleted"]


def test_remove_while_held(rest, name, node):
    created = create(rest, name=name)
    rest.ok("POST", "/v1/configuration/leases", {"dataset_id": created["id"], "node_uuid": node, "expires": None}, 201)
    assert name in refused(rest, BUSY, "DELETE", f"{VOLUMES}/{name}")
    rest.ok("DELETE", f"/v1/configuration/leases/{created['id']}")
    assert remove(rest, name)["state"] == "trashed"


def test_remove_at_once(rest, name):
    """Of many who remove one volume, or create one name, one succeeds and the others hear why they did not."""
    for method, path, body, wins in (("POST", VOLUMES, {"name": name}, 201), ("DELETE", f"{VOLUMES}/{name}", None, 200)):
        replies = []
        threads = [threading.Thread(target=lambda: replies.append(rest(method, path, body))) for _ in range(8)]  # pylint: disable=cell-var-from-loop
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statuses = sorted(reply.status for reply in replies)
        assert statuses.count(wins) >= 1 and set(statuses) <= {wins, 404, 409}, replies
    assert get(rest, name)["state"] == "trashed"


# ---- nodes, status, backup -----------------------------------------------------------------------------------------------------------


def test_nodes(host, rest, node):
    era = host.path("/run/boot_id").read_text().strip()
    (shown,) = rest.ok("GET", "/v2/nodes")
    booted = datetime.fromisoformat(shown.pop("booted").replace("Z", "+00:00")).timestamp()
    assert abs(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - booted) < 60
    known = {"id": node, "host": "127.0.0.1", "era": era, "connected": True, "state": "up"}
    assert known.items() <= shown.items(), shown


def test_a_node_is_removed_only_when_it_has_nothing(rest, node, name):
    rest.ok("POST", "/v2/volumes?wait=10", {"name": name}, 201)
    assert error_code(rest("DELETE", f"/v2/nodes/{node}")) == (409, "conflict")
    assert error_code(rest("DELETE", f"/v2/nodes/{new_id()}")) == (404, "not-found")
    assert error_code(rest("DELETE", "/v2/nodes/7")) == (404, "not-found")


def test_tokens_are_asked_for_rightly(rest, node):
    for body in ({"ttl": 0}, {"ttl": 10**9}, {"ttl": "x"}, {"node": 5}, {"x": 1}, []):
        assert error_code(rest("POST", "/v2/tokens", body)) == (400, "invalid"), body
    assert error_code(rest("POST", "/v2/tokens", {"node": new_id()})) == (404, "not-found")
    assert error_code(rest("POST", "/v2/tokens", {"node": node})) == (503, "unavailable"), "no other host can reach this control service"


def test_status(rest, name):
    def counts():
        status = rest.ok("GET", "/v2/status")
        assert status["version"] == rest.ok("GET", "/v1/version")["flocker"] and status["store"] == "sqlite"
        assert status["nodes"] == {"known": 1, "connected": 1}
        return status["volumes"]

    before = counts()
    create(rest, name=name)
    assert counts() == {**before, "live": before["live"] + 1}
    remove(rest, name)
    assert counts() == {**before, "trashed": before["trashed"] + 1}
    remove(rest, name, "?purge=1&wait=20")
    assert counts() == before


def test_backup(host, rest, name):
    create(rest, name=name)
    assert rest.ok("POST", "/v2/backup", {"path": "/tmp/copy.db"}) == {"path": "/tmp/copy.db"}
    with closing(sqlite3.connect(f"file:{host.work}/disk/tmp/copy.db?mode=ro&immutable=1", uri=True)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert copy.execute("SELECT COUNT(*) FROM volume WHERE name = ?", [name]).fetchone() == (1,)
        listed = len(rest.ok("GET", "/v1/configuration/datasets"))
        assert copy.execute("SELECT COUNT(*) FROM volume").fetchone() == (listed,)
    assert host.path("/tmp/copy.db").stat().st_mode & 0o077 == 0
    assert "/tmp/copy.db" in rest("POST", "/v2/backup", {"path": "/tmp/copy.db"}).json["description"]
    for path in (None, 5, "", "x", "./x", [], {}, "/no/such/folder/x", "/tmp", "/tmp/" + "x" * 300, "/" + "x/" * 3000):
        reply = rest("POST", "/v2/backup", {"path": path})
        assert reply.status >= 400 and set(reply.json) == {"code", "description"}, reply
    for body in ({}, {"path": "/tmp/other.db", "x": 1}):
        refused(rest, INVALID, "POST", "/v2/backup", body)
    assert not host.path("/tmp/other.db").exists()


def test_backup_is_for_local_root(host, rest):
    remote = Rest(host)
    assert refused(remote, (403, "denied"), "POST", "/v2/backup", {"path": "/tmp/remote.db"})
    assert not host.path("/tmp/remote.db").exists()
    assert remote.ok("GET", "/v2/nodes") == rest.ok("GET", "/v2/nodes"), "everything else is served to both"


# ---- agents that are away, and restarts ------------------------------------------------------------------------------------------------


def test_agent_that_hangs(host, rest, name):
    """A call that needs the agent is answered within its time, and says what it was about."""
    created = create(rest, name=name)
    pid = host.kill_flocker("agent", signal.SIGSTOP)
    try:
        begin = time.monotonic()
        text = refused(rest, (504, "timeout"), "DELETE", f"{VOLUMES}/{name}?wait=2")
        assert 1.5 < time.monotonic() - begin < 6 and created["owner"] in text
        resized = rest.ok("PATCH", f"{VOLUMES}/{name}?wait=1", {"size": SIZE})
        assert resized["size"] == SIZE
        assert rest.ok("GET", VOLUMES)
        begin = time.monotonic()
        said = host.flocker("status", check=False)
        assert time.monotonic() - begin < 10 and "control: up" in said.stdout and "agent: hangs" in said.stdout
        assert "agent hangs: /run/flocker/agent.sock did not answer in time" in said.stderr
    finally:
        host.run(["kill", "-CONT", str(pid)])
    wait_for("what was asked for in the meantime", lambda: get(rest, name)["state"] == "trashed")
    assert rest.ok("POST", f"{VOLUMES}/{name}/restore?wait=20", {})["ready"]


def test_agent_that_is_killed(host, flocker_binary, rest, name, node):
    created = create(rest, name=name)
    host.kill_flocker("agent")
    wait_for("control to notice", lambda: not rest.ok("GET", "/v2/nodes")[0]["connected"])
    assert rest.ok("GET", "/v1/state/nodes")[0]["uuid"] == node, "for two minutes it counts as there"
    away = get(rest, name)
    assert away["error"]["code"] == "unavailable" and away["id"] == created["id"]
    assert node in refused(rest, (503, "unavailable"), "DELETE", f"{VOLUMES}/{name}")
    refused(rest, (503, "unavailable"), "POST", VOLUMES, {})
    waiting = []
    thread = threading.Thread(target=lambda: waiting.append(rest.ok("PATCH", f"{VOLUMES}/{name}?wait=30", {"size": SIZE})))
    thread.start()
    up(host, flocker_binary)
    thread.join()
    assert waiting[0]["size"] == SIZE and waiting[0]["ready"]
    assert "error" not in get(rest, name)


def test_what_was_removed_by_hand_can_be_given_up(host, flocker_binary, rest, name):
    """Nothing is made in place of missing data; its entry can be removed all the same, and the name be used again."""
    created = create(rest, name=name)
    host.kill_flocker("agent")
    folder = f"/var/lib/flocker/pool/volumes/{created['id']}"
    host.run(["btrfs", "subvolume", "delete", f"{folder}/data"])
    host.run(["rm", "-r", folder])
    up(host, flocker_binary)
    wait_for("it to be missed", lambda: get(rest, name).get("error", {}).get("code") == "corrupt")
    assert remove(rest, name)["state"] == "trashed"
    assert rest.ok("POST", f"{VOLUMES}/{name}/restore", {})["state"] == "live"
    wait_for("it to be missed again", lambda: get(rest, name).get("error", {}).get("code") == "corrupt")
    assert remove(rest, name)["state"] == "trashed"
    assert remove(rest, name, "?purge=1&wait=20")["state"] == "deleted"
    assert create(rest, name=name)["id"] != created["id"]


def test_waiting_clients_that_leave(host, rest, name):
    """They cost nothing for long, however many they are; and a restart meanwhile harms nobody."""
    clients = []
    for number in range(300):
        body = json.dumps({"owner": new_id()}).encode()
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(host.path("/run/flocker/control.sock")))
        client.sendall(b"POST /v2/volumes?wait=30 HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        if number % 3:
            client.close()
        else:
            clients.append(client)
    assert create(rest, name=name)["ready"]
    for client in clients:
        client.close()


def test_restart(host, flocker_binary, rest, name):
    live, trashed = create(rest, name=name, size=SIZE, metadata={"a": "é"}), create(rest, name=name + ".t")
    remove(rest, trashed["id"])
    before = rest.ok("GET", f"{VOLUMES}?all=1")
    host.kill_flocker("control")
    up(host, flocker_binary)
    wait_for("the agent's report", lambda: get(rest, name)["ready"])
    after = rest.ok("GET", f"{VOLUMES}?all=1")
    unsettled = ("ready", "mounted", "path", "error", "host")
    def settled(volumes):
        return [{k: v for k, v in volume.items() if k not in unsettled} for volume in volumes]
    assert settled(after) == settled(before)
    assert get(rest, name) == live
    assert rest.ok("POST", f"{VOLUMES}/{trashed['id']}/restore?wait=20", {})["ready"]
