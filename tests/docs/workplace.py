"""A copy of the repository in which every command of the documentation finds what it names.

Licensed data sets are a few small files in the official layouts; pictures, meshes and checkpoints have the names that
the pages use.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import trimesh
import yaml
from PIL import Image, ImageDraw

from recon3d.data.nmr_layout import CATEGORIES, write_split
from tests.data import cub_files, dpc_files, pascal3d_files
from tests.data.test_pascal3d import PICTURES as CARS
from tests.docs.commands import ROOT

BIN = Path(sys.executable).parent
CORES = len(os.sched_getaffinity(0))


def make_workplace(folder: Path) -> Path:
    """Copy what git tracks, and put beside it what the pages assume."""
    _copy_tracked(folder)
    _link_environment(folder)
    _data_sets(folder / "datasets")
    _pictures_and_meshes(folder)
    return folder


def run(command: str, folder: Path, seconds: float = 300) -> subprocess.CompletedProcess[str]:
    """Run a command in the copy as in a terminal whose environment is active; on one core, without keys."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "RECON3D_"))}
    environment |= {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "WANDB_MODE": "offline",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
    }
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def _copy_tracked(folder: Path) -> None:
    # New files count too, so that a page can be tried before it is committed.
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def _link_environment(folder: Path) -> None:
    """The running environment as the .venv of the copy, newer than what `make setup` would compare it with."""
    (folder / ".venv").mkdir()
    (folder / ".venv/bin").symlink_to(BIN)
    (folder / ".venv/.installed").touch()


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
    """Two boxes of each of the 13 categories and splits: flat pictures, the same from all sides."""
    views = np.zeros((24, 4, 64, 64), np.uint8)
    views[:, :, 20:44, 16:48] = 255
    voxels = np.zeros((32, 32, 32), bool)
    voxels[10:22, 8:24, 8:24] = True
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
    for split in ("photos", "masks"):
        (folder / split).mkdir()
    for number in range(4):
        picture.save(folder / f"photos/{number}.jpg")
        mask.save(folder / f"masks/{number}.png")
    trimesh.creation.icosphere(2, 0.5).export(folder / "chair.obj")
