"""REST API v1 as the original Flocker served it, statement by statement; deviations are named where they are tested."""
import http.client
import json
import re
import socket
import ssl
import time

import pytest

from paths import wait_for
from rest import MATCHES, MIB, MISMATCH, SIZE, UNDECODABLE, Rest, cluster, logs, new_id, SOME_ID, tcp, tls_context, unix, up

DATASETS = "/v1/configuration/datasets"
LEASES = "/v1/configuration/leases"
STATES = "/v1/state/datasets"
NODES = "/v1/state/nodes"
NOT_FOUND = {"description": "Dataset not found."}
IN_USE = {"description": "The provided dataset_id is already in use."}
DELETED = {"description": "The dataset has been deleted."}


@pytest.fixture(scope="module", name="host")
def host_of_module(module_hosts, flocker_binary):
    with cluster(module_hosts, flocker_binary) as host:
        yield host


@pytest.fixture(scope="module")
def rest(host):
    return Rest(host)


@pytest.fixture(scope="module")
def node(rest):
    return rest.node()


def nested(levels, opening=b"[", closing=b"]"):
    return opening * levels + closing * levels


# ---- 1.1 transport -------------------------------------------------------------------------------------------------------------


def test_version(rest):
    reply = rest("GET", "/v1/version")
    assert reply.status == 200 and list(reply.json) == ["flocker"] and reply.json["flocker"]
    assert reply.tag is None


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v2/", "/v1/version/", DATASETS + "/", f"{DATASETS}/{SOME_ID}/x", "//v1/version",
                                  "/v1/nothing", "/v1/configuration/_compose/x", "/v1/configuration/containers/web/x", "/V1/version", "/%"])
def test_what_is_not_routed_is_404(rest, path):
    for method in ("GET", "POST", "DELETE"):
        reply = rest(method, path, {} if method == "POST" else None)
        assert reply.status == 404 and reply.json["description"]


@pytest.mark.parametrize("method, path, allowed", [
    ("POST", "/v1/version", "GET"), ("DELETE", DATASETS, "GET, POST"), ("PUT", DATASETS, "GET, POST"),
    ("GET", f"{DATASETS}/{SOME_ID}", "POST, DELETE"), ("PATCH", f"{DATASETS}/{SOME_ID}", "POST, DELETE"), ("POST", STATES, "GET"),
    ("POST", NODES, "GET"), ("DELETE", f"{NODES}/by_era/{SOME_ID}", "GET"), ("PUT", LEASES, "GET, POST"),
    ("GET", f"{LEASES}/{SOME_ID}", "DELETE"), ("HEAD", f"{LEASES}/{SOME_ID}", "DELETE"), ("OPTIONS", "/v1/version", "GET"),
    ("get", "/v1/version", "GET")])
def test_wrong_method_is_405(rest, method, path, allowed):
    reply = rest(method, path)
    assert reply.status == 405 and reply.headers["Allow"] == allowed
    if method != "HEAD":
        assert reply.json["description"]


def test_head_is_get_without_its_body(rest):
    for path in ("/v1/version", DATASETS, STATES, NODES, LEASES):
        get, head = rest("GET", path), rest("HEAD", path)
        assert (head.status, head.text) == (200, b"")
        assert head.headers["Content-Length"] == get.headers["Content-Length"]
    assert rest("HEAD", DATASETS).tag == rest.tag()


def test_path_is_percent_decoded(rest):
    created = rest.create()
    spelt = "".join(f"%{ord(c):02x}" for c in created["dataset_id"])
    assert rest.ok("GET", "/%761/ver%73ion") == rest.ok("GET", "/v1/version")
    assert rest.ok("POST", f"{DATASETS}/{spelt}", {}) == created
    assert rest.ok("DELETE", f"{DATASETS}/{spelt.upper()}")["deleted"]
    assert rest("DELETE", f"{DATASETS}/{created['dataset_id']}%2f").status == 404
    for bad in ("%", "%4", "%zz", "%00"):
        assert rest("DELETE", f"{DATASETS}/{bad}").status == 400


def test_body_is_json_whatever_its_type(rest, node):
    for header in ([], [("Content-Type", "text/plain")], [("Content-Type", "application/x-www-form-urlencoded")]):
        rest.ok("POST", DATASETS, {"primary": node}, 201, header)


def test_body_of_get_and_delete_is_ignored(rest):
    for body in (b"", b"{", b"\x00\xff", {"x": 1}):
        header = [("Content-Type", "application/json")]
        rest.ok("GET", DATASETS, body, headers=header)
        rest.ok("GET", "/v1/version", body, headers=header)
        assert rest("DELETE", f"{DATASETS}/{new_id()}", body, header).json == NOT_FOUND
        created = rest.create()
        assert rest.ok("DELETE", f"{DATASETS}/{created['dataset_id']}", body)["deleted"]


@pytest.mark.parametrize("value", ["6f3c@/2/1", "", "rubbish", "x" * 5000])
def test_task_id_is_ignored(rest, node, value):
    rest.ok("GET", "/v1/version", headers=[("X-Eliot-Task-Id", value)])
    rest.ok("POST", DATASETS, {"primary": node}, 201, [("X-Eliot-Task-Id", value)])


def test_unknown_query_is_ignored(rest):
    assert rest.ok("GET", f"{DATASETS}?primary=x&&=%") == rest.ok("GET", DATASETS)


def test_many_calls_on_one_connection(rest, node):
    connection = rest.connect()
    for _ in range(20):
        assert rest.send(connection, "POST", DATASETS, {"primary": node}).status == 201
        assert rest.send(connection, "POST", DATASETS, b"{").status == 400
        assert rest.send(connection, "GET", "/nothing").status == 404
    connection.close()


# ---- 1.2 error bodies ------------------------------------------------------------------------------------------------------------

NOT_JSON = {
    "empty": b"", "blank": b" \n", "half": b'{"primary": ', "word": b"primary", "trailing": b"{} {}", "single quotes": b"{'a': 1}",
    "duplicates": b'{"primary": 1, "primary": 1}', "nested duplicates": b'{"metadata": {"a": "b", "a": "b"}}', "NaN": b'{"a": NaN}',
    "NUL byte": b'{"a": "\x00"}', "NUL after": b"{}\x00", "NUL escape": b'{"metadata": {"a": "\\u0000"}}', "NUL name": b'{"\\u0000": 1}',
    "not UTF-8": b'{"a": "\xff"}', "overlong UTF-8": b'{"a": "\xc0\x80"}', "surrogate": b'{"a": "\\ud800"}', "UTF-16": "{}".encode("utf-16"),
    "BOM": b"\xef\xbb\xbf{}", "line feed in text": b'{"a": "\n"}', "33 levels": nested(33), "33 objects": nested(33, b'{"a":', b"}"),
    "100000 levels": nested(100000), "unclosed": b"[" * 500000, "large number": b'{"maximum_size": 9223372036854775808}',
    "huge number": b'{"maximum_size": 1e999}', "2^64": b'{"maximum_size": 18446744073709551616}'}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_not_json(rest, body):
    before = rest.tag()
    for path in (DATASETS, f"{DATASETS}/{new_id()}", LEASES):
        reply = rest("POST", path, body)
        assert (reply.status, reply.json) == (400, UNDECODABLE)
    assert rest.tag() == before


@pytest.mark.parametrize("body", [None, [], [1], "x", 5, 1.5, True, nested(32)], ids=repr)
def test_not_an_object(rest, body):
    for path in (DATASETS, f"{DATASETS}/{new_id()}", LEASES):
        reply = rest("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())
        assert (reply.status, reply.json["description"]) == (400, MISMATCH) and reply.json["errors"]


def test_body_larger_than_1_mib(rest, node):
    """At the limit it is read, beyond it is refused before it is sent."""
    padding = {"primary": node, "metadata": {}}
    body = json.dumps(padding).encode()
    rest.ok("POST", DATASETS, body + b" " * (MIB - len(body)), 201)
    reply = rest("POST", DATASETS, body + b" " * (MIB - len(body) + 1))
    assert reply.status == 413 and reply.json["description"]


UUID1 = "0e2d7f4c-58f5-1b0e-9a27-1f6f7f0c6a11"
VARIANT = "0e2d7f4c-58f5-4b0e-ca27-1f6f7f0c6a11"
ODD = "é" * 99 + "x"  # as a name in a message it is cut in the middle of a character
BAD_ID = [None, 5, True, "", "x", "x" * 36, UUID1, VARIANT, "0" * 36, new_id() + " ", new_id()[:-1], new_id().replace("-", ""), [new_id()], {}]
BAD_SIZE = [0, -1, -(1 << 63), 1, 1024, SIZE - 1, SIZE - 1024, (1 << 63) - 1, (1 << 62) + 1024, True, False, "67108864", "64M", 1e3, float(SIZE),
            1e300, [], {}, ""]
BAD_METADATA = [None, [], "x", 5, True, {"a": 1}, {"a": None}, {"a": []}, {"a": {"b": "c"}}, {"a": True}, {"": "x"}, {"a\nb": "x"},
                {"x" * 257: "x"}, {"é" * 257: "x"}, {"x": "y" * 257}, {"x": "é" * 257}, {"é" * 51: 1}, {"x" + "é" * 50: 1}, {ODD: None},
                {str(i): "" for i in range(17)}, {**{str(i): "" for i in range(16)}, "name": "n"}]


def refused(rest, path, body):
    rest = Rest(rest.host, by_socket=True)  # there are many of these, and the door makes no difference
    before = rest.tag(), rest.ok("GET", LEASES)
    reply = rest("POST", path, body)
    assert (reply.status, reply.json["description"]) == (400, MISMATCH), (body, reply)
    assert reply.json["errors"] and all(isinstance(error, str) and error for error in reply.json["errors"])
    assert (rest.tag(), rest.ok("GET", LEASES)) == before
    return reply.json["errors"]


def test_create_checks_its_schema(rest, node):
    assert refused(rest, DATASETS, {}) == ["'primary' is a required property"]
    for bad in BAD_ID:
        refused(rest, DATASETS, {"primary": bad})
        refused(rest, DATASETS, {"primary": node, "dataset_id": bad})
    for bad in BAD_SIZE:
        refused(rest, DATASETS, {"primary": node, "maximum_size": bad})
    for bad in BAD_METADATA:
        refused(rest, DATASETS, {"primary": node, "metadata": bad})
    for unknown in ("x", "Primary", "primary ", "deleted", "é" * 50, "x" + "é" * 50, ODD, "\U0001f600" * 60, "x" * 5000, ""):
        refused(rest, DATASETS, {"primary": node, unknown: False})
    assert refused(rest, DATASETS, {"primary": node, "maximum_size": 1000}) == ["1000 is less than the minimum of 67108864"]


def test_every_violation_is_told(rest):
    errors = refused(rest, DATASETS, {"maximum_size": 1, "metadata": {"a": 1}, "dataset_id": "x", "unknown": 1})
    assert len(errors) == 5


def test_update_checks_its_schema(rest):
    created = rest.create()
    for bad in BAD_ID:
        refused(rest, f"{DATASETS}/{created['dataset_id']}", {"primary": bad})
    for body in ({"maximum_size": 2 * SIZE}, {"maximum_size": None}, {"metadata": {}}, {"deleted": True}, {"dataset_id": created["dataset_id"]},
                 {"primary": new_id(), "x": 1}, {ODD: 1}):
        refused(rest, f"{DATASETS}/{created['dataset_id']}", body)
    assert rest.dataset(created["dataset_id"]) == created


def test_lease_checks_its_schema(rest, node):
    good = {"dataset_id": new_id(), "node_uuid": node, "expires": 10}
    for name in good:
        assert refused(rest, LEASES, {k: v for k, v in good.items() if k != name}) == [f"'{name}' is a required property"]
    for bad in (None, 5, True, "", "x", "x" * 36, new_id() + " ", [], {}):  # the original answers 500 to 36 characters that are no UUID
        refused(rest, LEASES, {**good, "dataset_id": bad})
    for bad in BAD_ID:
        refused(rest, LEASES, {**good, "node_uuid": bad})
    for bad in ("10", "", True, False, [], {}):
        refused(rest, LEASES, {**good, "expires": bad})
    refused(rest, LEASES, {**good, "x": 1})
    refused(rest, LEASES, {**good, ODD: 1})


# ---- 1.3 conditional requests ----------------------------------------------------------------------------------------------------


def stale(sent, current):
    return {"description": f"Tag doesn't match. Required: {sent}, current: {current}"}


def test_tag_is_of_the_list_of_datasets_only(rest):
    assert re.fullmatch("[0-9a-f]{32}", rest.tag())
    for path in ("/v1/version", STATES, NODES, LEASES, "/v1/configuration/containers"):
        assert rest("GET", path).tag is None


def test_tag_follows_datasets_and_nothing_else(rest, node):
    tags = [rest.tag()]
    created = rest.create(metadata={"a": "b"})
    tags.append(rest.tag())
    path = f"{DATASETS}/{created['dataset_id']}"
    rest.mounted(created["dataset_id"])
    assert rest.tag() == tags[-1], "an agent's report is no change of the configuration"
    rest.ok("POST", path, {"primary": new_id()})
    tags.append(rest.tag())
    rest.ok("POST", path, {})
    assert rest.tag() == tags[-1]
    rest.ok("POST", path, {"primary": node})
    tags.append(rest.tag())
    rest.ok("POST", path, {"primary": node})
    assert rest.tag() == tags[-1]
    rest.ok("POST", LEASES, {"dataset_id": created["dataset_id"], "node_uuid": node, "expires": None}, 201)
    rest.ok("POST", LEASES, {"dataset_id": created["dataset_id"], "node_uuid": node, "expires": 5})
    rest.ok("DELETE", f"{LEASES}/{created['dataset_id']}")
    assert rest.tag() == tags[-1]
    rest.ok("DELETE", path)
    tags.append(rest.tag())
    rest.ok("DELETE", path)
    assert rest.tag() == tags[-1]
    assert len(set(tags)) == len(tags)


def test_condition(rest, node):
    created = rest.create()
    path = f"{DATASETS}/{created['dataset_id']}"
    for method, target, body, status in (("POST", DATASETS, {"primary": node}, 201), ("POST", path, {"primary": new_id()}, 200),
                                         ("DELETE", path, None, 200)):
        for sent in ("0" * 32, "", "x", rest.tag().upper() + "0", '"' + rest.tag() + '"'):
            reply = rest(method, target, body, [(MATCHES, sent)])
            assert (reply.status, reply.json) == (412, stale(sent, rest.tag()))
        old = rest.tag()
        rest.ok(method, target, body, status, [(MATCHES, old)])
        assert rest.tag() != old
        assert rest(method, target, body, [(MATCHES, old)]).json == stale(old, rest.tag())
        rest.ok(method, target, body, status, [(MATCHES, "x"), (MATCHES, rest.tag())])
        rest.ok(method, target, body, status, [(MATCHES.lower(), rest.tag()), (MATCHES, old)])
        assert rest(method, target, body, [(MATCHES, "x"), (MATCHES, old)]).status == 412


def test_condition_comes_before_the_body(rest):
    for path in (DATASETS, f"{DATASETS}/{new_id()}"):
        for body in (b"", b"{", {}, {"x": 1}):
            assert rest("POST", path, body, [(MATCHES, "x")]).status == 412
    assert rest("DELETE", f"{DATASETS}/{new_id()}", headers=[(MATCHES, "x")]).status == 412


def test_condition_that_is_no_text(rest):
    for sent in ("\xff\xfe", "é" * 60, "\xff" * 3000):
        reply = rest("POST", DATASETS, {}, [(MATCHES, sent.encode("latin-1", "replace"))])
        assert reply.status == 412 and reply.json["description"].startswith("Tag doesn't match. Required: ")
        assert rest.tag() in reply.json["description"]


def test_condition_is_not_for_leases(rest, node):
    header = [(MATCHES, "x")]
    lease = {"dataset_id": new_id(), "node_uuid": node, "expires": None}
    rest.ok("POST", LEASES, lease, 201, header)
    rest.ok("DELETE", f"{LEASES}/{lease['dataset_id']}", headers=header)


# ---- 1.4 to 1.7 create ------------------------------------------------------------------------------------------------------------


def test_create(rest, node):
    created = rest.ok("POST", DATASETS, {"primary": node}, 201)
    assert created == {"dataset_id": created["dataset_id"], "primary": node, "deleted": False, "metadata": {}}
    assert re.fullmatch("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", created["dataset_id"])
    assert rest.dataset(created["dataset_id"]) == created


def test_create_with_all(rest, node):
    wish = {"primary": node, "dataset_id": new_id(), "maximum_size": 128 * MIB,
            "metadata": {"name": "cache", "clusterhq:flocker:profile": "silver"}}
    created = rest.ok("POST", DATASETS, wish, 201)
    assert created == {**wish, "deleted": False}
    assert rest.dataset(wish["dataset_id"]) == created
    assert rest.ok("DELETE", f"{DATASETS}/{wish['dataset_id']}") == {**wish, "deleted": True}


def test_create_lowers_ids(rest, node):
    dataset_id, other = new_id(), new_id()
    created = rest.create(dataset_id=dataset_id.upper(), primary=other.upper())
    assert (created["dataset_id"], created["primary"]) == (dataset_id, other)
    for again in (dataset_id, dataset_id.upper()):
        for primary in (node, other):
            reply = rest("POST", DATASETS, {"primary": primary, "dataset_id": again})
            assert (reply.status, reply.json) == (409, IN_USE)
    rest.ok("DELETE", f"{DATASETS}/{dataset_id}")
    assert rest("POST", DATASETS, {"primary": node, "dataset_id": dataset_id.upper()}).json == IN_USE, "also deleted ones keep their id"
    for method in ("POST", "DELETE"):
        assert rest(method, f"{DATASETS}/{dataset_id.upper()}", {}).json == NOT_FOUND, "in a path, case counts"


@pytest.mark.parametrize("size, kept", [(None, None), (SIZE, SIZE), (SIZE + 1, SIZE + 1024), (75 << 30, 75 << 30), (1 << 62, 1 << 62),
                                        ((1 << 62) - 1, 1 << 62)])
def test_sizes(rest, size, kept):
    """The original refuses what is no multiple of 1024; here it is rounded up."""
    created = rest.create(maximum_size=size, primary=new_id())
    assert created.get("maximum_size") == kept and ("maximum_size" in created) == (kept is not None)
    assert rest.dataset(created["dataset_id"]) == created


@pytest.mark.parametrize("metadata", [
    {}, {str(i): "v" for i in range(16)}, {"n" * 256: "v" * 256}, {"é" * 256: "ü" * 256}, {"\U0001f600" * 256: "\U0001f600" * 256}, {"x": ""},
    {"name": ""}, {"name": "not a Docker name"}, {"name": "ñandú"}, {"name": "x" * 256}, {"a b\t\"'\\/": "line\nline\r\x7f\x01"},
    {"\u202e": "\ufeff\uffff"}, {**{str(i): "v" for i in range(15)}, "name": "sixteen"}, {"dataset_id": "x", "deleted": "y"}],
    ids=lambda m: ascii(m)[:30])
def test_metadata_is_kept(rest, metadata):
    created = rest.create(metadata=metadata, primary=new_id())
    assert created["metadata"] == metadata
    assert rest.dataset(created["dataset_id"])["metadata"] == metadata
    assert rest.ok("DELETE", f"{DATASETS}/{created['dataset_id']}")["metadata"] == metadata


def test_name_is_unique_if_docker_could_use_it(rest):
    """The original accepts duplicates; two Docker volumes of one name cannot be."""
    first = rest.create(metadata={"name": "unique"}, primary=new_id())
    reply = rest("POST", DATASETS, {"primary": new_id(), "metadata": {"name": "unique"}})
    assert reply.status == 409 and "unique" in reply.json["description"] and first["dataset_id"] in reply.json["description"]
    rest.ok("DELETE", f"{DATASETS}/{first['dataset_id']}")
    second = rest.create(metadata={"name": "unique"}, primary=new_id())
    assert rest.dataset(first["dataset_id"])["metadata"] == second["metadata"] == {"name": "unique"}
    for _ in range(2):
        rest.create(metadata={"name": "no docker name"}, primary=new_id())


def test_unknown_node_may_be_primary(rest):
    created = rest.create(primary=new_id())
    assert rest.dataset(created["dataset_id"]) == created and rest.states(created["dataset_id"]) == []


def test_list_has_every_member(rest):
    rest.create(maximum_size=SIZE)
    rest.create()
    for entry in rest.ok("GET", DATASETS):
        assert set(entry) - {"maximum_size"} == {"dataset_id", "deleted", "metadata", "primary"}
        assert isinstance(entry["deleted"], bool) and isinstance(entry["metadata"], dict)
        assert entry.get("maximum_size", SIZE) >= SIZE


# ---- 1.8 update --------------------------------------------------------------------------------------------------------------------


def test_move(rest, node):
    created = rest.create(maximum_size=SIZE, metadata={"a": "b"})
    other, path = new_id(), f"{DATASETS}/{created['dataset_id']}"
    rest.mounted(created["dataset_id"])
    assert rest.ok("POST", path, {}) == created
    assert rest.ok("POST", path, {"primary": node}) == created
    for _ in range(2):
        assert rest.ok("POST", path, {"primary": other}) == {**created, "primary": other}
    assert rest.dataset(created["dataset_id"]) == {**created, "primary": other}
    [state] = rest.states(created["dataset_id"])
    assert state["primary"] == node, "the data is where it was: nobody has taken it over"
    assert rest.ok("POST", path, {"primary": node.upper()}) == created


def test_move_of_what_has_no_data(rest, node):
    created = rest.create(primary=new_id())
    assert rest.ok("POST", f"{DATASETS}/{created['dataset_id']}", {"primary": node})["primary"] == node
    assert rest.mounted(created["dataset_id"])["primary"] == node


def test_update_of_what_is_not_there(rest, node):
    created = rest.create()
    for path in (new_id(), "x", "x" * 900, created["dataset_id"] + "x", "é%20%c3%a9".replace("é", "")):
        reply = rest("POST", f"{DATASETS}/{path}", {"primary": node})
        assert (reply.status, reply.json) == (404, NOT_FOUND)
    rest.ok("DELETE", f"{DATASETS}/{created['dataset_id']}")
    for body in ({}, {"primary": node}, {"primary": new_id()}):
        reply = rest("POST", f"{DATASETS}/{created['dataset_id']}", body)
        assert (reply.status, reply.json) == (405, DELETED)


# ---- 1.9 delete --------------------------------------------------------------------------------------------------------------------


def test_delete(host, rest):
    created, other = rest.create(metadata={"name": "doomed"}), rest.create()
    path = f"{DATASETS}/{created['dataset_id']}"
    place = rest.mounted(created["dataset_id"])["path"]
    rest.mounted(other["dataset_id"])
    host.path(place).joinpath("file").write_text("data")
    for _ in range(3):
        assert rest.ok("DELETE", path) == {**created, "deleted": True}
    assert rest.dataset(created["dataset_id"]) == {**created, "deleted": True}
    wait_for("the end of its state", lambda: not rest.states(created["dataset_id"]))
    assert not host.path(place).is_mount()
    assert rest.dataset(other["dataset_id"]) == other and rest.states(other["dataset_id"])
    for missing in (new_id(), "x", "0"):
        reply = rest("DELETE", f"{DATASETS}/{missing}")
        assert (reply.status, reply.json) == (404, NOT_FOUND)


def test_deleted_before_it_is_made(rest):
    """Whichever is first, the agent's report or the deletion: in the end it is gone."""
    for _ in range(10):
        created = rest.create(maximum_size=SIZE)
        rest.ok("DELETE", f"{DATASETS}/{created['dataset_id']}")
    wait_for("the end of its state", lambda: not rest.states(created["dataset_id"]))


# ---- 1.10 state --------------------------------------------------------------------------------------------------------------------


def test_state(host, rest, node):
    with_size, without = rest.create(maximum_size=SIZE)["dataset_id"], rest.create()["dataset_id"]
    for dataset_id, size in ((with_size, {"maximum_size": SIZE}), (without, {})):
        assert rest.mounted(dataset_id) == {"dataset_id": dataset_id, "primary": node, "path": f"/flocker/{dataset_id}", **size}
        assert host.path(f"/flocker/{dataset_id}").is_mount()
        assert host.path(f"/flocker/{dataset_id}").stat().st_mode & 0o7777 == 0o777


def test_state_lists_each_once(rest):
    """In the order of ids: that of the original is arbitrary, and its clients do not rely on it."""
    rest.ok("POST", "/v2/volumes?wait=20", {"name": "not-mounted"}, 201)
    for _ in range(3):
        created = rest.create()
    rest.mounted(created["dataset_id"])
    entries = rest.ok("GET", STATES)
    ids = [entry["dataset_id"] for entry in entries]
    assert ids == sorted(set(ids))
    assert {"path" in entry for entry in entries} == {True, False}
    for entry in entries:
        assert set(entry) - {"maximum_size", "error"} in ({"dataset_id"}, {"dataset_id", "primary", "path"})


# ---- 1.11 nodes --------------------------------------------------------------------------------------------------------------------


def test_nodes(rest, node):
    assert rest.ok("GET", NODES) == [{"host": "127.0.0.1", "uuid": node}]


def test_by_era(host, rest, node):
    era = host.path("/run/boot_id").read_text().strip()
    bare = era.replace("-", "")
    for spelt in (era, era.upper(), bare, f"%7b{era}%7d", f"urn:uuid:{era}", f"{{{era}}}".replace("{", "%7B").replace("}", "%7D")):
        assert rest.ok("GET", f"{NODES}/by_era/{spelt}") == {"uuid": node}
    for wrong in (new_id(), "x", bare + "0", bare[1:], "x" * 500, "%00", "%20", "00000000-0000-0000-0000-000000000000"):
        reply = rest("GET", f"{NODES}/by_era/{wrong}")
        assert reply.status in (400, 404), reply
        if reply.status == 404:
            assert reply.json == {"description": "No node found with given era."}
    assert rest("GET", f"{NODES}/by_era").status == 404


# ---- 1.12 leases -------------------------------------------------------------------------------------------------------------------


def lease(rest, dataset_id, node_uuid, expires, status):
    reply = rest("POST", LEASES, {"dataset_id": dataset_id, "node_uuid": node_uuid, "expires": expires})
    assert reply.status == status, reply
    if status == 409:
        assert reply.json == {"description": "Lease already held."}
        return None
    assert set(reply.json) == {"dataset_id", "node_uuid", "expires"}
    assert (reply.json["dataset_id"], reply.json["node_uuid"]) == (dataset_id, node_uuid.lower())
    return reply.json["expires"]


def leases(rest, dataset_id):
    return [entry for entry in rest.ok("GET", LEASES) if entry["dataset_id"] == dataset_id]


def test_lease(rest):
    dataset_id, mine, other = new_id(), new_id(), new_id()  # neither need exist
    assert 89 < lease(rest, dataset_id, mine, 90, 201) <= 90
    lease(rest, dataset_id, other, 5, 409)
    assert lease(rest, dataset_id, mine, None, 200) is None
    assert leases(rest, dataset_id) == [{"dataset_id": dataset_id, "node_uuid": mine, "expires": None}]
    assert 0 < lease(rest, dataset_id, mine.upper(), 1.5, 200) <= 1.5
    assert 999 < lease(rest, dataset_id, mine, 1000, 200) <= 1000
    lease(rest, dataset_id, other, None, 409)
    [entry] = leases(rest, dataset_id)
    assert 990 < entry["expires"] < 1000 and isinstance(entry["expires"], float)
    released = rest.ok("DELETE", f"{LEASES}/{dataset_id}")
    assert released["node_uuid"] == mine and 990 < released["expires"] < 1000
    for missing in (dataset_id, new_id(), "x"):
        reply = rest("DELETE", f"{LEASES}/{missing}")
        assert (reply.status, reply.json) == (404, {"description": "Lease not found."})
    lease(rest, dataset_id, other, None, 201)
    assert rest.ok("DELETE", f"{LEASES}/{dataset_id.upper()}")["expires"] is None


@pytest.mark.parametrize("expires", [0, -1, -0.5, -1e300, 0.3])
def test_lease_expires(rest, expires):
    dataset_id, other = new_id(), new_id()
    lease(rest, dataset_id, new_id(), expires, 201)
    wait_for("the sweep", lambda: not leases(rest, dataset_id), 3)
    lease(rest, dataset_id, other, 1e300, 201)
    lease(rest, dataset_id, other, 0.1, 200)
    wait_for("the sweep of what was shortened", lambda: not leases(rest, dataset_id), 3)


def test_lease_outlives_sweeps_of_others(rest):
    forever, long, short = new_id(), new_id(), [new_id() for _ in range(10)]
    lease(rest, forever, new_id(), None, 201)
    lease(rest, long, new_id(), 60, 201)
    for dataset_id in short:
        lease(rest, dataset_id, new_id(), 0.2, 201)
    wait_for("the sweep", lambda: not any(leases(rest, dataset_id) for dataset_id in short), 5)
    assert leases(rest, forever) and leases(rest, long)


def test_lease_keeps_it_mounted(host, rest, node):
    """The API never refuses because of a lease; the agent keeps the mount until it is released."""
    moved, deleted = rest.create()["dataset_id"], rest.create()["dataset_id"]
    for dataset_id in (moved, deleted):
        rest.mounted(dataset_id)
        lease(rest, dataset_id, node, None, 201)
    assert rest.ok("DELETE", f"{DATASETS}/{deleted}")["deleted"]
    assert rest.ok("POST", f"{DATASETS}/{moved}", {"primary": new_id()})["primary"] != node
    time.sleep(1)
    assert rest.mounted(deleted)["primary"] == node and host.path(f"/flocker/{deleted}").is_mount()
    assert rest.mounted(moved)["primary"] == node
    rest.ok("DELETE", f"{LEASES}/{deleted}")
    wait_for("the unmount", lambda: not rest.states(deleted))
    rest.ok("DELETE", f"{LEASES}/{moved}")


# ---- 1.13 who may call ---------------------------------------------------------------------------------------------------------------


def no_reply(connect):
    """The client is refused without a byte of HTTP: in the handshake, or (as TLS 1.3 tells clients late) at the first request."""
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        client = connect()
        client.sendall(b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1) == b""
        raise ConnectionError


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("certificate", [None, "node", "control-service", "engine", "other"])
def test_wrong_certificates_are_refused(host, certificate, version, tmp_path):
    def connect():
        context.minimum_version = context.maximum_version = version
        return context.wrap_socket(tcp(host), server_hostname="control-service")

    if certificate == "other":
        context = other_authority(host, tmp_path)
    else:
        context = tls_context(host, certificate)
    no_reply(connect)
    context = tls_context(host)
    client = connect()
    client.sendall(b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.recv(15) == b"HTTP/1.1 200 OK"


def other_authority(host, folder):
    """A context with a certificate that says user-admin and was signed by somebody else."""
    run = lambda *words: host.run(["openssl", *words])  # noqa: E731
    ca, pair = "/tmp/other", "/tmp/stranger"
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    run("req", "-x509", *ec, "-subj", "/CN=other", "-keyout", f"{ca}.key", "-out", f"{ca}.crt", "-days", "10")
    run("req", "-new", *ec, "-subj", "/CN=user-admin", "-keyout", f"{pair}.key", "-out", f"{pair}.csr")
    run("x509", "-req", "-in", f"{pair}.csr", "-CA", f"{ca}.crt", "-CAkey", f"{ca}.key", "-CAcreateserial", "-out", f"{pair}.crt", "-days", "10")
    for suffix in ("crt", "key"):
        (folder / f"user.{suffix}").write_text(host.path(f"{pair}.{suffix}").read_text())
    return tls_context(host, folder)


@pytest.mark.parametrize("name", ["control-service", "127.0.0.1", "localhost"])
def test_names_of_the_server(rest, name):
    """Python clients verify control-service, Go and curl what they dialled."""
    connection = rest.connect(name)
    assert rest.send(connection, "GET", "/v1/version").status == 200
    connection.close()


def test_server_is_of_version_3(rest):
    connection = rest.connect()
    text = ssl.DER_cert_to_PEM_cert(connection.sock.getpeercert(True))
    assert "Version: 3" in rest.host.run(["openssl", "x509", "-noout", "-text"], input=text).stdout


def test_http_without_tls_is_refused(host):
    client = tcp(host)
    client.sendall(b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")
    try:
        assert not client.recv(100).startswith(b"HTTP")
    except ConnectionError:
        pass


def test_local_root_needs_no_certificate(host, rest):
    local = Rest(host, by_socket=True)
    for path in ("/v1/version", DATASETS, STATES, NODES):
        assert local.ok("GET", path) == rest.ok("GET", path)


def test_socket_is_for_root_only(host):
    """Another user is refused by the file's mode; were it opened to others, by who they are."""
    script = ("import os, socket; os.setuid(1000); s = socket.socket(socket.AF_UNIX); s.connect('/tmp/open/control.sock'); "
              "s.sendall(b'GET /v1/version HTTP/1.0\\r\\n\\r\\n'); print(s.recv(100))")
    host.run(["sh", "-c", "mkdir -p /tmp/open && chmod 755 /tmp/open && mount --bind /run/flocker /tmp/open"])
    try:
        assert "Permission" in host.run(["python3", "-c", script], check=False).stderr
        host.run(["chmod", "755", "/run/flocker"])
        host.run(["chmod", "666", "/run/flocker/control.sock"])
        assert host.run(["python3", "-c", script]).stdout.strip() == "b''"
    finally:
        host.run(["chmod", "600", "/run/flocker/control.sock"])
        host.run(["chmod", "700", "/run/flocker"])
        host.run(["umount", "/tmp/open"])


# ---- 1.14 containers -----------------------------------------------------------------------------------------------------------------


def test_there_are_no_containers_at_first(rest):
    """What there is to say of some is in test_rest_containers.py and test_containers.py."""
    assert rest.ok("GET", "/v1/configuration/containers") == rest.ok("GET", "/v1/state/containers") == []
    assert rest("DELETE", "/v1/configuration/containers/web").json == {"description": "Container not found."}


# ---- 1.16 what clients expect ---------------------------------------------------------------------------------------------------------


class PythonClient:
    """As the original's client library and Docker plugin read answers: exact codes, members without checking."""

    def __init__(self, rest):
        self.rest = rest

    def call(self, method, path, body=None, codes=(200,), headers=()):
        headers = [("Content-Type", "application/json"), ("X-Eliot-Task-Id", "1e0be8d1-93c7-4c4b-8e2d-6a5e4b3d2c1a@/1"), *headers]
        reply = self.rest(method, path, body, headers)
        assert reply.status in codes, f"Unexpected response code {reply.status}:\n{reply.text}"
        return reply

    def configuration(self):
        reply = self.call("GET", DATASETS)
        return reply.tag, {d["dataset_id"]: (d["primary"], d.get("maximum_size"), d["metadata"]) for d in reply.json if not d["deleted"]}

    def create(self, primary, size, dataset_id, metadata, tag=None):
        body = {"primary": primary, "maximum_size": size, "dataset_id": dataset_id, "metadata": metadata}
        reply = self.call("POST", DATASETS, body, (201, 409, 412), [(MATCHES, tag)] if tag else [])
        return {201: "created", 409: "already exists", 412: "changed"}[reply.status]

    def create_named(self, name, primary, size):
        """The plugin's conditional create, which two plugins run at once."""
        for _ in range(20):
            tag, datasets = self.configuration()
            if name in (metadata.get("name") for _, _, metadata in datasets.values()):
                return "already exists"
            outcome = self.create(primary, size, new_id(), {"name": name, "maximum_size": str(size)}, tag)
            if outcome != "changed":
                return outcome
        raise AssertionError("20 times 412")

    def state(self):
        return {d["dataset_id"]: (d.get("primary"), d.get("maximum_size"), d.get("path")) for d in self.call("GET", STATES).json}

    def this_node(self, era):
        while True:
            reply = self.call("GET", f"{NODES}/by_era/{era}", codes=(200, 404))
            if reply.status == 200:
                return reply.json["uuid"]
            time.sleep(0.1)

    def acquire(self, dataset_id, node_uuid, expires):
        reply = self.call("POST", LEASES, {"dataset_id": dataset_id, "node_uuid": node_uuid, "expires": expires}, (200, 201, 409))
        return reply.status != 409 and (reply.json["dataset_id"], reply.json["node_uuid"], reply.json["expires"])


def test_python_client(host, rest, node):
    client = PythonClient(rest)
    assert client.this_node(host.path("/run/boot_id").read_text().strip()) == node
    assert client.create_named("python", node, 128 * MIB) == "created"
    assert client.create_named("python", node, 128 * MIB) == "already exists"
    [(dataset_id, entry)] = [item for item in client.configuration()[1].items() if item[1][2].get("name") == "python"]
    assert entry == (node, 128 * MIB, {"name": "python", "maximum_size": str(128 * MIB)})
    assert client.create(node, None, dataset_id.upper(), {}) == "already exists"
    wait_for("the plugin's wait", lambda: client.state().get(dataset_id, (None,))[0] == node)
    assert client.state()[dataset_id] == (node, 128 * MIB, f"/flocker/{dataset_id}")
    client.call("POST", f"{DATASETS}/{dataset_id}", {"primary": node})
    assert client.acquire(dataset_id, node, 60) and client.acquire(dataset_id, node, None)[2] is None
    assert not client.acquire(dataset_id, new_id(), 60)
    client.call("DELETE", f"{LEASES}/{dataset_id}")
    client.call("DELETE", f"{DATASETS}/{dataset_id}")
    assert dataset_id not in client.configuration()[1]
    assert client.create_named("python", node, 128 * MIB) == "created"


def test_go_client(rest, node):
    """flocker-go, as Kubernetes' plugin uses it: any status below 300 is a success, and unknown members are skipped."""

    def call(method, path, body=None):
        reply = rest(method, path, body, [("Content-Type", "application/json")])
        if reply.status == 409:
            raise FileExistsError
        assert reply.status < 300, reply
        return reply.json

    def create(name, size):
        primary = call("GET", NODES)[0]["uuid"]
        created = call("POST", DATASETS, {"primary": primary, "maximum_size": size,
                                          "metadata": {"name": name, "type": "k8s-dynamic-prov", "pvc": "claim"}})
        for _ in range(1000):  # until it exists: mounted or not
            found = [d for d in call("GET", STATES) if d["dataset_id"] == created["dataset_id"]]
            if found:
                return created["dataset_id"]
            time.sleep(0.02)
        raise TimeoutError

    def id_of(name):
        return next(d["dataset_id"] for d in call("GET", DATASETS) if not d["deleted"] and d["metadata"].get("name") == name)

    dataset_id = create("kubernetes-dynamic-pvc-1", 100 * 1000 * 1000)  # gigabytes of a thousand: no multiple of 1024
    assert id_of("kubernetes-dynamic-pvc-1") == dataset_id
    assert [n["uuid"] for n in call("GET", NODES) if n["host"] == "127.0.0.1"] == [node], "the kubelet finds its node by its address"
    call("POST", f"{DATASETS}/{dataset_id}", {"primary": node})
    wait_for("the kubelet's wait", lambda: [d for d in call("GET", STATES) if d["dataset_id"] == dataset_id and d.get("primary") == node])
    assert rest.mounted(dataset_id)["path"] == f"/flocker/{dataset_id}", "a path that the kubelet makes up itself"
    with pytest.raises(FileExistsError):
        call("POST", DATASETS, {"primary": node, "dataset_id": dataset_id})
    call("DELETE", f"{DATASETS}/{dataset_id}")
    with pytest.raises(StopIteration):
        id_of("kubernetes-dynamic-pvc-1")


def test_flockerctl(rest, node):
    """Joins configuration, state and nodes into its words: pending, attached, deleting, deleted."""

    def status(dataset_id):
        nodes = {n["uuid"]: n["host"] for n in rest.ok("GET", NODES)}
        configured, [state] = rest.dataset(dataset_id), rest.states(dataset_id) or [None]
        if configured["deleted"]:
            return "deleting" if state else "deleted"
        if not state:
            return "pending"
        if state.get("primary") != configured["primary"]:
            return "moving" if "primary" in state else "detached"
        assert nodes[state["primary"]] == "127.0.0.1"
        return "attached"

    dataset_id = rest.create(primary=new_id(), maximum_size=SIZE)["dataset_id"]
    assert status(dataset_id) == "pending"
    rest.ok("POST", f"{DATASETS}/{dataset_id}", {"primary": node})
    wait_for("attached", lambda: status(dataset_id) == "attached")
    rest.ok("POST", f"{DATASETS}/{dataset_id}", {"primary": new_id()})
    assert status(dataset_id) == "moving"
    rest.ok("POST", f"{DATASETS}/{dataset_id}", {"primary": node})
    assert status(dataset_id) == "attached"
    rest.ok("DELETE", f"{DATASETS}/{dataset_id}")
    wait_for("deleted", lambda: status(dataset_id) == "deleted")


# ---- slow and half-open clients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["tcp", "tls", "unix"])
def test_slow_clients_keep_nobody_out(host, rest, door):
    """More connections than a listener takes, none of which ever completes a request: an honest client is served at once all the same."""
    context, clients = tls_context(host), []
    local = Rest(host, by_socket=True)
    try:
        for number in range(560):
            client = unix(host) if door == "unix" else tcp(host)
            if door == "tls" and number < 150:
                client = context.wrap_socket(client, server_hostname="control-service")
            if door != "tcp":
                try:
                    client.sendall(b"POST /v1/configuration/leases HTTP/1.1\r\nContent-Length: 100\r\n" + (b"\r\n{" if number % 2 else b"X"))
                except ConnectionError:
                    pass
            clients.append(client)
            if number % 100 == 99:
                begin = time.monotonic()
                rest.ok("GET", "/v1/version")
                local.ok("GET", "/v1/version")
                assert time.monotonic() - begin < 2
        for _ in range(3):
            begin = time.monotonic()
            rest.create(primary=new_id())
            local.create(primary=new_id())
            assert time.monotonic() - begin < 4
    finally:
        for client in clients:
            client.close()


def test_slow_request_ends(host):
    """Whoever has begun a request and does not complete it hears so, and is cut off."""
    client = unix(host, 20)
    client.sendall(b"POST /v1/configuration/leases HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
    begin = time.monotonic()
    reply = b"".join(iter(lambda: client.recv(4096), b""))
    assert reply.startswith(b"HTTP/1.1 408 ") and 5 < time.monotonic() - begin < 15


def test_clients_that_leave_early(host, rest, node):
    """Requests whose sender is gone before the answer change nothing for anybody else."""
    body = json.dumps({"primary": node}).encode()
    request = b"POST /v1/configuration/datasets HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    for number in range(60):
        client = tls_context(host).wrap_socket(tcp(host), server_hostname="control-service") if number % 3 == 0 else unix(host)
        client.sendall(request * 3 if number % 2 else request[:-1])
        if number % 5 == 0:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    rest.mounted(rest.create()["dataset_id"])


# ---- restart ---------------------------------------------------------------------------------------------------------------------------


def test_restart(host, flocker_binary, rest, node):
    kept = rest.create(maximum_size=SIZE, metadata={"name": "kept", "a": "é"})
    gone = rest.create()
    rest.mounted(kept["dataset_id"])
    rest.ok("DELETE", f"{DATASETS}/{gone['dataset_id']}")
    for dataset_id, expires in ((kept["dataset_id"], None), (new_id(), 100), (new_id(), 0.5)):
        lease(rest, dataset_id, node, expires, 201)
    tag, configuration, before = rest.tag(), rest.ok("GET", DATASETS), rest.ok("GET", LEASES)
    host.kill_flocker("control")
    time.sleep(0.6)
    up(host, flocker_binary)
    assert rest.tag() == tag and rest.ok("GET", DATASETS) == configuration
    after = wait_for("the sweep", lambda: len(rest.ok("GET", LEASES)) < len(before) and rest.ok("GET", LEASES))
    for entry in after:
        [was] = [b for b in before if b["dataset_id"] == entry["dataset_id"]]
        assert entry["node_uuid"] == was["node_uuid"]
        assert entry["expires"] == was["expires"] or was["expires"] - 20 < entry["expires"] < was["expires"] - 0.5
    assert rest.mounted(kept["dataset_id"])["primary"] == node
    assert rest.ok("GET", f"{NODES}/by_era/{host.path('/run/boot_id').read_text().strip()}") == {"uuid": node}
    assert rest.ok("GET", NODES) == [{"host": "127.0.0.1", "uuid": node}]


def test_killed_in_the_middle(host, flocker_binary, rest):
    """What was acknowledged before the kill is there after it, and nothing that was not at least asked for."""
    local = Rest(host, by_socket=True)
    for _ in range(3):
        asked, acknowledged = [], []
        pid = int(host.path("/run/flocker/control.pid").read_text())
        killer = host.popen(["sh", "-c", f"sleep 0.3; kill -9 {pid}"])
        try:
            while True:
                asked.append(new_id())
                acknowledged.append(local.create(dataset_id=asked[-1], primary=new_id(), metadata={"n": str(len(asked))}))
        except (OSError, http.client.HTTPException, TimeoutError):
            pass
        killer.wait()
        wait_for("the end of control", lambda: not host.is_running(pid))
        up(host, flocker_binary)
        there = {d["dataset_id"]: d for d in rest.ok("GET", DATASETS)}
        assert acknowledged and all(there[a["dataset_id"]] == a for a in acknowledged)


def test_log_has_no_secrets_nor_bodies(host):
    text = logs(host)
    assert "PRIVATE KEY" not in text and "metadata" not in text
