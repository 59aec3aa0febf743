"""Where the checkout and its cache are, and waiting without sleeping longer than needed."""
import fcntl
import os
import shutil
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("FLOCKER_TEST_CACHE") or CHECKOUT / ".cache").resolve()


def wait_for(what, condition, timeout=10.0, interval=0.02):
    """The first true value of condition(), asked for at most `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(interval)


def cached(name, make):
    """The path of a cached file or folder. If it is not there, make(path) makes it; what an error left unfinished is not used."""
    CACHE.mkdir(parents=True, exist_ok=True)
    final, unfinished = CACHE / name, CACHE / (name + ".new")
    with open(CACHE / (name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not final.exists():
            remove(unfinished)
            make(unfinished)
            unfinished.rename(final)
    return final


def remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        path.unlink()
