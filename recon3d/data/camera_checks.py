"""Cameras of one's own pictures on trial: by the true mesh, and by whether the masks agree with each other.

Used by `folder_checks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recon3d.data import alignment
from recon3d.data.alignment import FRAME_MISTAKES, TILE, Mistake
from recon3d.data.camera_mistakes import Undo, camera_mistakes
from recon3d.data.camera_table import CameraTable
from recon3d.data.folder_layout import FolderObject, FolderView, ImageFolder, some
from recon3d.data.folder_preparation import object_square, read_true_mesh, read_view
from recon3d.data.npz import DataFileError
from recon3d.data.picture_files import OPAQUE, cut_square, mask_box
from recon3d.data.visual_hull import VisualHull, carve, disagreeing
from recon3d.geometry.pixel_cameras import square_camera
from recon3d.geometry.sampling import sample_surface
from recon3d.structures import Camera

OBJECTS = 6  # on trial of each category and split, evenly spaced
VIEWS = 24  # of each, at most
FEW_VIEWS = 6  # fewer agree by chance, whatever their cameras
MARGIN = 1.2  # of the squares about the masks
CARVED = 64  # pixels of the masks that are carved with
# Measured on renders of procedural chairs, cars and airplanes, 6 to 24 views: right cameras 0.97 and more, wrong ones
# 0.47 to 0.89. Masks of photographs are not exact: below `GOOD` is a warning.
GOOD = 0.93
LEAST = 0.85
DECISIVE = 0.03  # gain of overlap by which another convention is the right one
MIN_FIT = 0.9  # of the masks that the true mesh covers
BEYOND = 0.75  # a hull that reaches further than this from the origin is not of an object inside [-0.5, 0.5]^3
SMALL = 0.5  # longest side of a hull that is too small for an object whose longest side is 1
TESTED = 2  # objects whose views are tried one by one


@dataclass
class CameraFindings:
    """What the cameras of a folder see; by category and split, means over the objects on trial."""

    overlap: dict[tuple[str, str], float] = field(default_factory=dict)
    covered: dict[tuple[str, str], float] = field(default_factory=dict)
    rows: dict[str, list[Image.Image]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Trial:
    """An object on trial: squares about its masks, wherever they lie in the pictures, and their cameras."""

    item: FolderObject
    views: tuple[FolderView, ...]
    rgba: np.ndarray  # (V, 4, TILE, TILE) uint8
    cameras: Camera
    hull: VisualHull
    points: Tensor | None  # of the true mesh

    @property
    def masks(self) -> np.ndarray:
        return _carving_masks(self.rgba)


def check_cameras(folder: ImageFolder, sound: set[str]) -> CameraFindings:
    """Try the cameras of a folder.

    Args:
        folder: with cameras.
        sound: names of the images that can be read.
    """
    assert folder.cameras is not None
    found = CameraFindings()
    views = [view for item in folder.objects for view in item.views if view.name in sound]
    placed = _check_places(folder.cameras, views, found)
    trials: dict[tuple[str, str], list[_Trial]] = {}
    for key, objects in sorted(folder.splits.items()):
        chosen = [item for item in objects if sum(view.name in placed for view in item.views) >= 2]
        picked = (
            [chosen[i] for i in sorted({index * len(chosen) // OBJECTS for index in range(OBJECTS)})] if chosen else []
        )
        trials[key] = [_trial(folder.cameras, item, placed) for item in picked]
    everything = [trial for some_trials in trials.values() for trial in some_trials]
    if everything:
        _check_agreement(folder.cameras, everything, found)
        _check_truth(everything, found)
    for key, of_split in trials.items():
        if of_split:
            found.overlap[key] = float(np.mean([trial.hull.overlap.mean() for trial in of_split]))
            fits = [_fit(trial, Mistake()).covered for trial in of_split if trial.points is not None]
            if fits:
                found.covered[key] = float(np.mean(fits))
            row = found.rows.setdefault(key[0], [])
            row += [picture for trial in of_split[:2] for picture in _pictures(trial)]
    return found


def _check_places(table: CameraTable, views: Sequence[FolderView], found: CameraFindings) -> set[str]:
    """Names of the views with numbers that are a camera."""
    placed, wrong, away = set(), [], []
    for view in views:
        with Image.open(view.image) as image:
            size = image.size  # of the camera's sanity, the orientation does not matter
        try:
            camera = table.cameras([view.name], [size])
            placed.add(view.name)
        except DataFileError as error:
            wrong.append(str(error))
            continue
        try:
            object_square(camera, size, view.name)
        except DataFileError as error:
            away.append(str(error))
    for messages in (wrong, away):
        if messages:
            more = f" ({len(messages) - 1} more of {len(views)} views like this.)" if len(messages) > 1 else ""
            found.problems.append(messages[0] + more)
    return placed


def _trial(table: CameraTable, item: FolderObject, placed: set[str]) -> _Trial:
    usable = [view for view in item.views if view.name in placed]
    views = [usable[index * len(usable) // VIEWS] for index in range(VIEWS)] if len(usable) > VIEWS else usable
    tiles, sizes, squares = [], [], []
    for view in views:
        rgba, mask = read_view(view)
        rgba.putalpha(mask)
        left, top, right, bottom = mask_box(np.asarray(mask) >= OPAQUE)
        side = MARGIN * (max(right - left, bottom - top) + 1)
        square = ((left + right + 1 - side) / 2, (top + bottom + 1 - side) / 2, side)
        tiles.append(np.array(cut_square(rgba, *square, TILE)).transpose(2, 0, 1))
        sizes.append(rgba.size)
        squares.append(square)
    cameras = square_camera(table.cameras([view.name for view in views], sizes), torch.tensor(squares))
    rgba_all = np.stack(tiles)
    points = None
    if item.mesh is not None:
        try:
            mesh = read_true_mesh(item.mesh)
            points = sample_surface(mesh.verts, mesh.faces, 10_000, torch.Generator().manual_seed(0))[0]
        except DataFileError:  # `folder_checks` has named it
            points = None
    return _Trial(item, tuple(views), rgba_all, cameras, carve(_carving_masks(rgba_all), cameras), points)


def _carving_masks(rgba: np.ndarray) -> np.ndarray:
    """(V, CARVED, CARVED) bool of tiles; a mask that is lost at this size keeps its brightest pixel."""
    factor = TILE // CARVED
    alpha = rgba[:, 3].reshape(len(rgba), CARVED, factor, CARVED, factor).mean(axis=(2, 4))
    return alpha >= np.minimum(OPAQUE, alpha.max(axis=(1, 2), keepdims=True))


def _check_agreement(table: CameraTable, trials: Sequence[_Trial], found: CameraFindings) -> None:
    """Masks against each other; a wrong convention, or wrong views, become problems."""
    few = [trial.item.name for trial in trials if len(trial.views) < FEW_VIEWS]
    if few:
        found.warnings.append(
            f"{len(few)} objects have fewer than {FEW_VIEWS} views, which agree with each other whatever their cameras "
            f"are; look at the contact sheet: {some(few)}."
        )
    stated = [float(trial.hull.overlap.mean()) for trial in trials]
    mean, cause = float(np.mean(stated)), None
    weakest = sorted(trials, key=lambda trial: float(trial.hull.overlap.mean()))[:OBJECTS]
    gains = {name: [_gain(trial, undo) for trial in weakest] for name, undo in camera_mistakes(table.convention)}
    better = {
        name: float(np.mean(values))
        for name, values in gains.items()
        if 2 * sum(value > DECISIVE for value in values) > len(values)
    }
    if better:
        cause = max(better, key=better.__getitem__)
    if cause is not None:
        found.problems.append(
            f"Cameras and masks disagree: what all masks leave of an object covers {mean:.0%} of them, and "
            f"{mean + better[cause]:.0%} if {cause}. Correct {table.path.name}."
        )
        return
    weak = [trial for trial, value in zip(trials, stated, strict=True) if value < GOOD]
    if weak:
        _name_views(weak, table, found)
    _check_frame([trial for trial, value in zip(trials, stated, strict=True) if value >= GOOD], found)


def _name_views(weak: Sequence[_Trial], table: CameraTable, found: CameraFindings) -> None:
    worst = sorted(weak, key=lambda trial: float(trial.hull.overlap.mean()))
    for trial in worst[:TESTED]:
        overlap = float(trial.hull.overlap.mean())
        views = disagreeing(trial.masks, trial.cameras, GOOD)
        names, gain = None, 0.0
        if views:
            names = some([trial.views[view].name for view in views])
            rest = [view for view in range(len(trial.views)) if view not in views]
            gain = float(carve(trial.masks[rest], trial.cameras[torch.tensor(rest)]).overlap.mean()) - overlap
        which = (
            f"Without {names} the others agree: their masks or cameras are wrong."
            if names
            else "No few views explain it: are the rows those of these images, and the focal lengths in pixels of them?"
        )
        line = (
            f"{trial.item.name}: cameras and masks disagree: what all masks leave of the object covers {overlap:.0%} "
            f"of them, expected {GOOD:.0%} or more. {which} See the contact sheet."
        )
        (found.problems if overlap < LEAST or gain > DECISIVE else found.warnings).append(line)
    if len(worst) > TESTED:
        names = some([trial.item.name for trial in worst[TESTED:]])
        found.warnings.append(f"Masks and cameras of {len(worst) - TESTED} more objects disagree: {names}.")


def _check_frame(trials: Sequence[_Trial], found: CameraFindings) -> None:
    """Whether the objects lie in the cube of the object frame, in the cameras' world."""
    if not trials:
        return
    low = torch.stack([trial.hull.points.amin(dim=0) for trial in trials])
    high = torch.stack([trial.hull.points.amax(dim=0) for trial in trials])
    middle, side = ((low + high) / 2).median(dim=0).values, float((high - low).amax(dim=1).median())
    reach = float(torch.maximum(low.abs(), high.abs()).amax(dim=1).median())
    if reach <= BEYOND and side >= SMALL:
        return
    line = (
        f"In the cameras' world the objects lie about ({', '.join(f'{value:.3g}' for value in middle.tolist())}), with "
        f"a longest side of about {side:.3g}; expected the origin and 1. Move the world there and divide it by that: "
        "for matrices, t becomes (R c + t) / s with the centre c and the side s. A wrong fov or distance looks alike."
    )
    (found.problems if reach > BEYOND else found.warnings).append(line)


def _check_truth(trials: Sequence[_Trial], found: CameraFindings) -> None:
    """True meshes against the masks."""
    with_truth = [trial for trial in trials if trial.points is not None]
    if not with_truth:
        return
    stated = [_fit(trial, Mistake()) for trial in with_truth]
    gains = {
        name: [_fit(trial, mistake).score - fit.score for trial, fit in zip(with_truth, stated, strict=True)]
        for name, mistake in FRAME_MISTAKES.items()
    }
    cause, covered = alignment.diagnose(gains), float(np.mean([fit.covered for fit in stated]))
    if cause is None and covered >= MIN_FIT:
        return
    guess = f"It fits better if {cause}." if cause else "Are meshes and cameras in one frame and scale?"
    found.problems.append(
        f"The projected true meshes cover {covered:.0%} of the masks, expected {MIN_FIT:.0%} or more, and no other "
        f"frame to fit better. {guess} See the contact sheet."
    )


def _fit(trial: _Trial, mistake: Mistake) -> alignment.Fit:
    assert trial.points is not None
    return alignment.fit(trial.rgba[:, 3], trial.points, trial.cameras, TILE // 64, mistake)


def _gain(trial: _Trial, undo: Undo) -> float:
    stated = float(trial.hull.overlap.mean())
    if stated >= 1 - DECISIVE:  # nothing could gain so much
        return 0.0
    masks, cameras = undo(trial.masks, trial.cameras)
    return float(carve(masks, cameras).overlap.mean()) - stated


def _pictures(trial: _Trial) -> list[Image.Image]:
    """Some views with the outline of the true mesh, or of the visual hull, and the overlap."""
    points = trial.hull.points if trial.points is None else trial.points
    chosen = sorted({index * len(trial.views) // 4 for index in range(4)})
    return [
        alignment.tile(
            trial.rgba[view],
            points,
            trial.cameras[view : view + 1],
            f"{trial.hull.overlap[view]:4.0%} {trial.views[view].name}"[:24],
        )
        for view in chosen
    ]
