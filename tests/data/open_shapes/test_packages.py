import os
import shutil
import subprocess

import pytest

from recon3d.data.open_shapes.packages import PACKAGES, fetch_packages


def command(folder, name, script):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n" + script)
    (folder / name).chmod(0o755)


def test_without_apt_the_error_names_it_and_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"expected the command apt-get.*--packages"):
        fetch_packages(tmp_path / "packages")


def test_a_package_that_apt_does_not_know_is_named(tmp_path, monkeypatch):
    command(tmp_path / "bin", "apt-get", 'echo "E: Unable to locate package $2" >&2; exit 100\n')
    command(tmp_path / "bin", "dpkg", "exit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(RuntimeError, match=r"Unable to locate package torcs-data.*apt-get update"):
        fetch_packages(tmp_path / "packages", ["torcs-data"])
    assert list((tmp_path / "packages").iterdir()) == []


def test_unpacked_packages_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in PACKAGES:
        (tmp_path / "packages" / name).mkdir(parents=True)
    assert fetch_packages(tmp_path / "packages") == {name: tmp_path / "packages" / name for name in PACKAGES}


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg")
def test_a_real_package_is_unpacked(tmp_path, monkeypatch):
    source = tmp_path / "source"
    (source / "DEBIAN").mkdir(parents=True)
    control = (
        "Package: torcs-data\nVersion: 1.0-1\nArchitecture: all\nMaintainer: tests <t@example.org>\nDescription: t\n"
    )
    (source / "DEBIAN/control").write_text(control)
    (source / "usr/share").mkdir(parents=True)
    (source / "usr/share/car.acc").write_text("AC3Db")
    subprocess.run(["dpkg-deb", "-b", source, tmp_path / "torcs-data_1.0-1_all.deb"], check=True, capture_output=True)
    command(tmp_path / "bin", "apt-get", f'[ "$1" = download ] && cp {tmp_path}/$2_*.deb .\n')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    folders = fetch_packages(tmp_path / "packages", ["torcs-data"])
    assert (folders["torcs-data"] / "usr/share/car.acc").read_text() == "AC3Db"
    assert [path.name for path in (tmp_path / "packages").iterdir()] == ["torcs-data"]  # the .deb is gone
