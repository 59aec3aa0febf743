"""`make install` and `make uninstall`: what is installed where, and that all of it goes again. No host is needed."""
import os
import shutil
import subprocess

import pytest

from paths import CHECKOUT

EXPECTED = {
    "/usr/sbin/flocker", "/usr/sbin/flocker-control", "/usr/sbin/flocker-dataset-agent", "/usr/sbin/flocker-node-era",
    "/usr/sbin/flocker-ca",
    "/lib/systemd/system/flocker-control.service", "/lib/systemd/system/flocker-agent.service", "/lib/systemd/system/flocker-plugin.socket",
    "/usr/lib/tmpfiles.d/flocker.conf", "/usr/share/doc/flocker/LICENSE", "/usr/share/doc/flocker/README.md",
}


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A build folder of this test's own (make install changes the prefix of the one it is given)."""
    folder = tmp_path_factory.mktemp("build") / "build"
    make(f"BUILD={folder}", "all")
    yield folder
    shutil.rmtree(folder)


def make(*words):
    return subprocess.run(["make", "-C", CHECKOUT, *words], check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=600).stdout


def tree(folder):
    return {f"{top[len(str(folder)):]}/{name}" for top, folders, names in os.walk(folder)
            for name in names + [each for each in folders if os.path.islink(os.path.join(top, each))]}


def test_installs_what_it_should_and_uninstalls_all_of_it(build, tmp_path):
    make(f"BUILD={build}", f"DESTDIR={tmp_path}", "install")
    installed = tree(tmp_path)
    assert EXPECTED <= installed
    manuals = ("/usr/share/man/", "/usr/share/bash-completion/", "/usr/share/zsh/", "/usr/share/fish/", "/usr/sbin/flocker", "/usr/bin/flocker",
               "/usr/share/doc/flocker/")
    assert not [path for path in installed - EXPECTED if not path.startswith(manuals)]
    assert os.readlink(tmp_path / "usr/sbin/flocker-control") == "flocker"
    for unit in ("flocker-control.service", "flocker-agent.service"):
        text = (tmp_path / "lib/systemd/system" / unit).read_text()
        assert "ExecStart=/usr/sbin/flocker " in text and "Before=docker.service" in text and "After=docker" not in text
    (tmp_path / "usr/sbin/other").write_text("not Flocker's")
    make(f"BUILD={build}", f"DESTDIR={tmp_path}", "uninstall")
    assert tree(tmp_path) == {"/usr/sbin/other"}
    (tmp_path / "usr/sbin/other").unlink()
    make(f"BUILD={build}", f"DESTDIR={tmp_path}", "install")
    make(f"BUILD={build}", f"DESTDIR={tmp_path}", "uninstall")
    assert list(tmp_path.glob("*")) in ([], [tmp_path / "usr"]) and not tree(tmp_path)


def test_prefix_decides_the_place(build, tmp_path):
    make(f"BUILD={build}", f"DESTDIR={tmp_path}", "prefix=/opt/flocker", "install")
    assert (tmp_path / "opt/flocker/sbin/flocker").exists()
    assert "ExecStart=/opt/flocker/sbin/flocker " in (tmp_path / "lib/systemd/system/flocker-agent.service").read_text()
    make(f"BUILD={build}", f"DESTDIR={tmp_path}", "prefix=/opt/flocker", "uninstall")
    assert not tree(tmp_path)


def test_units_are_sound(build, tmp_path):
    """systemd's own checker finds nothing to complain about (the manual pages apart, which are not installed here)."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze on this machine")
    make(f"BUILD={build}", f"DESTDIR={tmp_path}", "prefix=/usr", "install")
    units = sorted((tmp_path / "lib/systemd/system").glob("flocker*"))
    for unit in units:
        unit.write_text(unit.read_text().replace("ExecStart=/usr/sbin/", f"ExecStart={tmp_path}/usr/sbin/"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    mine = [line for line in done.stdout.splitlines() if "flocker" in line]
    assert done.returncode == 0 and not mine, done.stdout
