"""Runs in a test host: takes [function, arguments] as JSON lines and answers each with its result. Times are milliseconds."""
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
import traceback

PLUGIN_SOCKET = "/run/docker/plugins/flocker/flocker.sock"
CONTROL_SOCKET = "/run/flocker/control.sock"
NULL = open(os.devnull, "r+b")  # pylint: disable=consider-using-with
daemons = []  # that this process has started


def now_ms():
    return time.perf_counter_ns() / 1e6


# ---- talking to Flocker ------------------------------------------------------------------------------------------------------


def plugin(name, **body):
    """One plugin call as Docker makes it: (milliseconds, answer)."""
    text = json.dumps(body).encode()
    begin = now_ms()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(PLUGIN_SOCKET)
        client.sendall(b"POST /%s HTTP/1.1\r\nHost: plugin\r\nContent-Length: %d\r\n\r\n" % (name.encode(), len(text)) + text)
        reply = b"".join(iter(lambda: client.recv(65536), b""))
    took = now_ms() - begin
    head, _, content = reply.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if status != 200:
        raise RuntimeError(f"{name} {body}: {status} {content.decode(errors='replace')}")
    return took, json.loads(content)


def wait(what, condition, limit_s=10.0, pause_s=0.001):
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"waited {limit_s:g} s for {what}")
        time.sleep(pause_s)


def create(name):
    return plugin("VolumeDriver.Create", Name=name)[0]


def mount(name):
    """The time of one Mount of a volume that is not mounted; it is given back afterwards."""
    wait(f"{name} to be unmounted", lambda: not plugin("VolumeDriver.Get", Name=name)[1]["Volume"]["Mountpoint"], pause_s=0.01)
    took = plugin("VolumeDriver.Mount", Name=name, ID="bench")[0]
    plugin("VolumeDriver.Unmount", Name=name, ID="bench")
    return took


def in_parallel(count, limit_s, connect, work):
    """Runs work(connection, i) for all i below count, sixteen at once, within a limit; returns the seconds it took."""
    numbers, errors, begin = iter(range(count)), [], time.monotonic()
    lock = threading.Lock()

    def run():
        connection = connect()
        while not errors:
            with lock:
                i = next(numbers, None)
            if i is None:
                return
            if time.monotonic() - begin > limit_s:
                errors.append(RuntimeError(f"{i} of {count} were made within {limit_s} s"))
                return
            try:
                work(connection, i)
            except Exception as error:  # pylint: disable=broad-except
                errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return time.monotonic() - begin


def fill(count, prefix, limit_s):
    """Makes volumes by the plugin's socket."""
    return in_parallel(count, limit_s, lambda: None, lambda _, i: create(f"{prefix}{i}"))


def control_connection():
    connection = http.client.HTTPConnection("control")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(CONTROL_SOCKET)
    return connection


def post_dataset(connection, i, primary):
    body = {"primary": primary, "maximum_size": 1 << 30, "metadata": {"name": f"dataset-{i}", "purpose": "bench"}}
    connection.request("POST", "/v1/configuration/datasets", json.dumps(body))
    reply = connection.getresponse()
    text = reply.read()
    if reply.status != 201:
        raise RuntimeError(f"dataset {i}: {reply.status} {text.decode(errors='replace')}")


def fill_datasets(count, primary, limit_s):
    """Makes datasets by REST."""
    return in_parallel(count, limit_s, control_connection, lambda connection, i: post_dataset(connection, i, primary))


# ---- commands, alternately ---------------------------------------------------------------------------------------------------


def run_ms(argv):
    begin = now_ms()
    done = subprocess.run(argv, check=False, stdin=NULL, stdout=NULL, stderr=subprocess.PIPE)
    took = now_ms() - begin
    if done.returncode:
        raise RuntimeError(f"{argv}: {done.stderr.decode(errors='replace')}")
    return took


def alternate(commands, rounds, limit_s, warm_up=2):
    """The times of each command, run in turn: A B, B A, ... {i} in a word stands for the round."""
    times, end = [[] for _ in commands], time.monotonic() + limit_s
    for i in range(-warm_up, rounds):
        if time.monotonic() > end:
            break
        for which in range(len(commands)) if i % 2 else reversed(range(len(commands))):
            took = run_ms([word.replace("{i}", str(i + warm_up)) for word in commands[which]])
            if i >= 0:
                times[which].append(took)
    return times


# ---- start and idleness ------------------------------------------------------------------------------------------------------


def answers(known):
    try:
        plugin("Plugin.Activate")
        return plugin("VolumeDriver.Get", Name=known)[1]["Volume"]["Name"] == known
    except (OSError, IndexError, ValueError, RuntimeError):
        return False


def start(binary, known):
    """Starts both daemons: the time until the plugin is there and knows a volume."""
    with open("/var/log/flocker/bench.log", "ab") as log:
        begin = now_ms()
        for role in ("control", "agent"):
            options = ["--rest=127.0.0.1:0"] if role == "control" else []
            daemons.append(subprocess.Popen([binary, role, *options], stdin=NULL, stdout=log, stderr=log))
        wait("the plugin to know a volume", lambda: answers(known), 20)
        return now_ms() - begin


def stop(binary, keep_mounted=False):
    """`flocker down`, which waits for the daemons' ends: those that this process started have to be collected here."""
    words = [binary, "down"] + (["--keep-mounted"] if keep_mounted else [])
    down = subprocess.Popen(words, stdin=NULL, stdout=NULL)  # pylint: disable=consider-using-with
    while down.poll() is None:
        daemons[:] = [daemon for daemon in daemons if daemon.poll() is None]
        time.sleep(0.005)
    if down.returncode:
        raise RuntimeError(f"flocker down ended with {down.returncode}")


def pids():
    found = {}
    for role in ("control", "agent"):
        try:
            with open(f"/run/flocker/{role}.pid", encoding="ascii") as file:
                found[role] = int(file.read())
        except (OSError, ValueError):
            pass
    return found


def switches(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)


def memory_mib(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        kib = {line.split(":")[0]: int(line.split()[1]) for line in file if line.endswith("kB\n")}
    own = kib["Private_Clean"] + kib["Private_Dirty"]
    return {"rss": kib["Rss"] / 1024, "pss": kib["Pss"] / 1024, "private": own / 1024}


def idle(seconds):
    """How often each daemon was switched to within these seconds, and its memory."""
    running = pids()
    before = {role: switches(pid) for role, pid in running.items()}
    time.sleep(seconds)
    return {role: {"switches": switches(pid) - before[role], **memory_mib(pid)} for role, pid in running.items()}


def main():
    functions = {f.__name__: f for f in (create, mount, fill, fill_datasets, alternate, start, stop, idle)}
    for line in sys.stdin:
        function, arguments = json.loads(line)
        try:
            answer = {"result": functions[function](**arguments)}
        except Exception as error:  # pylint: disable=broad-except
            traceback.print_exc()
            answer = {"error": f"{function}: {error}"}
        print(json.dumps(answer), flush=True)


main()
