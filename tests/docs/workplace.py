"""A copy of the repository in which every command of the documentation finds what it names.

Licensed data sets are a few small files in the official layouts; pictures, meshes and checkpoints have the names that
the pages use.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import trimesh
import yaml
from PIL import Image, ImageDraw

from recon3d.data.nmr_layout import CATEGORIES, write_split
from recon3d.geometry.cameras import nmr_cameras
from recon3d.kernels.voxelize import voxelize
from recon3d.renderers.hard import render_hard
from tests.data import cub_files, dpc_files, image_folder_files, pascal3d_files
from tests.data.test_pascal3d import PICTURES as CARS
from tests.docs.commands import ROOT
from tests.docs.fork_server import CLIENT

BIN = Path(sys.executable).parent
CORES = len(os.sched_getaffinity(0))


def make_workplace(folder: Path) -> Path:
    """Copy what git tracks, and put beside it what the pages assume."""
    _copy_tracked(folder)
    _link_environment(folder)
    _data_sets(folder / "datasets")
    _pictures_and_meshes(folder)
    return folder


def run(command: str, folder: Path, seconds: float = 1800) -> subprocess.CompletedProcess[str]:
    """Run a command in the copy as in a terminal whose environment is active; on one core, without keys."""
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=_environment(folder),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def _environment(folder: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "RECON3D_"))}
    return inherited | {
        "PATH": f"{folder / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
        "WANDB_MODE": "offline",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
    }


def _copy_tracked(folder: Path) -> None:
    # New files count too, so that a page can be tried before it is committed.
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def _link_environment(folder: Path) -> None:
    """The running environment as the .venv of the copy, newer than what `make setup` would compare it with.

    All of it but `recon3d`, which is the client of the server of the commands.
    """
    environment = folder / ".venv"
    (environment / "bin").mkdir(parents=True)
    for name in ("pyvenv.cfg", "lib"):
        if (BIN.parent / name).exists():
            (environment / name).symlink_to(BIN.parent / name)
    for program in BIN.iterdir():
        if program.name != "recon3d":
            (environment / "bin" / program.name).symlink_to(program)
    client = environment / "bin/recon3d"
    client.write_text(CLIENT.format(python=sys.executable, address=str(address(folder))), encoding="utf-8")
    client.chmod(0o755)
    (environment / ".installed").touch()


def address(folder: Path) -> Path:
    """Where the server of the commands listens; a socket's path may have a hundred characters only."""
    return folder / ".venv/socket"


@contextmanager
def server(folder: Path) -> Iterator[None]:
    """The server of the commands of a copy, running."""
    arguments = [sys.executable, "-m", "tests.docs.fork_server", str(address(folder))]
    with subprocess.Popen(arguments, cwd=ROOT, env=_environment(folder), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("the server of the commands did not start")
            yield
        finally:
            process.kill()


def shorten_suites(folder: Path) -> None:
    """`<name>_smoke.yaml` of every suite: preset smoke, one seed, one row, or one method on one data set."""
    for path in sorted((folder / "benchmarks/suites").glob("*.yaml")):
        suite = yaml.safe_load(path.read_text(encoding="utf-8"))
        suite |= {"preset": "smoke", "seeds": [0]}
        if "grid" in suite:
            data, methods = next(iter(suite["grid"].items()))
            suite["grid"] = {data: methods[:1]}
        else:
            suite["rows"] = [{key: value for key, value in suite["rows"][0].items() if key != "reported"}]
            suite.pop("reported", None)
            suite["overrides"] = {
                name: value for name, value in suite.get("overrides", {}).items() if not name.startswith("trainer.")
            } | {"trainer.max_epochs": 1, "trainer.check_val_every_n_epoch": 1}
        path.with_name(f"{path.stem}_smoke.yaml").write_text(yaml.safe_dump(suite, sort_keys=False), encoding="utf-8")


def _data_sets(folder: Path) -> None:
    folder.mkdir()
    made = Path(os.environ.get("RECON3D_DATA") or ROOT / "datasets")
    for path in sorted(made.glob("synthetic*-*")):  # what is made on first use has been made for other tests
        (folder / path.name).symlink_to(path.resolve())
    cub_files.write_release(folder / "cub")
    cub_files.write_cmr(folder / "cub")
    release = folder / "pascal3d/PASCAL3D+_release1.1"
    release.mkdir(parents=True)
    pascal3d_files.write_release(release)
    for split, pictures in CARS.items():
        pascal3d_files.write_cmr(folder / "pascal3d", split, pictures)
    dpc_files.write_set(folder / "shapenet_points")
    _shapenet(folder / "shapenet")
    _open_shapes(folder / "open_shapes")


def _shapenet(root: Path) -> None:
    """The same two boxes in each of the 13 categories and splits."""
    box = trimesh.creation.box((1.0, 0.6, 0.5))
    verts, faces = torch.tensor(box.vertices).float(), torch.tensor(np.array(box.faces))
    seen = render_hard(verts.expand(24, -1, -1), faces, nmr_cameras(), 64)
    views = (torch.cat([seen.image, seen.mask], dim=1) * 255).round().byte().numpy()
    voxels = voxelize(verts, faces).numpy()
    for category in CATEGORIES:
        for split in ("train", "val", "test"):
            write_split(root, category, split, ["a", "b"], [views] * 2, [voxels] * 2)


def _open_shapes(root: Path) -> None:
    """Two boxes a category and split of the three default categories."""
    rows = ["instance_id,category,split"]
    for category in ("airplane", "car", "chair"):
        for number in range(6):
            path = root / category / f"{category}{number}" / "model.obj"
            path.parent.mkdir(parents=True)
            trimesh.creation.box((0.8, 0.3 + 0.05 * number, 0.4)).export(path)
            rows.append(f"{category}{number},{category},{('train', 'val', 'test')[number // 2]}")
    (root / "metadata.csv").write_text("\n".join(rows) + "\n")


def _pictures_and_meshes(folder: Path) -> None:
    mask = Image.new("L", (96, 80))
    ImageDraw.Draw(mask).ellipse((16, 20, 80, 64), fill=255)
    picture = Image.new("RGB", mask.size, (90, 120, 160))
    picture.paste((200, 80, 40), mask=mask)
    cut_out = picture.copy()
    cut_out.putalpha(mask)
    cut_out.save(folder / "photo.png")
    cut_out.save(folder / "bird.png")
    for name in ("photo.jpg", "bird.jpg", "painting.png"):
        picture.save(folder / name)
    for name in ("mask.png", "photo-mask.png", "bird-mask.png"):
        mask.save(folder / name)
    image_folder_files.write_folder(folder / "photos", cameras=True, views=8)
    trimesh.creation.icosphere(2, 0.5).export(folder / "chair.obj")
