"""The Docker engines tests run: the machine's own, and a newer one from Debian 13's packages in the cache folder."""
import socket
import subprocess
from urllib.parse import urlsplit

from paths import cached

NEWER_SUITE = "trixie"
# The machine's runc serves the newer engine too: Debian 13's needs a newer C library than Debian 12 has.
NEWER_PACKAGES = ["docker.io", "docker-cli", "containerd"]
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Offline(Exception):
    """No package mirror can be reached: the only reason for which a test of the newer engine may be skipped."""


def search_path(version):
    """The folders that come first in PATH for this engine."""
    if version == "20":
        return []
    if version == "26":
        root = cached("docker26", download)
        return [root / "usr/sbin", root / "usr/bin"]
    raise ValueError(f"no such engine: {version}")


def download(tree):
    """Fetches and unpacks the packages with an apt configuration of its own; the machine's is not touched."""
    apt = tree / "apt"
    for folder in ("state/lists/partial", "cache/archives/partial", "etc/parts"):
        (apt / folder).mkdir(parents=True)
    (apt / "state/status").touch()
    mirror = machine_mirror()
    (apt / "etc/sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {NEWER_SUITE} main\n")
    options = {
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "state/status",
        "Dir::Cache": apt / "cache",
        "Dir::Etc::sourcelist": apt / "etc/sources.list",
        "Dir::Etc::sourceparts": apt / "etc/parts",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": apt / "etc/parts",
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
    }
    command = ["apt-get", "-q"] + [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    try:
        run(command + ["update"])
        run(command + ["download"] + NEWER_PACKAGES, cwd=apt)
    except subprocess.CalledProcessError as error:
        if not reachable(mirror):
            raise Offline(f"{urlsplit(mirror).hostname} cannot be reached") from error
        raise RuntimeError(f"Debian {NEWER_SUITE} packages not fetched: {error.stdout}") from error
    for package in sorted(apt.glob("*.deb")):
        run(["dpkg-deb", "-x", package, tree])
    run(["rm", "-rf", apt, tree / "usr/share"])


def machine_mirror():
    """The address from which this machine gets Debian's main packages."""
    targets = run(["apt-get", "indextargets", "--format", "$(LABEL)|$(COMPONENT)|$(REPO_URI)", "Created-By: Packages"])
    for line in targets.splitlines():
        label, component, uri = line.split("|")
        if label == "Debian" and component == "main":
            return uri
    raise RuntimeError("no apt source for Debian's main packages on this machine")


def reachable(mirror):
    url = urlsplit(mirror)
    try:
        socket.create_connection((url.hostname, url.port or (443 if url.scheme == "https" else 80)), timeout=20).close()
        return True
    except OSError:
        return False


def run(command, **options):
    return subprocess.run([str(word) for word in command], check=True, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **options).stdout
