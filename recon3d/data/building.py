"""Objects to a finished data set in the NMR or the DPC layout, in parallel; an interrupted build continues.

Shared by `recon3d.data.rendering` (mesh files) and `recon3d.data.synthetic` (procedural objects). Each finished object
is a part file below ``OUT/.parts``, named by a hash of everything that made it; when all are there they are joined per
class and split (NMR) or become the files of the object (DPC), ``dataset.json`` is written last, and the parts are
removed.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from recon3d.data.description import DESCRIPTION_FILE, read_description, write_description
from recon3d.data.dpc_layout import is_dpc_layout, write_model
from recon3d.data.meshes import ColoredMesh
from recon3d.data.nmr_layout import write_split
from recon3d.data.object_views import VERSION, Layout, RenderSettings, object_to_views
from recon3d.data.split_lists import write_split_list
from recon3d.data.worker_pool import run_jobs
from recon3d.files import replace_file, write_whole

logger = logging.getLogger(__name__)

FAILURES_FILE = "failures.csv"
PARTS = ".parts"


@dataclass(frozen=True)
class Source:
    """One object to build.

    Attributes:
        category: class name of the result's files.
        id: unique within the category.
        split: train, val or test.
        load: gives the mesh in the frame of a ShapeNet .obj file; called in a worker, so picklable.
        content: hash of what `load` reads.
        origin: where it comes from, for the list of failures.
    """

    category: str
    id: str
    split: str
    load: Callable[[], ColoredMesh]
    content: str
    origin: str


@dataclass(frozen=True, order=True)
class Failure:
    """An object that is not in the data set, and why."""

    category: str
    id: str
    origin: str
    reason: str


@dataclass(frozen=True)
class RenderReport:
    """What a build did.

    Attributes:
        root: folder of the data set.
        counts: {category: {split: objects}} of the data set.
        failures: objects left out.
        rendered: objects made by this run; the others were there.
    """

    root: Path
    counts: dict[str, dict[str, int]]
    failures: tuple[Failure, ...]
    rendered: int


@dataclass(frozen=True)
class _Job:
    source: Source
    settings: RenderSettings
    part: Path


def build_dataset(
    sources: Sequence[Source],
    out: Path,
    settings: RenderSettings,
    *,
    name: str,
    origin: str,
    skipped: Sequence[Failure] = (),
    workers: int | None = None,
    timeout: float = 600.0,
) -> RenderReport:
    """Builds the data set of `sources` in `out`; does nothing where it is already there.

    Safe to interrupt and to run twice at once: a second process waits for the first. An object that fails is listed in
    ``OUT/failures.csv`` and left out. Splits, voxels and the version in dataset.json are the same on every machine;
    pixels and points may differ by rounding, and then so does the hash.

    Args:
        sources: the objects.
        out: folder of the result.
        settings: applied to every object.
        name: of the data set, in dataset.json.
        origin: of the meshes, in dataset.json.
        skipped: objects that were already found unusable, for the list of failures.
        workers: processes; None: the cores this process may use.
        timeout: seconds allowed per object.

    Raises:
        ValueError: `out` holds a data set of other meshes or settings, two objects have one name, or not
            one of them could be made.
    """
    if len({(source.category, source.id) for source in sources}) != len(sources):
        raise ValueError(f"{origin}: two objects share their category and id; rename one.")
    if (finished := _finished(sources, out, settings)) is not None:
        return finished
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        if (finished := _finished(sources, out, settings)) is not None:  # by another process, while this one waited
            return finished
        parts = out / PARTS
        if not parts.is_dir() and (any(out.glob("*_images.npz")) or is_dpc_layout(out)):
            raise ValueError(
                f"{out} holds a data set without {DESCRIPTION_FILE}, made elsewhere. Choose another folder."
            )
        parts.mkdir(exist_ok=True)
        jobs = [
            _Job(source, settings, parts / source.category / f"{source.id}.{_key(source, settings)[:16]}.npz")
            for source in sources
        ]
        missing = [job for job in jobs if not job.part.is_file()]
        failures = sorted([*skipped, *_make_parts(missing, f"Rendering {name}", workers, timeout)])
        _write_failures(out, failures)
        done = [job for job in jobs if job.part.is_file()]
        if not done:
            reason = failures[0].reason if failures else "there are none"
            raise ValueError(f"{origin}: not one of {len(failures)} objects could be rendered: {reason}.")
        _warn(out, failures)
        _assemble(done, out, settings.layout)
        version = dataset_version([job.source for job in done], settings)
        description = write_description(out, name, settings.scale, origin, version)
        shutil.rmtree(parts)
    return RenderReport(out, description.categories, tuple(failures), len(done) - (len(jobs) - len(missing)))


def dataset_version(sources: Sequence[Source], settings: RenderSettings) -> str:
    """Hash of all that determines a data set, independent of rounding and of the order of `sources`."""
    members = sorted(f"{_key(source, settings)} {source.split}" for source in sources)
    return f"{VERSION}-{content_hash(*members)[:16]}"


def _finished(sources: Sequence[Source], out: Path, settings: RenderSettings) -> RenderReport | None:
    """The report on a data set that is already there, or None; ValueError if it is another one."""
    found = read_description(out)
    if found is None:
        return None
    failures = _read_failures(out)
    failed = {(failure.category, failure.id) for failure in failures}
    there = [source for source in sources if (source.category, source.id) not in failed]
    if found.version != dataset_version(there, settings):
        raise ValueError(
            f"{out} holds the data set {found.name!r} ({found.n_views} views), made from other meshes or with other "
            "settings. Choose another folder, or remove this one."
        )
    _warn(out, failures)
    return RenderReport(out, found.categories, failures, rendered=0)


def _warn(out: Path, failures: Sequence[Failure]) -> None:
    if failures:
        logger.warning("%d objects are left out; the reasons are in %s.", len(failures), out / FAILURES_FILE)


def content_hash(*pieces: bytes | str) -> str:
    """SHA-256 (hex) of a sequence of pieces; unlike that of their concatenation, it knows where each ends."""
    digest = hashlib.sha256()
    for piece in pieces:
        raw = piece.encode() if isinstance(piece, str) else piece
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.hexdigest()


def _key(source: Source, settings: RenderSettings) -> str:
    """Hash of all that determines an object's part."""
    return content_hash(str(VERSION), repr(settings), source.category, source.id, source.content)


def _make_parts(jobs: Sequence[_Job], title: str, workers: int | None, timeout: float) -> Iterator[Failure]:
    """Make the parts of `jobs` under a progress bar; gives those that failed."""
    outcomes = run_jobs(_make_part, jobs, workers=workers, timeout=timeout)
    for outcome in track(outcomes, title, total=len(jobs), console=Console(stderr=True), disable=not jobs):
        if outcome.error is not None:
            source = outcome.job.source
            yield Failure(source.category, source.id, source.origin, outcome.error)


def _make_part(job: _Job) -> None:
    """Make one object and write its part (runs in a worker)."""
    source, mesh = job.source, job.source.load()
    seed = content_hash(str(job.settings.seed), source.category, source.id)
    generator = torch.Generator().manual_seed(int(seed[:15], 16))
    views = object_to_views(mesh.verts, mesh.faces, mesh.face_colors, job.settings, generator)
    job.part.parent.mkdir(parents=True, exist_ok=True)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **vars(views))  # not compressed: that would take a third of the time of an object

    replace_file(job.part, write)


def _assemble(jobs: Sequence[_Job], out: Path, layout: Layout) -> None:
    """Make the files of the layout from the parts."""
    (_assemble_dpc if layout == "dpc" else _assemble_nmr)(jobs, out)


def _by_split(jobs: Sequence[_Job]) -> Iterator[tuple[str, str, list[_Job]]]:
    """Category, split and its jobs, in the order of ids."""
    for category, split in sorted({(job.source.category, job.source.split) for job in jobs}):
        members = [job for job in jobs if (job.source.category, job.source.split) == (category, split)]
        yield category, split, sorted(members, key=lambda job: job.source.id)


def _assemble_dpc(jobs: Sequence[_Job], out: Path) -> None:
    """Write the files of each object, then the lists of the splits."""
    for stale in ("renders", "gt", "splits"):  # of a run with other settings, killed in this step
        shutil.rmtree(out / stale, ignore_errors=True)
    for category, split, members in _by_split(jobs):
        for job in members:
            with np.load(job.part) as arrays:
                names = ("images", "positions", "depths", "points", "voxels")
                write_model(out, category, job.source.id, **{name: arrays[name] for name in names})
        write_split_list(out, category, split, [job.source.id for job in members])


def _assemble_nmr(jobs: Sequence[_Job], out: Path) -> None:
    """Join parts to the files of the layout, object by object."""
    for stale in (*out.glob("*_*.npz"), *out.glob("*_ids.txt")):  # of a run with other settings, killed in this step
        stale.unlink()
    for category, split, members in _by_split(jobs):
        parts = [job.part for job in members]
        write_split(
            out,
            category,
            split,
            ids=[job.source.id for job in members],
            images=_read_parts(parts, "images"),
            voxels=_read_parts(parts, "voxels"),
            points=_read_parts(parts, "points"),
            normals=_read_parts(parts, "normals"),
        )


def _read_parts(parts: Sequence[Path], array: str) -> Iterator[np.ndarray]:
    for part in parts:
        with np.load(part) as arrays:
            yield arrays[array]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder alone; the operating system releases the lock of a killed process."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_failures(out: Path, failures: Sequence[Failure]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Failure))
    writer.writerows(astuple(failure) for failure in failures)
    write_whole(out / FAILURES_FILE, text.getvalue().encode())


def _read_failures(out: Path) -> tuple[Failure, ...]:
    with (out / FAILURES_FILE).open(newline="", encoding="utf-8") as file:
        return tuple(Failure(**row) for row in csv.DictReader(file))
