"""Container images made from the packages of this machine, as tar files in the cache: there is no registry to ask."""
import hashlib
import io
import re
import subprocess
import tarfile
from pathlib import Path

from paths import cached

RECIPE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]  # a changed recipe makes new images
BUSYBOX = Path("/bin/busybox")
POSTGRES_UID = 999
UNWANTED = r"bitcode|llvmjit|/man/|/locale/|/bin/postmaster$"
POSTGRES_ENTRY = r"""#!/bin/sh
# As the official image does: root makes PGDATA ready, user postgres initialises it if it is empty and serves it.
set -e
PATH=@BIN@:$PATH
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown postgres:postgres "$PGDATA"
    chmod 700 "$PGDATA"
    exec su -s /bin/sh postgres /usr/local/bin/docker-entrypoint "$@"
fi
[ -s "$PGDATA/PG_VERSION" ] || initdb --pgdata="$PGDATA" --username=postgres --auth=trust --locale=C.UTF-8
exec postgres "$@"
"""


def busybox():
    """(tar file, changes): /bin of busybox, /data with a file of root and a folder of another user, to test copy-up."""
    return cached(f"busybox-{RECIPE}.tar", make_busybox), ["CMD [\"/bin/sh\"]"]


def postgres():
    """(tar file, changes): this machine's PostgreSQL with the libraries it needs, on busybox."""
    binaries = postgres_binaries()
    changes = ["ENV PGDATA=/var/lib/postgresql/data", f"ENV PATH={binaries}:/usr/sbin:/usr/bin:/sbin:/bin",
               "ENTRYPOINT [\"/usr/local/bin/docker-entrypoint\"]"]
    return cached(f"postgres-{RECIPE}.tar", make_postgres), changes


def make_busybox(path):
    with tarfile.open(path, "w") as tar:
        add_base(tar)
        add_folder(tar, "data")
        add_text(tar, "data/file", "from the image\n")
        add_folder(tar, "data/owned", mode=0o750, uid=1000)
        add_text(tar, "data/owned/file", "of user 1000\n", mode=0o640, uid=1000)


def make_postgres(path):
    binaries = postgres_binaries()
    version = binaries.parent.name
    files = set()
    for package in (f"postgresql-{version}", f"postgresql-client-{version}"):
        listed = subprocess.run(["dpkg", "-L", package], check=True, text=True, stdout=subprocess.PIPE).stdout
        files |= {Path(line) for line in listed.splitlines() if is_wanted(line)}
    files |= libraries([file for file in files if file.is_relative_to(binaries.parent)])
    with tarfile.open(path, "w") as tar:
        add_base(tar, users={"postgres": POSTGRES_UID})
        for file in sorted(files):
            if not file.is_dir():
                tar.add(file.resolve(), str(file).lstrip("/"), filter=as_root)
        tar.add("/usr/share/zoneinfo/Etc/UTC", "usr/share/zoneinfo/Etc/UTC")
        tar.add("/usr/lib/locale/C.utf8", "usr/lib/locale/C.utf8", filter=as_root)
        for folder in ("var/run/postgresql", "var/lib/postgresql", "var/lib/postgresql/data"):
            add_folder(tar, folder, mode=0o775, uid=POSTGRES_UID)
        add_text(tar, "usr/local/bin/docker-entrypoint", POSTGRES_ENTRY.replace("@BIN@", str(binaries)), mode=0o755)


def postgres_binaries():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        raise RuntimeError("no PostgreSQL on this machine: tools/install-deps test")
    return found[-1].parent


def is_wanted(file):
    """Not the documentation, the translations, or the just-in-time compiler, whose LLVM is larger than all the rest."""
    return file.startswith(("/usr/lib/postgresql/", "/usr/share/postgresql/")) and not re.search(UNWANTED, file)


def libraries(files):
    """What the dynamic linker loads for these programs and modules."""
    objects = [str(file) for file in files if file.is_file() and file.open("rb").read(4) == b"\x7fELF"]
    listed = subprocess.run(["ldd"] + objects, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return {Path(found) for found in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listed, re.MULTILINE)}


def add_base(tar, users=None):
    users = {"root": 0, "daemon": 1, "user": 1000, **(users or {})}
    for folder in ("bin", "dev", "etc", "proc", "root", "run", "sys", "usr", "var"):
        add_folder(tar, folder)
    add_folder(tar, "tmp", mode=0o1777)
    add_link(tar, "var/run", "/run")
    tar.add(BUSYBOX, "bin/busybox", filter=as_root)
    applets = subprocess.run([BUSYBOX, "--list"], check=True, text=True, stdout=subprocess.PIPE).stdout.split()
    for applet in sorted(set(applets) - {"busybox"}):
        add_link(tar, f"bin/{applet}", "busybox")
    add_text(tar, "etc/passwd", "".join(f"{name}:x:{uid}:{uid}::/tmp:/bin/sh\n" for name, uid in users.items()))
    add_text(tar, "etc/group", "".join(f"{name}:x:{uid}:\n" for name, uid in users.items()))


def as_root(info):
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return info


def entry(name, kind, mode, uid=0):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.uid, info.gid = kind, mode, uid, uid
    return info


def add_folder(tar, name, mode=0o755, uid=0):
    tar.addfile(entry(name, tarfile.DIRTYPE, mode, uid))


def add_link(tar, name, target):
    info = entry(name, tarfile.SYMTYPE, 0o777)
    info.linkname = target
    tar.addfile(info)


def add_text(tar, name, text, mode=0o644, uid=0):
    data = text.encode()
    info = entry(name, tarfile.REGTYPE, mode, uid)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
