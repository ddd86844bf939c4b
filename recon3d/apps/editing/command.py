"""`recon3d edit style|dream`: checks, networks, progress, and the files of a result."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor
from torchvision.models import GoogLeNet_Weights, VGG16_Weights

from recon3d.apps.editing import dream as dreaming
from recon3d.apps.editing import style as styling
from recon3d.apps.editing.baking import bake
from recon3d.apps.editing.optimise import (
    EditState,
    Objective,
    Schedule,
    load_snapshot,
    optimise,
    save_snapshot,
    start,
)
from recon3d.apps.editing.source import SourceMesh, read_source
from recon3d.apps.editing.turntable import comparison, to_picture, turntable_gif
from recon3d.apps.mesh_files import TEXTURED_FORMATS, textured_mesh_files, write_textured_mesh
from recon3d.files import write_whole
from recon3d.networks.imagenet import googlenet_features, vgg16_features

logger = logging.getLogger(__name__)

INTERRUPTED = 130  # exit status of a command that Ctrl-C ended


@dataclass(frozen=True)
class Request:
    """What both edits are asked for.

    Attributes:
        mesh: file that is edited.
        out: folder, made if it is not there.
        schedule: of the optimisation.
        weights: torchvision state dict of the feature network, or None.
        random_features: take random weights where there are none.
        device: such as "cpu" or "cuda"; None is a GPU if there is one.
        format: of the result, "glb" or "obj".
    """

    mesh: Path
    out: Path
    schedule: Schedule
    weights: Path | None = None
    random_features: bool = False
    device: str | None = None
    format: str = "glb"


class _Targets(NamedTuple):
    mesh: Path
    views: Path
    turntable: Path
    history: Path
    snapshot: Path


def edit_style(request: Request, image: Path, content_weight: float, style_weight: float, tv_weight: float) -> int:
    """Transfer the style of an image to a mesh; see `recon3d.apps.editing.style`.

    Writes into the folder ``<stem>-style`` with the endings .glb (or .obj, .mtl, -texture.png), .gif (turntable), .csv
    (loss of every update), .ckpt (snapshot) and -views.png. The mesh lies where the input lay. The same command goes on
    from the snapshot.

    Returns:
        Exit status.

    Raises:
        FileNotFoundError: an input is not there.
        ValueError: an input that cannot be used; the message names it and says what to do.
        RuntimeError: the optimisation came to values that are not finite.
    """
    weights = {"content_weight": content_weight, "style_weight": style_weight, "tv_weight": tv_weight}
    _check_weights(weights)
    targets, source, device = _prepare(request, "style", VGG16_Weights.IMAGENET1K_V1, "VGG-16", (image,))
    style = styling.read_style_image(image, request.schedule.image_size)
    network = vgg16_features(styling.LAYERS, request.weights, request.schedule.seed).to(device)
    objective = styling.StyleObjective(network, style.to(device), source.edit_verts().to(device), **weights)
    identity = {**weights, "image": _digest(style)}
    return _run(request, targets, source, objective, device, identity, to_picture(style))


def edit_dream(request: Request, edge_weight: float) -> int:
    """Let a mesh become what a network sees in it; see `recon3d.apps.editing.dream`.

    Writes ``<stem>-dream.*`` as `edit_style` writes ``<stem>-style.*``; returns and raises as it does.
    """
    _check_weights({"edge_weight": edge_weight})
    targets, source, device = _prepare(request, "dream", GoogLeNet_Weights.IMAGENET1K_V1, "GoogLeNet", ())
    network = googlenet_features(dreaming.LAYERS, request.weights, request.schedule.seed).to(device)
    objective = dreaming.DreamObjective(network, source.faces.to(device), edge_weight)
    return _run(request, targets, source, objective, device, {"edge_weight": edge_weight}, None)


def _check_weights(weights: Mapping[str, float]) -> None:
    for name, value in weights.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"--{name.replace('_', '-')} should be 0 or positive, got {value}.")


def _prepare(
    request: Request, kind: str, pretrained: VGG16_Weights | GoogLeNet_Weights, network: str, images: tuple[Path, ...]
) -> tuple[_Targets, SourceMesh, torch.device]:
    """Check all that can be checked before the first computation."""
    if request.format not in TEXTURED_FORMATS:
        raise ValueError(f"edit: expected one of the formats {', '.join(TEXTURED_FORMATS)}, got {request.format!r}.")
    if request.weights is None and not request.random_features:
        raise ValueError(
            f"edit {kind} looks through the features of {network}, and nothing is downloaded at run time. Download "
            f"{pretrained.url} (torchvision's {type(pretrained).__name__}.{pretrained.name}, "
            f"{pretrained.meta['_file_size']:.0f} MB) and give it with --weights PATH. To try the command without it, "
            "add --random-features: an untrained network sees colours and patterns, no objects."
        )
    if request.weights is not None and request.random_features:
        raise ValueError("--weights and --random-features exclude each other.")
    if request.out.exists() and not request.out.is_dir():
        raise NotADirectoryError(f"{request.out} is a file; --out expects a folder.")
    stem = f"{request.mesh.stem}-{kind}"
    places = {suffix: request.out / f"{stem}{suffix}" for suffix in ("-views.png", ".gif", ".csv", ".ckpt")}
    targets = _Targets(request.out / f"{stem}.{request.format}", *places.values())
    written = {target.resolve() for target in (*targets, *textured_mesh_files(targets.mesh))}
    for path in (request.mesh, *images):
        if path.resolve() in written:
            raise ValueError(f"{path} is an input and would be overwritten; choose another --out.")
    name = request.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("--device cuda: there is no GPU that PyTorch can use; leave --device out for the CPU.")
    return targets, read_source(request.mesh), torch.device(name)


def _run(
    request: Request,
    targets: _Targets,
    source: SourceMesh,
    objective: Objective,
    device: torch.device,
    identity: Mapping[str, object],
    style: Image.Image | None,
) -> int:
    faces = source.faces.to(device)
    state = start(source.edit_verts().to(device), len(faces), request.schedule)
    same = {key: value for key, value in asdict(request.schedule).items() if key not in ("steps", "snapshot_every")}
    features = "random" if request.weights is None else f"weights {_file_digest(request.weights)}"
    known = {
        name: str(value)
        for name, value in {
            **identity,
            **same,
            "features": features,
            "mesh": _digest(source.verts, source.faces),
        }.items()
    }
    request.out.mkdir(parents=True, exist_ok=True)
    if targets.snapshot.exists():
        load_snapshot(targets.snapshot, state, known, request.schedule.steps)
        logger.info("Going on from update %d of %s.", len(state.history), targets.snapshot)

    def save(state: EditState) -> None:
        save_snapshot(targets.snapshot, state, known)
        write_whole(targets.history, _table(state.history))

    console = Console(stderr=True)
    try:
        with _progress(console, state, request.schedule.steps) as on_step:
            optimise(state, faces, objective, request.schedule, save, on_step)
        _write(request, targets, source, state, faces, style)
    except KeyboardInterrupt:
        logger.error(
            "Stopped after update %d; the same command goes on from the last snapshot, which is made every %d.",
            len(state.history),
            request.schedule.snapshot_every,
        )
        return INTERRUPTED
    return 0


def _write(
    request: Request,
    targets: _Targets,
    source: SourceMesh,
    state: EditState,
    faces: Tensor,
    style: Image.Image | None,
) -> None:
    verts, textures = state.verts.detach(), state.textures
    baked = bake(textures.cpu())
    pictures = comparison(source.edit_verts().to(verts), verts, faces, textures, style)
    encoded = io.BytesIO()
    pictures.save(encoded, format="png")
    write_whole(targets.views, encoded.getvalue())
    write_whole(targets.turntable, turntable_gif(verts, faces, textures))
    # Again: a kill between a snapshot and its table leaves an older table, and a finished edit has no update to come.
    write_whole(targets.history, _table(state.history))
    written = write_textured_mesh(
        targets.mesh, source.file_verts(verts), source.faces, baked.uv, baked.face_uv, baked.image
    )
    for path in (*written, targets.views, targets.turntable, targets.history):
        logger.info("%s", path)


@contextmanager
def _progress(console: Console, state: EditState, steps: int) -> Iterator[Callable[[EditState], None]]:
    """A bar with the loss, seconds per update and the time left; yields what is to be called after each update."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=steps, completed=len(state.history))
        begin, done_before = time.perf_counter(), len(state.history)

        def show(state: EditState) -> None:
            done = len(state.history)
            seconds = (time.perf_counter() - begin) / (done - done_before)
            left = timedelta(seconds=round(seconds * (steps - done)))
            text = f"loss {state.history[-1]['loss']:.4g}, {seconds:.2f} s an update, {left} left, elapsed"
            progress.update(task, completed=done, description=text)

        yield show


def _table(history: Sequence[Mapping[str, float]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["update", *history[0]])
    writer.writerows([number, *values.values()] for number, values in enumerate(history, 1))
    return text.getvalue().encode()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _digest(*values: Tensor) -> str:
    return hashlib.sha256(b"".join(value.contiguous().numpy().tobytes() for value in values)).hexdigest()[:16]
