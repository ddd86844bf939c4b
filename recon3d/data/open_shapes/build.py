"""The whole open_shapes build: packages in, `<category>/<instance_id>/model.obj` and metadata.csv out."""

from __future__ import annotations

import csv
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from recon3d.data.open_shapes.catalogue import Model, load_catalogue
from recon3d.data.open_shapes.cleaning import FACE_CAP, FACE_CAPS, clean, is_watertight, require_fast_simplification
from recon3d.data.open_shapes.grouping import assign_splits, duplicates, families, near_pairs
from recon3d.data.open_shapes.packages import PACKAGES, fetch_packages
from recon3d.data.open_shapes.polygons import Triangles
from recon3d.data.open_shapes.sources import ModelReader
from recon3d.files import write_whole

logger = logging.getLogger(__name__)

METADATA = "metadata.csv"
PROVENANCE = ["instance_id", "category", "name", "source_package", "original_file", "author", "licence"]
COUNTS = ["n_verts", "n_faces", "n_faces_original", "watertight"]
COLUMNS = [*PROVENANCE, *COUNTS, "family", "split"]

Track = Callable[[Sequence[Model], str], Iterable[Model]]
Event = tuple[str, str, str]  # instance id, what happened, details: a line of the log


def _untracked(models: Sequence[Model], description: str) -> Iterable[Model]:
    return models


def build_open_shapes(
    out: Path,
    packages: Mapping[str, Path] | None = None,
    category: str | None = None,
    log: Path | None = None,
    track: Track = _untracked,
) -> pd.DataFrame:
    """Rows of metadata.csv of the set that was written to `out`.

    The output depends on the packages and on the versions of numpy, scipy and fast-simplification only. It is built in
    a temporary folder beside `out` and renamed at the end, so a failed run leaves a former set as it was.

    Args:
        out: folder of the set. A former build there is replaced; any other content is refused.
        packages: folder of each unpacked Debian package by name; None fetches them for this run.
        category: build only this one; None for all.
        log: receives a tab-separated line per model that was left out or lost parts, and per near pair.
        track: wraps the list of models for a progress bar, given the list and a description.

    Returns:
        One row per model with the columns `COLUMNS`, ordered by category and instance id.

    Raises:
        ModuleNotFoundError: fast-simplification is not installed.
        FileExistsError: `out` holds something that is not a former build.
        FileNotFoundError: a needed package is not in `packages`, or apt-get or dpkg is not on this machine.
        RuntimeError: a package cannot be fetched.
        ValueError: unknown category, or not one usable model.
    """
    require_fast_simplification()
    models = load_catalogue(category)
    needed = sorted({model.source_package for model in models})
    out = out.resolve()
    _refuse_foreign_content(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as work:
        if packages is None:
            packages = fetch_packages(Path(work) / "packages", needed)
        for name in needed:
            if name not in packages or not packages[name].is_dir():
                raise FileNotFoundError(
                    f"expected the unpacked package {name}; {packages.get(name, 'nothing')} is no folder. "
                    f"Run `apt-get download {name}` and `dpkg -x FILE.deb {name}`, or let them be fetched"
                )
        events: list[Event] = []
        table, meshes = _clean_models(models, packages, events, track)
        logger.info("comparing %d models for duplicates and families", len(table))
        table = pd.concat([_group(rows, meshes, events) for _, rows in table.groupby("category")], ignore_index=True)
        build = Path(work) / "build"
        for row_category, instance_id in table[["category", "instance_id"]].itertuples(index=False):
            folder = build / row_category / instance_id
            folder.mkdir(parents=True)
            (folder / "model.obj").write_text(to_obj(meshes[instance_id]), encoding="utf-8", newline="\n")
        table.to_csv(build / METADATA, index=False, lineterminator="\n")
        if log is not None:
            _write_log(log, events)
        _replace(out, build, Path(work) / "former")
    return table


def to_obj(mesh: Triangles) -> str:
    """Text of a Wavefront OBJ file with 5 decimals, without trailing zeros."""
    lines = ["v " + " ".join(f"{x:.5f}".rstrip("0").rstrip(".") for x in vert) for vert in mesh.verts]
    lines += [f"f {a} {b} {c}" for a, b, c in mesh.faces + 1]
    return "\n".join(lines) + "\n"


def _clean_models(
    models: Sequence[Model], packages: Mapping[str, Path], events: list[Event], track: Track
) -> tuple[pd.DataFrame, dict[str, Triangles]]:
    """Rows and meshes of the models that are not rejected and can be read; one bad file does not stop the rest."""
    rows, meshes, unusable = [], {}, []
    with ModelReader(packages) as reader:
        for model in track(models, "cleaning"):
            if model.reject:
                events.append((model.instance_id, "rejected", model.reject))
                continue
            try:
                mesh, left_out = reader.read(model)
                yaw = PACKAGES[model.source_package].yaw + model.yaw
                mesh, faces_original = clean(mesh, yaw, FACE_CAPS.get(model.category, FACE_CAP))
            except (FileNotFoundError, ValueError) as error:
                events.append((model.instance_id, "unusable", str(error)))
                unusable.append(model.instance_id)
                continue
            if left_out:
                events.append((model.instance_id, "objects left out", " ".join(left_out)))
            meshes[model.instance_id] = mesh
            counts = {"n_verts": len(mesh.verts), "n_faces": len(mesh.faces), "n_faces_original": faces_original}
            rows.append(asdict(model) | counts | {"watertight": int(is_watertight(mesh.faces))})
    if not rows:
        raise ValueError(f"expected models in {dict(packages)}; none of {len(models)} can be used, first: {events[:2]}")
    if unusable:
        logger.warning(
            "%d of %d models cannot be used, so this is not the published set; the packages may be of another release: "
            "%s",
            len(unusable),
            len(models),
            ", ".join(unusable),
        )
    return pd.DataFrame(rows), meshes


def _group(rows: pd.DataFrame, meshes: Mapping[str, Triangles], events: list[Event]) -> pd.DataFrame:
    """Rows of one category with family and split and the columns of metadata.csv, without duplicates."""
    ids = list(rows["instance_id"])
    pairs = near_pairs([meshes[instance_id] for instance_id in ids])
    kept_by = duplicates(pairs)
    events += [(ids[pair.first], f"near {pair.mean:.5f} {pair.tail:.5f}", ids[pair.second]) for pair in pairs]
    events += [(ids[dropped], "duplicate of", ids[kept]) for dropped, kept in sorted(kept_by.items())]
    rows = rows.assign(family=[ids[leader] for leader in families(len(ids), pairs)])
    rows = rows.iloc[[i for i in range(len(ids)) if i not in kept_by]]
    return rows.assign(split=assign_splits(list(rows["family"])))[COLUMNS]


def _refuse_foreign_content(out: Path) -> None:
    """Raises FileExistsError unless `out` is missing, empty, or holds nothing but what a former build wrote."""
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"expected a folder; {out} is a file. Choose another --out")
    ours = set()
    if (out / METADATA).is_file():
        with (out / METADATA).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames == COLUMNS:
                ours = {out / row["category"] / row["instance_id"] / "model.obj" for row in reader} | {out / METADATA}
    files = (path for path in out.rglob("*") if path.is_symlink() or not path.is_dir())
    foreign = sorted(str(path.relative_to(out)) for path in files if path not in ours)
    if foreign:
        raise FileExistsError(
            f"expected an empty folder or a former build; {out} has {len(foreign)} other files: "
            f"{', '.join(foreign[:3])}. Move them or choose another --out"
        )


def _replace(out: Path, build: Path, former: Path) -> None:
    """Puts `build` in the place of `out`, which moves to `former`."""
    _refuse_foreign_content(out)  # again: a user may have put something there during the minutes of the build
    if not out.exists():
        build.rename(out)
        return
    out.rename(former)
    try:
        build.rename(out)
    except OSError:
        former.rename(out)
        raise


def _write_log(log: Path, events: Sequence[Event]) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    write_whole(log, "".join("\t".join(event) + "\n" for event in events).encode())
