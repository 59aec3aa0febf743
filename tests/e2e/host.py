"""A test host: a computer of its own as far as engines and Flocker can tell, made of namespaces on this machine.

It has its own processes, mounts (`/` shared, as under systemd), /run, /tmp, /etc, boot id, and optionally network. Everything
that it writes outside the bound folders is lost at a power cut; nothing that it does remains on the machine after close().
"""
import hashlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import engines
import images
from paths import CACHE, CHECKOUT, cached, wait_for

HERE = Path(__file__).resolve().parent
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSED_ON = ("ASAN_", "LSAN_", "TSAN_", "UBSAN_", "FLOCKER_", "LLVM_PROFILE_", "GCOV_")
PERSISTENT = ("/flocker /var/lib/flocker /etc/flocker /var/log/flocker /etc/docker /usr/lib/docker/plugins /var/lib/docker "
              "/etc/containers /var/lib/containers /tmp")
DOCKER_SOCKET = "/run/docker.sock"
CLOCK_FILE = "wall-clock"
FLOCKER_SOCKET = "/run/docker/plugins/flocker/flocker.sock"
PODMAN_CONFIG = """\
[containers]
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[engine.volume_plugins]
"""


class Process(subprocess.Popen):
    """A process in a host. Signals go to it, not to the nsenter that stands between; `inner` is its pid outside the host."""

    inner = None

    def find_inner(self):
        def child():
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
            return self.poll() is not None or children.read_text().split()

        found = wait_for("nsenter to start its child", child)
        self.inner = int(found[0]) if isinstance(found, list) else None

    def send_signal(self, sig):
        if self.poll() is None and self.inner:
            os.kill(self.inner, sig)


class Host:
    def __init__(self, name, workdir, network=None, own_clock=False):
        """network: None for a host that is connected to nothing but itself, or a Network to which a link connects it.
        own_clock: its processes (but those that are linked statically, as engines) have a wall clock that set_clock() sets."""
        self.name, self.work, self.network, self.own_clock = name, Path(workdir).resolve(), network, own_clock
        self.plugins = {"flocker": FLOCKER_SOCKET}
        self.holder = self.engine = self.flocker_binary = None
        self.engine_path = []
        for folder in ("root", "memory", "disk", "log"):
            (self.work / folder).mkdir(parents=True, exist_ok=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        self.set_clock(0)
        self.power_on()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    # ---- power ---------------------------------------------------------------------------------------------------------

    def power_on(self):
        command = ["unshare", "--mount", "--pid", "--uts", "--net", "--fork", "--kill-child", "--propagation", "private"]
        command += ["sh", HERE / "holder.sh", self.name, self.work, CHECKOUT, CACHE]
        environment = {"PATH": SYSTEM_PATH, "PERSISTENT": PERSISTENT}
        self.holder_process = subprocess.Popen([str(word) for word in command], env=environment, text=True, start_new_session=True,
                                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        answer = self.holder_process.stdout.readline().split()
        if answer[:1] != ["ready"]:
            self.holder_process.wait()
            raise RuntimeError(f"{self.name}: the host did not start")
        self.holder = int(answer[1])
        if self.network:
            try:
                self.network.connect(self)
            except BaseException:
                self.close()
                raise

    def power_cut(self):
        """Every process of the host dies at once; what was bound from the disk folder stays."""
        self.holder_process.stdin.close()
        self.holder_process.stdout.close()
        try:
            self.holder_process.wait(30)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{self.name}: stuck processes: {self.processes()}") from error
        self.holder = self.engine = None
        if self.network:
            self.network.disconnect(self)
        self._detach_loops()

    def reboot(self):
        self.power_cut()
        self.power_on()

    def set_clock(self, ahead_s):
        """Its wall clock is that much ahead of this machine's, from now on and over a reboot; no other clock is touched."""
        if self.own_clock:
            folder = self.work / "disk/tmp"
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / CLOCK_FILE, "r+b" if (folder / CLOCK_FILE).exists() else "wb") as file:  # it is mapped by its users
                file.write(struct.pack("=q", int(ahead_s)))

    # ---- processes -----------------------------------------------------------------------------------------------------

    def _enter(self, argv):
        namespaces = ["--mount", "--pid", "--uts", "--net"]
        return ["nsenter", "--target", str(self.holder), *namespaces, "--", *[str(word) for word in argv]]

    def _environment(self, extra):
        path = ":".join([*map(str, self.engine_path), SYSTEM_PATH])
        passed = {key: value for key, value in os.environ.items() if key.startswith(PASSED_ON)}
        if self.own_clock:
            passed |= {"LD_PRELOAD": str(wall_clock()), "WALL_CLOCK": f"/tmp/{CLOCK_FILE}"}
            passed["ASAN_OPTIONS"] = f"{passed.get('ASAN_OPTIONS', '')}:verify_asan_link_order=0"
        return {"PATH": path, "HOME": "/root", "LANG": "C.UTF-8", "TMPDIR": "/tmp", **passed, **(extra or {})}

    def popen(self, argv, env=None, **options):
        process = Process(self._enter(argv), env=self._environment(env), start_new_session=True, **options)
        process.find_inner()
        return process

    def run(self, argv, timeout=60, check=True, input=None, env=None):  # pylint: disable=redefined-builtin
        """Runs a command to its end. Output is text; a failure's message holds it."""
        with self.popen(argv, env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE) as process:
            try:
                out, err = process.communicate(input, timeout)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(argv, process.returncode, out, err)
        if check and done.returncode:
            raise CommandFailed(self.name, done)
        return done

    def path(self, inside):
        """A file of the host as this process can open it. (/proc/self does not work this way: it is /proc/1.)"""
        return Path(f"/proc/{self.holder}/root") / str(inside).lstrip("/")

    def processes(self):
        """{pid in the host: command line} of everything that runs there, the holder left out."""
        found = {}
        for entry in self.path("/proc").iterdir():
            if entry.name.isdigit() and entry.name != "1":
                try:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    found[int(entry.name)] = line or f"[{(entry / 'comm').read_text().strip()}]"
                except (FileNotFoundError, ProcessLookupError):
                    pass
        return found

    def is_running(self, pid):
        """Whether a pid of the host is a process that is neither gone nor a zombie."""
        try:
            return "State:\tZ" not in self.path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False

    def log(self, name):
        file = self.work / "log" / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def _serve(self, name, argv, ready, timeout):
        """Starts a service that logs to log/NAME.log and waits until ready() is true."""
        with open(self.work / "log" / f"{name}.log", "ab") as log:
            process = self.popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def up():
            if process.poll() is not None:
                raise RuntimeError(f"{self.name}: {name} ended with {process.returncode}:\n{self.log(name)[-3000:]}")
            return ready()

        try:
            wait_for(f"{name} of {self.name} to answer", up, timeout)
        except TimeoutError as error:
            process.kill()
            raise TimeoutError(f"{error}:\n{self.log(name)[-3000:]}") from None
        return process

    def ask(self, unix_socket, method, url, body=b"", timeout=10.0):
        """One HTTP request to a socket of the host: (status, body), or None if nothing answers there."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(timeout)
                client.connect(str(self.path(unix_socket)))
                client.sendall(f"{method} {url} HTTP/1.0\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                reply = b"".join(iter(lambda: client.recv(65536), b""))
        except OSError:
            return None
        head, _, content = reply.partition(b"\r\n\r\n")
        return (int(head.split()[1]), content) if head else None

    # ---- engines -------------------------------------------------------------------------------------------------------

    def start_docker(self, version="20", args=(), timeout=60):
        """Starts dockerd and returns the seconds until its API answered."""
        self.engine_path = engines.search_path(version)
        begin = time.monotonic()
        self.engine = self._serve("dockerd", [
            "dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--data-root=/var/lib/docker",
            "--exec-root=/run/docker", "--pidfile=/run/docker.pid", f"--host=unix://{DOCKER_SOCKET}", *args],
            lambda: self.ask(DOCKER_SOCKET, "GET", "/_ping", timeout=timeout) == (200, b"OK"), timeout)
        return time.monotonic() - begin

    def stop_docker(self, timeout=60):
        self.engine.terminate()
        self.engine.wait(timeout)

    def kill_docker(self):
        """kill -9 of dockerd alone: containerd and the containers go on."""
        self.engine.kill()
        self.engine.wait(10)

    def docker(self, *args, **options):
        return self.run(["docker", *args], **options)

    def podman(self, *args, **options):
        config = self.path("/etc/containers")
        if not (config / "policy.json").exists():
            (config / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}\n')
        plugins = "".join(f'{name} = "{path}"\n' for name, path in self.plugins.items())
        file, new = config / "containers.conf", config / "containers.conf.new"
        if not file.exists() or file.read_text() != PODMAN_CONFIG + plugins:  # another podman may be reading it just now
            new.write_text(PODMAN_CONFIG + plugins)
            new.rename(file)
        return self.run(["podman", *args], **options)

    def load_image(self, name, engine="docker"):
        """Makes an image of images.py ("busybox", "postgres") known to "docker" or "podman" under its own name."""
        archive, changes = getattr(images, name)()
        options = [word for change in changes for word in ("--change", change)]
        self_run = {"docker": self.docker, "podman": self.podman}[engine]
        return self_run("import", *options, archive, f"{name}:latest").stdout.strip()

    # ---- the product ---------------------------------------------------------------------------------------------------

    def start_flocker(self, binary, args=(), timeout=20):
        """Runs `BINARY up`, which waits until both daemons are ready, and starts only those that are not running."""
        self.flocker_binary = Path(binary).resolve()
        return self.flocker("up", *args, timeout=timeout)

    def stop_flocker(self, *args):
        return self.flocker("down", *args)

    def flocker(self, *args, **options):
        return self.run([self.flocker_binary, *args], **options)

    def flocker_json(self, *args, **options):
        return json.loads(self.flocker(*args, "--json", **options).stdout)

    def kill_flocker(self, role, sig=signal.SIGKILL):
        """Sends a signal to the "agent" or the "control" by its pid file; returns the pid, which is gone after SIGKILL."""
        pid = int(self.path(f"/run/flocker/{role}.pid").read_text())
        self.run(["kill", f"-{int(sig)}", str(pid)])
        if sig == signal.SIGKILL:
            wait_for(f"the end of {role}", lambda: not self.is_running(pid))
        return pid

    # ---- the end -------------------------------------------------------------------------------------------------------

    def close(self):
        """Ends the host and everything of it. Of its work folder only log/ stays; raises if anything else is left."""
        if not self.holder_process.stdin.closed:
            self.power_cut()
        left = self._detach_loops() + self._remove_cgroups() + [line for line in mounts() if f" {self.work}/" in line]
        for folder in ("root", "memory", "disk"):
            if not left and (self.work / folder).exists():
                shutil.rmtree(self.work / folder)
        if left:
            raise RuntimeError(f"{self.name} left behind: {left}")

    def loops(self):
        """The loop devices backed by files of this host (known by inode: their path names are those of the host's mounts)."""
        devices, files = loops(), set()
        for folder, _, names in os.walk(self.work / "disk") if devices else ():
            files |= {inode(os.path.join(folder, name)) for name in names}
        return {device for device, backing in devices.items() if backing in files}

    def _detach_loops(self):
        """Detaches them; returns those that do not go."""
        mine = self.loops()
        for device in mine:
            subprocess.run(["losetup", "--detach", device], check=False, stderr=subprocess.DEVNULL)
        try:
            wait_for("loop devices to be let go", lambda: not self.loops(), 10)
        except TimeoutError:
            pass
        return sorted(self.loops())

    def _remove_cgroups(self):
        """Engines that were killed leave the control groups of their containers; returns those that cannot be removed."""
        disk = self.work / "disk/var/lib"
        stores = [disk / "docker/containers", disk / "containers/storage/overlay-containers"]
        ids = [entry.name for store in stores if store.is_dir() for entry in store.iterdir() if entry.is_dir()]
        groups = [group for name in ids for group in Path("/sys/fs/cgroup").glob(f"**/*{name}*")] if ids else []
        left = []
        for group in sorted(groups, reverse=True):
            try:
                group.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                left.append(str(group))
        return left


class CommandFailed(AssertionError):
    def __init__(self, host, done):
        command = " ".join(str(word) for word in done.args)
        super().__init__(f"{host}: `{command}` ended with {done.returncode}\n{done.stdout}{done.stderr}")
        self.returncode, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr


def wall_clock():
    """The library of wall_clock.c."""
    source = HERE / "wall_clock.c"
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", source, "-o"]
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:8]
    return cached(f"wall-clock-{digest}.so", lambda path: subprocess.run([*command, path], check=True))


def mounts():
    return Path("/proc/self/mountinfo").read_text().splitlines()


def inode(file):
    try:
        status = os.lstat(file)
    except FileNotFoundError:
        return None
    return f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}", status.st_ino


def loops():
    """{loop device: (device, inode) of its file}"""
    listed = subprocess.run(["losetup", "--list", "--noheadings", "--output", "NAME,BACK-MAJ:MIN,BACK-INO"], check=True,
                            text=True, stdout=subprocess.PIPE).stdout
    return {name: (device, int(number)) for name, device, number in (line.split() for line in listed.splitlines())}
