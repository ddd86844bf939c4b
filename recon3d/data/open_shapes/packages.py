"""The Debian packages that open_shapes is made from: what they are called, where their meshes lie, how to get them."""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Package:
    """One Debian package as `dpkg -x` unpacks it.

    Attributes:
        root: folder that `Model.original_file` is relative to.
        yaw: turn about +Y in degrees that brings the front of its models to -Z.
    """

    root: str
    yaw: float


PACKAGES = {
    "sweethome3d-furniture": Package("usr/share/sweethome3d/furniture", yaw=180),  # front +Z
    "sweethome3d": Package("usr/share/sweethome3d", yaw=180),
    "torcs-data": Package("usr/share/games/torcs", yaw=90),  # nose +X
    "flightgear-data-ai": Package("usr/share/games/flightgear", yaw=-90),  # nose -X
    "flightgear-data-models": Package("usr/share/games/flightgear", yaw=-90),
}


def fetch_packages(folder: Path, names: Iterable[str] = tuple(PACKAGES)) -> dict[str, Path]:
    """Folder of each package, downloaded with `apt-get download` and unpacked with `dpkg -x`; nothing is installed.

    All five are 0.9 GB to download and 1.5 GB on disk. A package that is already unpacked in `folder` is kept.

    Args:
        folder: receives one folder per package; made if missing.
        names: packages to fetch, out of `PACKAGES`.

    Raises:
        FileNotFoundError: apt-get or dpkg is not on this machine.
        RuntimeError: a package cannot be downloaded or unpacked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folders = {name: folder / name for name in names}
    missing = {name: path for name, path in folders.items() if not path.is_dir()}
    for tool in ("apt-get", "dpkg") if missing else ():
        if shutil.which(tool) is None:
            raise FileNotFoundError(
                f"expected the command {tool}, which Debian and Ubuntu have; it is not on this machine. Unpack "
                f"{', '.join(missing)} elsewhere with `dpkg -x FILE.deb PACKAGE` and name the folder with --packages"
            )
    for name, path in missing.items():
        logger.info("fetching %s", name)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as work:
            _run(
                ["apt-get", "download", name],
                Path(work),
                f"Run `apt-get update`; {name} is in Debian's main and Ubuntu's universe",
            )
            (archive,) = Path(work).glob("*.deb")
            _run(["dpkg", "-x", archive.name, "unpacked"], Path(work), "Is the disk full?")
            (Path(work) / "unpacked").rename(path)
    return folders


def _run(command: list[str], folder: Path, advice: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.stdout.strip()}. {advice}")
