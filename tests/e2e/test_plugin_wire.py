"""The plugin's socket, byte by byte: what engines send, what they might send, and what nobody should."""
import json
import os
import re
import signal
import socket
import threading
import time

import pytest

from conftest import start_docker
from paths import wait_for
from replay import SOCKET, Engine, mount_points, references, start_agent, wait_until_unmounted

ENGINES = [pytest.param(version, marks=pytest.mark.docker(version)) for version in ("20", "26")]
CALLS = ["Create", "Remove", "Path", "Mount", "Unmount", "Get", "List", "Capabilities"]
NAMED = ["Create", "Remove", "Path", "Mount", "Unmount", "Get"]
HEADS = {
    "dockerd 20.10": "Host: \r\nUser-Agent: Go-http-client/1.1\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n",
    "dockerd 29": "Host: plugin.moby.localhost\r\nUser-Agent: Go-http-client/1.1\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n",
    "podman": "Host: plugin\r\nUser-Agent: Go-http-client/1.1\r\nContent-Type: application/vnd.docker.plugins.v1.1+json\r\n",
    "by TCP": "Host: localhost:4526\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n",
    "nothing": "",
}
MIB = 1 << 20


@pytest.fixture(scope="module")
def one(module_hosts, flocker_binary):
    """One host for all tests that leave nothing behind."""
    host = module_hosts(network=module_hosts.network())
    host.start_flocker(flocker_binary)
    return host


@pytest.fixture(autouse=True)
def agent_lives(request):
    """Whatever a test sends, the agent is the same process afterwards, and in its senses."""
    if "one" not in request.fixturenames:
        yield
        return
    host = request.getfixturevalue("one")
    pid = host.path("/run/flocker/agent.pid").read_text()
    yield
    assert host.path("/run/flocker/agent.pid").read_text() == pid
    assert post(host, "Plugin.Activate") == (200, {"Implements": ["VolumeDriver"]})


# ---- a client that takes nothing for granted ----------------------------------------------------------------------------------

def connect(host, timeout=10):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(timeout)
    client.connect(str(host.path(SOCKET)))
    return client


def receive(client):
    """All that comes until the plugin closes the connection."""
    reply = b""
    try:
        while part := client.recv(65536):
            reply += part
    except ConnectionResetError:
        pass
    return reply


def raw(host, data, timeout=10):
    with connect(host, timeout) as client:
        try:
            client.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return receive(client)


def request(call, body=b"", head=HEADS["dockerd 29"], method="POST"):
    return f"{method} /{call} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def decode(reply):
    """(status, JSON) of a reply that is as engines need every reply to be; None for none."""
    if not reply:
        return None
    head, _, body = reply.partition(b"\r\n\r\n")
    lines = head.decode("ascii").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    assert re.fullmatch(r"HTTP/1\.1 \d{3} .+", lines[0])
    assert int(headers["content-length"]) == len(body) > 0
    assert headers["connection"] == "close"
    assert headers["content-type"] == "application/json"
    status, content = int(lines[0].split()[1]), json.loads(body)
    assert (status == 200) == (not content.get("Err"))
    return status, content


def post(host, call, body=b"", **options):
    body = body if isinstance(body, bytes) else json.dumps(body).encode() + b"\n"
    return decode(raw(host, request(call, body, **options)))


def verb(host, name, volume, **members):
    return post(host, f"VolumeDriver.{name}", {"Name": volume, **members})


def refused(reply, *texts):
    """An engine's user sees a reason, and no control character in it."""
    assert reply and reply[0] == 500, reply
    assert all(text in reply[1]["Err"] for text in texts), reply
    assert reply[1]["Err"].isprintable()


def done(reply):
    assert reply == (200, {"Err": ""})


def names(host):
    return sorted(volume["Name"] for volume in post(host, "VolumeDriver.List", {})[1]["Volumes"])


@pytest.fixture
def volume(one, request):
    """A fresh volume, and none afterwards."""
    name = re.sub(r"[^a-z0-9]", "-", request.node.name.lower())[:60]
    done(verb(one, "Create", name))
    yield name
    done(verb(one, "Remove", name))


# ---- heads and bodies as engines send them -------------------------------------------------------------------------------------

@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_every_call_with_every_engines_head(one, volume, head):
    def call(name, **members):
        return post(one, f"VolumeDriver.{name}", {"Name": volume, **members}, head=head)

    assert post(one, "Plugin.Activate", head=head) == (200, {"Implements": ["VolumeDriver"]})
    done(call("Create", Opts=None))
    status, reply = call("Mount", ID="1")
    assert (status, reply["Err"]) == (200, "") and reply["Mountpoint"] in mount_points(one)
    assert call("Path") == (200, reply)
    got = call("Get")[1]["Volume"]
    assert (got["Name"], got["Mountpoint"], got["Status"]["references"]) == (volume, reply["Mountpoint"], 1)
    assert {"Name": volume, "Mountpoint": reply["Mountpoint"]} in post(one, "VolumeDriver.List", {}, head=head)[1]["Volumes"]
    done(call("Unmount", ID="1"))
    wait_for("the unmount", lambda: reply["Mountpoint"] not in mount_points(one))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_without_a_body(one, call, head):
    """A drained retry (fact 3) is not taken for a volume without a name, nor for knowledge that there is none."""
    before = names(one)
    for length in ("Content-Length: 0\r\n", ""):
        reply = decode(raw(one, f"POST /VolumeDriver.{call} HTTP/1.1\r\n{head}{length}\r\n".encode()))
        if call == "Get":
            assert reply is None
        elif call in NAMED:
            refused(reply, "no body", "again")
        else:
            assert reply[0] == 200
    assert names(one) == before


def test_capabilities(one):
    assert post(one, "VolumeDriver.Capabilities", {}) == (200, {"Capabilities": {"Scope": "global"}})


@pytest.mark.parametrize("body", ['{"Name":"%s"}', '{"Name":"%s","Opts":null}', '{"Name":"%s","Opts":{}}', '{"Opts":{},"Name":"%s"}\n\n',
                                  ' {"Name" : "%s" , "Opts":null, "Extra":{"a":[1,{"b":null}]}, "ID":null}'])
def test_create_bodies(one, body):
    name = "bodies"
    done(post(one, "VolumeDriver.Create", (body % name).encode()))
    assert name in names(one)
    done(verb(one, "Remove", name))


def test_unknown_members_are_ignored(one, volume):
    for call in ("Get", "Path", "Unmount", "Mount"):
        status, reply = verb(one, call, volume, ID="i", Extra=[1], Mountpoint="/etc", Opts={"a": "b"})
        assert status == (500 if call == "Path" else 200), reply
    done(verb(one, "Unmount", volume, ID="i"))


def test_no_name(one):
    for call in ("Get", "Mount", "Path"):
        refused(verb(one, call, ""), "no such volume")
    refused(verb(one, "Create", ""), "empty")
    done(verb(one, "Unmount", "", ID="x"))
    done(verb(one, "Remove", ""))
    assert "" not in names(one)


def test_get(one):
    before = time.time()
    done(verb(one, "Create", "got", Opts={"profile": "gold", "size": "100M", "nocow": ""}))
    status, reply = verb(one, "Get", "got")
    got = reply["Volume"]
    assert status == 200 and (got["Name"], got["Mountpoint"]) == ("got", "")
    made = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z", got["CreatedAt"])  # else dockerd forgets the volume (fact 13)
    assert before - 2 < time.mktime(time.strptime(made[1], "%Y-%m-%dT%H:%M:%S")) - time.timezone < time.time() + 2
    assert got["Status"]["profile"] == "gold" and got["Status"]["size"] == 100 * MIB and got["Status"]["nocow"] is True
    done(verb(one, "Remove", "got"))
    refused(verb(one, "Get", "got"), "no such volume: got")


def test_a_later_create_changes_nothing(one, volume):
    done(verb(one, "Create", volume, Opts={"size": "100M"}))
    assert verb(one, "Get", volume)[1]["Volume"]["Status"]["size"] == 0


# ---- bodies that are wrong ------------------------------------------------------------------------------------------------------

WRONG = {
    "cut": b'{"Name":"a', "brace": b"{", "null": b"null", "list": b'["a"]', "text": b'"a"', "number": b"1", "nothing named": b"{}",
    "number as name": b'{"Name":5}', "null as name": b'{"Name":null}', "list as name": b'{"Name":["a"]}', "twice": b'{"Name":"a","Name":"b"}',
    "two values": b'{"Name":"a"}{"Name":"b"}', "deep list": b"[" * 500000, "deep object": b'{"Name":' * 100000, "NUL": b'{"Name":"a\\u0000b"}',
    "raw NUL": b'{"Name":"a\0b"}', "half a surrogate": b'{"Name":"\\ud800"}', "not UTF-8": b'{"Name":"\xff\xfe"}', "noise": bytes(range(256)),
    "spaces": b" " * MIB, "1 MiB": b"x" * MIB, "large number": b'{"Name":' + b"9" * 1000 + b"}", "late rubbish": b'{"Name":"a"} x',
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_wrong_bodies(one, body):
    before = names(one)
    for call in NAMED:
        refused(post(one, f"VolumeDriver.{call}", body))
    for call in ("VolumeDriver.List", "VolumeDriver.Capabilities", "Plugin.Activate"):
        assert post(one, call, body)[0] == 200
    assert names(one) == before


@pytest.mark.parametrize("members", [{"Opts": []}, {"Opts": "size=1G"}, {"Opts": {"size": 5}}, {"Opts": {"size": None}}, {"Opts": {"nocow": True}},
                                     {"Opts": {"size": {"a": 1}}}, {"Opts": {f"o{n}": "" for n in range(1000)}}])
def test_wrong_options(one, members):
    refused(verb(one, "Create", "wrong", **members))
    refused(verb(one, "Get", "wrong"), "no such volume")


@pytest.mark.parametrize("mount_id", [5, ["a"], "x" * 129, "x" * 4096, "a\0b"], ids=range(5))
def test_wrong_ids(one, volume, mount_id):
    refused(verb(one, "Mount", volume, ID=mount_id))
    refused(verb(one, "Unmount", volume, ID=mount_id))
    assert verb(one, "Get", volume)[1]["Volume"]["Mountpoint"] == ""


HOSTILE = ["/", ".", "..", "../../etc/p", "/etc/passwd", "a/b", "a/../b", "-", "-rf", ".hidden", "a b", " ", "a\n", "\n", "\t", "\x1b[2J", "\x7f",
           "a:b", "a@b", "a\\b", "a'b", "$(reboot)", "a;b", "*", "ünï", "名前", "\u202e", "\u0000x", "e\u0301", "\U0001f4a9", "x" * 256,
           "x" * 4096, "é" * 128, "x" * 100000]


@pytest.mark.parametrize("name", HOSTILE, ids=[repr(name[:12]) + f"-{len(name)}" for name in HOSTILE])
def test_hostile_names(one, name):
    """dockerd checks no names (fact 11); what could not be a file's name here is refused before anything is made."""
    before, etc = names(one), sorted(os.listdir(one.path("/etc")))
    refused(verb(one, "Create", name))
    for call in ("Get", "Path", "Mount"):
        assert verb(one, call, name, ID="1")[0] == 500
    for call in ("Unmount", "Remove"):
        assert verb(one, call, name, ID="1")[0] == (500 if "\0" in name else 200)
    assert (names(one), sorted(os.listdir(one.path("/etc")))) == (before, etc)


def test_names_that_are_fine(one):
    good = ["x" * 255, "a", "0", "A-b_c.d", "a..b", "con", "91f5189e6c09cdac6901e5459757e7694c8bc4547a820a12d97284fde94dd3b3"]
    for name in good:
        done(verb(one, "Create", name))
    assert set(good) <= set(names(one))
    for name in good:
        assert verb(one, "Get", name)[1]["Volume"]["Name"] == name
        done(verb(one, "Remove", name))


def test_names_that_differ_in_case_only(one):
    with Engine(one) as engine:
        paths = {name: (engine.ok("Create", name), engine.ok("Mount", name, ID=name))[1]["Mountpoint"] for name in ("Db", "db", "DB")}
        assert len(set(paths.values())) == 3
        for name, path in paths.items():
            one.path(path + "/name").write_text(name)
        assert {name: one.path(path + "/name").read_text() for name, path in paths.items()} == {name: name for name in paths}
        for name in paths:
            engine.ok("Unmount", name, ID=name)
            engine.ok("Remove", name)


# ---- options --------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", ["0", "-1", "-0", "9223372036854775808", "18446744073709551616", "1" * 400, "10X", "", "G", "1 G", " 1G", "1G ",
                                  "1e9", "0x10000000", "1K", "63M", "5000P", "nan", "1.G", "1G\n"])
def test_sizes_that_are_none(one, size):
    for key in ("size", "SIZE"):
        refused(verb(one, "Create", "sized", Opts={key: size}), "size")
    refused(verb(one, "Get", "sized"), "no such volume")


@pytest.mark.parametrize("size,expected", [("64M", 64 * MIB), ("67108864", 64 * MIB), ("67108865", 64 * MIB + 1024), ("0.5g", 512 * MIB),
                                           ("100MiB", 100 * MIB), ("100mb", 100 * MIB), ("1G", 1024 * MIB)])
def test_sizes(one, size, expected):
    done(verb(one, "Create", "sized", Opts={"size": size}))
    assert verb(one, "Get", "sized")[1]["Volume"]["Status"]["size"] == expected
    done(verb(one, "Remove", "sized"))


@pytest.mark.parametrize("options,texts", [
    ({"color": "red"}, ["color", "size"]), ({"Size": "1G"}, ["Size"]), ({"": ""}, ["unknown option"]), ({"uid": "-1"}, ["uid"]),
    ({"uid": "4294967295"}, ["uid"]), ({"uid": "root"}, ["uid"]), ({"gid": "99999999999"}, ["gid"]), ({"mode": "0888"}, ["mode"]),
    ({"mode": "10000"}, ["mode"]), ({"mode": "rwx"}, ["mode"]), ({"nocow": "perhaps"}, ["nocow"]), ({"profile": "x" * 5000}, ["256"]),
    ({"color\x1b[2J": "red"}, ["color"])])
def test_options_that_are_wrong(one, options, texts):
    refused(verb(one, "Create", "optional", Opts=options), *texts)
    refused(verb(one, "Get", "optional"), "no such volume")


@pytest.mark.parametrize("options", [{"uid": "5", "gid": "6", "mode": "0750", "nocow": "true", "size": "128M", "profile": "gold"},
                                     {"SIZE": "128M", "UID": "5", "GID": "6", "INODES": "7", "NOQUOTA": "true", "o": "size=128M,uid=5,foo",
                                      "mode": "750", "nocow": "1", "profile": "gold"}], ids=["docker", "podman"])
def test_options_take_effect(one, options):
    with Engine(one) as engine:
        engine.ok("Create", "opts", Opts=options)
        path = engine.ok("Mount", "opts", ID="1")["Mountpoint"]
        status = one.path(path).stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (5, 6, 0o750)
        assert os.listdir(one.path(path)) == []  # no lost+found (fact 14)
        assert "C" in one.run(["lsattr", "-d", path]).stdout.split()[0]
        state = engine.ok("Get", "opts")["Volume"]["Status"]
        assert (state["size"], state["profile"], state["nocow"]) == (128 * MIB, "gold", True)
        full = one.run(["dd", "if=/dev/zero", f"of={path}/file", "bs=1M", "count=256", "conv=fsync"], check=False)
        assert full.returncode and re.search("No space|quota", full.stderr) and one.path(path + "/file").stat().st_size <= 129 * MIB
        engine.ok("Unmount", "opts", ID="1")
        engine.ok("Remove", "opts")


def test_anybody_may_write_by_default(one, volume):
    with Engine(one) as engine:
        path = engine.ok("Mount", volume, ID="1")["Mountpoint"]
        one.run(["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "touch", f"{path}/file"], check=False)
        assert one.path(path).stat().st_mode & 0o777 == 0o777
        engine.ok("Unmount", volume, ID="1")


# ---- HTTP itself ------------------------------------------------------------------------------------------------------------------

def test_paths_and_methods_that_are_none(one):
    for call in ("", "Plugin.Activate/", "plugin.activate", "VolumeDriver.Nothing", "v2/volumes", "../Plugin.Activate", "VolumeDriver.Get?x=1"):
        assert decode(raw(one, request(call, b'{"Name":"x"}')))[0] == 404
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH"):
        assert decode(raw(one, request("VolumeDriver.Remove", b'{"Name":"x"}', method=method)))[0] == 405


@pytest.mark.parametrize("data,status", [
    (b"rubbish\r\n\r\n", 400), (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400), (b"POST / HTTP/9.9\r\n\r\n", 400),
    (b"POST /Plugin.Activate HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400), (b"POST /Plugin.Activate HTTP/1.1\r\nContent-Length: 1x\r\n\r\n", 400),
    (b"POST /Plugin.Activate HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12", 400),
    (b"POST /Plugin.Activate HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", None),
    (b"POST /Plugin.Activate HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n" + b"x" * 1048577, 413),
    (b"POST /Plugin.Activate HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
    (b"POST /Plugin.Activate HTTP/1.1\r\nX: " + b"y" * 20000 + b"\r\n\r\n", 413), (b"POST /" + b"y" * 20000, 413)])
def test_what_is_not_http_is_refused_with_a_reason(one, data, status):
    """Below the plugin's own protocol; the reason is still JSON with Err."""
    reply = decode(raw(one, data))
    assert reply[0] in ((status,) if status else (400, 413)) and reply[1]["Err"]


def test_pieces(one, volume):
    data = request("VolumeDriver.Get", json.dumps({"Name": volume}).encode())
    for size in (1, 7, len(data) - 1):
        with connect(one) as client:
            for at in range(0, len(data), size):
                client.sendall(data[at:at + size])
                time.sleep(0.0005)
            assert decode(receive(client))[1]["Volume"]["Name"] == volume


def test_pipelined_requests(one, volume):
    """The first one is answered whole; `Connection: close` says that no other will be, and none was begun."""
    first, second = request("VolumeDriver.Get", json.dumps({"Name": volume}).encode()), request("VolumeDriver.Create", b'{"Name":"piped"}')
    assert decode(raw(one, first + second))[1]["Volume"]["Name"] == volume
    assert "piped" not in names(one)


def test_a_client_that_has_closed_its_writing_side_is_answered(one, volume):
    with connect(one) as client:
        client.sendall(request("VolumeDriver.Get", json.dumps({"Name": volume}).encode()))
        client.shutdown(socket.SHUT_WR)
        assert decode(receive(client))[0] == 200


def test_connections_without_a_request(one):
    for _ in range(300):
        connect(one).close()
    clients = [connect(one) for _ in range(100)]
    for client in clients[:50]:
        client.sendall(b"POST /Plugin.Act")
    for client in clients:
        client.close()
    assert post(one, "Plugin.Activate")[0] == 200


def parallel(count, work):
    """[work(0), work(1), ...], all at the same time."""
    results = [None] * count
    gate = threading.Barrier(count)

    def run(number):
        gate.wait()
        results[number] = work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_64_connections_at_once(one, volume):
    begin = time.monotonic()
    replies = parallel(64, lambda number: verb(one, "Get", volume if number % 2 else "none"))
    assert time.monotonic() - begin < 4
    assert [reply[0] for reply in replies] == [500, 200] * 32


def test_slow_senders_lock_nobody_out(one, volume):
    slow = [connect(one) for _ in range(560)]  # more than the plugin serves at once
    try:
        for number in range(5):
            for client in slow:
                try:
                    client.send(b"P" if number == 0 else b"O")
                except OSError:
                    pass
            begin = time.monotonic()
            assert verb(one, "Get", volume)[0] == 200
            assert time.monotonic() - begin < 2
    finally:
        for client in slow:
            client.close()


def test_a_reader_that_does_not_read(one, volume):
    idle = [connect(one) for _ in range(50)]
    for client in idle:
        client.sendall(request("VolumeDriver.List", b"{}"))
    assert verb(one, "Get", volume)[0] == 200
    for client in idle:
        assert decode(receive(client))[0] == 200
        client.close()


# ---- many at once, and again ------------------------------------------------------------------------------------------------------

def test_20_creates_of_one_name(one):
    for _ in range(3):
        assert parallel(20, lambda _: verb(one, "Create", "same", Opts={"size": "100M"})) == [(200, {"Err": ""})] * 20
        assert names(one).count("same") == 1
        assert len(os.listdir(one.path("/var/lib/flocker/pool/volumes"))) >= 1
        assert parallel(20, lambda _: verb(one, "Remove", "same")) == [(200, {"Err": ""})] * 20
        assert "same" not in names(one)


def test_creates_of_many_names(one):
    wanted = [f"many{number}" for number in range(30)]
    replies = parallel(30, lambda number: verb(one, "Create", wanted[number]))
    for name, reply in zip(wanted, replies):
        if reply != (200, {"Err": ""}):  # on a slow machine not all are done in time; then a retry finds them
            refused(reply, "try again")
            wait_for(name, lambda name=name: verb(one, "Create", name)[0] == 200, 40)
    assert set(wanted) <= set(names(one))
    for name in wanted:
        done(verb(one, "Remove", name))


def test_20_mounts_of_one_volume(one, volume):
    with Engine(one) as engine:
        replies = parallel(20, lambda number: verb(one, "Mount", volume, ID=f"m{number}"))
        paths = {reply[1].get("Mountpoint") for reply in replies}
        assert {reply[0] for reply in replies} == {200} and len(paths) == 1 and paths.pop() in mount_points(one)
        assert engine.ok("Get", volume)["Volume"]["Status"]["references"] == 20
        parallel(19, lambda number: verb(one, "Unmount", volume, ID=f"m{number}"))
        assert engine.ok("Get", volume)["Volume"]["Status"]["references"] == 1
        assert engine.ok("Path", volume)["Mountpoint"] in mount_points(one)
        engine.ok("Unmount", volume, ID="m19")
        wait_until_unmounted(one)


def test_mounts_and_unmounts_crosswise(one, volume):
    """Last unmount and first mount race; nobody is given a path that goes away beneath him."""
    def work(number):
        with Engine(one) as engine:
            for _ in range(15):
                path = engine.ok("Mount", volume, ID=f"m{number}")["Mountpoint"]
                assert path in mount_points(one)
                engine.ok("Unmount", volume, ID=f"m{number}")
        return True

    assert parallel(4, work) == [True] * 4
    wait_until_unmounted(one)


def test_create_of_what_another_node_has(one):
    """Quickly, and without asking control for it over and over."""
    owner = "6b1f3c1e-5d0a-4c39-9a52-0d9f3c0e8a11"
    body = json.dumps({"name": "elsewhere", "owner": owner}).encode()
    status, content = one.ask("/run/flocker/control.sock", "POST", "/v2/volumes", body)
    assert status in (201, 202), content
    begin = time.monotonic()
    done(verb(one, "Create", "elsewhere"))
    assert time.monotonic() - begin < 2


def test_mount_of_what_is_not_there(one):
    refused(verb(one, "Mount", "nowhere", ID="1"), "no such volume: nowhere")
    done(verb(one, "Create", "trashed"))
    done(verb(one, "Remove", "trashed"))
    for call in ("Mount", "Path", "Get"):
        refused(verb(one, call, "trashed", ID="1"), "no such volume: trashed")
    assert mount_points(one) == [] and references(one) == {}


def test_remove_and_unmount_again_and_again(one):
    done(verb(one, "Create", "again"))
    for _ in range(3):
        done(verb(one, "Unmount", "again", ID="never"))
    for _ in range(3):
        done(verb(one, "Remove", "again"))
        done(verb(one, "Unmount", "again", ID="never"))


def test_path_only_of_what_is_mounted(one, volume):
    refused(verb(one, "Path", volume), "not mounted")
    with Engine(one) as engine:
        path = engine.ok("Mount", volume, ID="1")["Mountpoint"]
        assert engine.ok("Path", volume)["Mountpoint"] == path
        engine.ok("Unmount", volume, ID="1")


# ---- references ---------------------------------------------------------------------------------------------------------------------

def test_one_id_several_times(one, volume):
    """docker cp on a running container (fact 4)."""
    with Engine(one) as engine:
        path = engine.ok("Mount", volume, ID="c")["Mountpoint"]
        for _ in range(3):
            engine.ok("Mount", volume, ID="c")
            engine.ok("Unmount", volume, ID="c")
            assert path in mount_points(one)
        engine.ok("Unmount", volume, ID="c")
        wait_until_unmounted(one)


def test_another_engines_volume_is_not_removed(one):
    with Engine(one) as first, Engine(one) as second:
        first.ok("Create", "shared")
        first.ok("Mount", "shared", ID="1")
        refused(second.call("Remove", "shared"), "shared", "in use")
        first.ok("Unmount", "shared", ID="1")
        second.ok("Remove", "shared")


def test_what_an_engine_forgot_does_not_forbid_its_remove(one):
    with Engine(one) as engine:
        engine.ok("Create", "leaked")
        for _ in range(3):
            engine.ok("Mount", "leaked", ID="cp")
        engine.ok("Remove", "leaked")
        wait_until_unmounted(one)


def test_the_kernel_has_the_last_word(one, volume):
    """A mount namespace that has the volume keeps it, whatever the counters say."""
    with Engine(one) as engine:
        path = engine.ok("Mount", volume, ID="1")["Mountpoint"]
        holder = one.popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", f"echo x >{path}/kept; exec sleep 1000"])
        wait_for("the holder", lambda: one.path(f"{path}/kept").exists())
        engine.ok("Unmount", volume, ID="1")
        refused(engine.call("Remove", volume), volume, "in use")
        assert verb(one, "Get", volume)[0] == 200
        holder.kill()
        holder.wait(10)
        wait_until_unmounted(one)


def test_a_client_that_leaves_before_its_mount_is_answered(one, volume):
    with Engine(one) as engine:
        one.kill_flocker("agent", signal.SIGSTOP)
        engine.send("VolumeDriver.Mount", {"Name": volume, "ID": "gone"}, leave=True)
        engine.send("VolumeDriver.Create", {"Name": "kept"}, leave=True)
        one.kill_flocker("agent", signal.SIGCONT)
        wait_for("the Create of a client that has gone to be done all the same", lambda: engine.call("Get", "kept")[0] == 200)
        wait_until_unmounted(one)
        engine.ok("Remove", "kept")


# ---- while something is broken ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def host(hosts):
    return hosts(network=hosts.network())


def quick(host, call, body):
    """The reply to a call that must not wait for anything."""
    begin = time.monotonic()
    reply = post(host, call, body)
    took = time.monotonic() - begin
    return reply, took


def assert_quick(host, volume):
    """Budget: 50 ms; the best of a few tries, because the machine is shared."""
    for call, body in [("Plugin.Activate", b""), ("VolumeDriver.Capabilities", {}), ("VolumeDriver.Get", {"Name": volume}),
                       ("VolumeDriver.List", {}), ("VolumeDriver.Path", {"Name": volume})]:
        replies = [quick(host, call, body) for _ in range(5)]
        assert min(took for _, took in replies) < 0.05 and max(took for _, took in replies) < 1, (call, replies)
        assert all(reply[0] == 200 or "Path" in call for reply, _ in replies)


def test_while_storage_is_stuck(host, flocker_binary):
    host.start_flocker(flocker_binary)
    done(verb(host, "Create", "known"))
    host.run(["fsfreeze", "--freeze", "/var/lib/flocker/pool"])
    try:
        results = []
        stuck = threading.Thread(target=lambda: results.append(quick(host, "VolumeDriver.Create", {"Name": "stuck"})))
        stuck.start()
        time.sleep(0.3)
        assert_quick(host, "known")
        stuck.join()
        assert_quick(host, "known")
        (reply, took), = results
        refused(reply, "stuck", "try again")
        assert took < 4.5
    finally:
        host.run(["fsfreeze", "--unfreeze", "/var/lib/flocker/pool"])
    wait_for("the retry to succeed", lambda: verb(host, "Create", "stuck")[0] == 200)
    assert names(host) == ["known", "stuck"]


def test_without_control(host, flocker_binary):
    host.start_flocker(flocker_binary)
    with Engine(host) as engine:
        for name in ("known", "mounted"):
            engine.ok("Create", name)
        engine.ok("Mount", "mounted", ID="1")
        for restarted in (False, True):
            if restarted:
                host.kill_flocker("agent")
                start_agent(host)
                wait_for("the agent", lambda: (host.ask(SOCKET, "POST", "/Plugin.Activate") or (0,))[0] == 200)
                wait_for("the pool", lambda: engine.call("Get", "known"))
            else:
                host.kill_flocker("control")
            assert_quick(host, "mounted")
            assert names(host) == ["known", "mounted"]
            assert engine.call("Get", "unknown") is None  # can't tell, and does not pretend to (fact 2)
            refused(engine.call("Create", "new"), "control", "try again")
            refused(engine.call("Remove", "known"), "control", "try again")
            engine.ok("Mount", "known", ID="2")
            engine.ok("Unmount", "known", ID="2")
            assert engine.ok("Get", "mounted")["Volume"]["Mountpoint"] in mount_points(host)
        host.flocker("up")
        wait_for("control", lambda: engine.call("Create", "new")[0] == 200)
        refused(engine.call("Get", "unknown"), "no such volume")
        engine.ok("Unmount", "mounted", ID="1")
        wait_until_unmounted(host)


def test_references_outlive_the_agent(host, flocker_binary, monkeypatch):
    monkeypatch.setenv("FLOCKER_RECHECK_S", "1")
    host.start_flocker(flocker_binary)
    with Engine(host) as engine, Engine(host) as dying:
        for name in ("a", "b"):
            engine.ok("Create", name)
        path = engine.ok("Mount", "a", ID="1")["Mountpoint"]
        engine.ok("Mount", "a", ID="1")
        dying.ok("Mount", "b", ID="2")
        host.kill_flocker("agent")
        dying.end()
        host.flocker("up")
        wait_for("what the dead engine left to be given up", lambda: mount_points(host) == [path])
        assert engine.ok("Get", "a")["Volume"]["Status"]["references"] == 2
        engine.ok("Unmount", "a", ID="1")
        time.sleep(2.5)  # over a look at what is doubtful
        assert mount_points(host) == [path]
        engine.ok("Unmount", "a", ID="1")
        wait_until_unmounted(host)


# ---- the other doors ---------------------------------------------------------------------------------------------------------------------

PORT = 4526
TLS_SPEC = {"Name": "ignored", "Addr": f"https://localhost:{PORT}",
            "TLSConfig": {"CAFile": "/etc/flocker/cluster.crt", "CertFile": "/etc/flocker/engine.crt", "KeyFile": "/etc/flocker/engine.key"}}


@pytest.mark.parametrize("version", ENGINES)
def test_doors_that_docker_finds_by_files(host, flocker_binary, version):
    """A .json with TLS both ways, and a .spec with a unix URL, beside the socket itself: three names for one plugin."""
    folder = host.path("/etc/docker/plugins")
    folder.mkdir(parents=True)
    (folder / "flockertls.json").write_text(json.dumps(TLS_SPEC))
    (folder / "flockerspec.spec").write_text(f"unix://{SOCKET}\n")
    host.start_flocker(flocker_binary, [f"--plugin-listen=127.0.0.1:{PORT}"])
    start_docker(host, version)
    host.load_image("busybox")
    for number, driver in enumerate(("flockertls", "flockerspec", "flocker")):
        host.docker("volume", "create", "-d", driver, f"v{number}")
        host.docker("run", "--rm", "-v", f"v{number}:/v", "busybox", "sh", "-c", f"echo {driver} >/v/file")
        assert host.docker("run", "--rm", "-v", f"v{number}:/v", "busybox", "cat", "/v/file").stdout == driver + "\n"
        wait_until_unmounted(host)
        assert f"{driver} v{number}" in host.docker("volume", "ls", "--format", "{{.Driver}} {{.Name}}").stdout
        host.docker("volume", "rm", f"v{number}")
    assert names(host) == []


def test_who_may_use_the_tls_door(host, flocker_binary):
    host.start_flocker(flocker_binary, [f"--plugin-listen=127.0.0.1:{PORT}"])
    script = f"""
import json, socket, ssl, sys
who = sys.argv[1]
plain = socket.create_connection(("127.0.0.1", {PORT}), 5)
try:
    if who != "plain":
        context = ssl.create_default_context(cafile="/etc/flocker/cluster.crt")
        if who != "nobody":
            context.load_cert_chain(f"/etc/flocker/{{who}}.crt", f"/etc/flocker/{{who}}.key")
        plain = context.wrap_socket(plain, server_hostname="localhost")
    plain.sendall(b"POST /Plugin.Activate HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\n\\r\\n")
    print(plain.recv(1000).decode(errors="replace").partition("\\r\\n")[0])
except (OSError, ssl.SSLError) as error:
    print("closed")
"""
    answers = {who: host.run(["/usr/bin/python3", "-c", script, who]).stdout.strip() for who in ("engine", "user", "node", "nobody", "plain")}
    assert answers.pop("engine") == "HTTP/1.1 200 OK"
    assert not [answer for answer in answers.values() if "HTTP" in answer], answers
