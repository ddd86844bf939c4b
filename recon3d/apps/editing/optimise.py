"""The optimisation of an edit: vertices and per-face textures by Adam on renders from random views.

Knows no objective: style transfer and DeepDream give the views and the loss. Survives a kill by snapshots.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from recon3d.apps.editing.views import Views
from recon3d.files import write_whole
from recon3d.renderers.neural import render_neural

BETAS = (0.9, 0.999)  # Kato et al. 2018, section 5.2.1
# Adam's usual 1e-8 is not small beside our gradients: the style loss is relative (`StyleObjective`) and shared by half
# a million texels. In the authors' code the loss is of the order of 1e9, and eps has no effect.
EPS = 1e-16
LOGIT_SPREAD = 0.05  # standard deviation of the initial texture logits, in the authors' code; grey is 0


class Objective(Protocol):
    """What an edit minimises."""

    def views(self, batch: int, generator: torch.Generator) -> Views:
        """Draws the views of one update."""

    def terms(self, images: Tensor, mask: Tensor, verts: Tensor) -> dict[str, Tensor]:
        """Weighted terms, summed to the loss, of renders (B,3,S,S), masks (B,1,S,S) and vertices (V,3)."""


@dataclass(frozen=True)
class Schedule:
    """How long, how large, how fast. `image_size` is that of the losses; renders are made at twice that and halved."""

    steps: int
    lr_vertices: float
    lr_textures: float
    batch: int = 4
    image_size: int = 224
    texture_size: int = 4
    seed: int = 0
    snapshot_every: int = 20

    def __post_init__(self) -> None:
        least = {"steps": 1, "batch": 1, "image_size": 32, "texture_size": 2, "snapshot_every": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"--{name.replace('_', '-')} should be at least {low}, got {getattr(self, name)}.")
        for name in ("lr_vertices", "lr_textures"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"--{name.replace('_', '-')} should be 0 or positive, got {getattr(self, name)}.")


@dataclass
class EditState:
    """An edit in progress.

    Attributes:
        verts: (V, 3) in the editing frame.
        logits: (F, T, T, T, 3); the textures are their sigmoid.
        adam: of both.
        generator: of the views, on the CPU.
        history: for each update done: the loss, then its terms.
    """

    verts: Tensor
    logits: Tensor
    adam: torch.optim.Adam
    generator: torch.Generator
    history: list[dict[str, float]]

    @property
    def textures(self) -> Tensor:
        """(F, T, T, T, 3) in [0, 1]."""
        return self.logits.detach().sigmoid()


def start(verts: Tensor, n_faces: int, schedule: Schedule) -> EditState:
    """The state before the first update: the mesh itself, nearly grey.

    Args:
        verts: (V, 3) in the editing frame, on the device of the edit.
        n_faces: F.
        schedule: see `Schedule`.
    """
    generator = torch.Generator().manual_seed(schedule.seed)
    size = schedule.texture_size
    logits = LOGIT_SPREAD * torch.randn(n_faces, size, size, size, 3, generator=generator)
    moved = verts.detach().clone().requires_grad_()
    logits = logits.to(verts.device).requires_grad_()
    groups = [{"params": [moved], "lr": schedule.lr_vertices}, {"params": [logits], "lr": schedule.lr_textures}]
    return EditState(moved, logits, torch.optim.Adam(groups, betas=BETAS, eps=EPS), generator, [])


def optimise(
    state: EditState,
    faces: Tensor,
    objective: Objective,
    schedule: Schedule,
    save: Callable[[EditState], None],
    on_step: Callable[[EditState], None],
) -> None:
    """Update `state` until it has `schedule.steps` updates.

    Args:
        state: from `start` or `load_snapshot`.
        faces: (F, 3), on the device of the edit.
        objective: what to minimise.
        schedule: see `Schedule`.
        save: called with the state every `snapshot_every` updates and after the last.
        on_step: called after every update.

    Raises:
        RuntimeError: the loss or a gradient is not finite; the state is that before the update.
    """
    while len(state.history) < schedule.steps:
        views = objective.views(schedule.batch, state.generator)
        render = render_neural(
            state.verts,
            faces,
            state.logits.sigmoid(),
            views.camera.to(faces.device),
            schedule.image_size,
            lights=views.lights,
            background=views.background,
            anti_alias=2,
        )
        assert render.image is not None
        terms = objective.terms(render.image, render.mask.detach().unsqueeze(1), state.verts)
        loss = torch.stack(list(terms.values())).sum()
        state.adam.zero_grad()
        loss.backward()
        values = {"loss": loss.item()} | {name: term.item() for name, term in terms.items()}
        _check_finite(state, values)
        state.adam.step()
        state.history.append(values)
        if len(state.history) % schedule.snapshot_every == 0 or len(state.history) == schedule.steps:
            save(state)
        on_step(state)


def _check_finite(state: EditState, values: Mapping[str, float]) -> None:
    bad = [name for name, value in values.items() if not abs(value) < float("inf")]
    for name, parameter in (("vertices", state.verts), ("textures", state.logits)):
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            bad.append(f"gradient of the {name}")
    if bad:
        raise RuntimeError(
            f"Update {len(state.history) + 1}: {', '.join(bad)} not finite ({dict(values)}). Lower --lr-vertices, "
            "--lr-textures or the weights of the terms; the last snapshot is as it was before."
        )


def save_snapshot(path: Path, state: EditState, identity: Mapping[str, str]) -> None:
    """Write all that the rest of the edit depends on; the file is whole or the old one."""
    content = io.BytesIO()
    torch.save(
        {
            "identity": dict(identity),
            "verts": state.verts.detach().cpu(),
            "logits": state.logits.detach().cpu(),
            "adam": state.adam.state_dict(),
            "generator": state.generator.get_state(),
            "history": state.history,
        },
        content,
    )
    write_whole(path, content.getvalue())


def load_snapshot(path: Path, state: EditState, identity: Mapping[str, str], steps: int) -> None:
    """Put `state`, from `start`, where the snapshot is.

    Args:
        path: of the snapshot.
        state: of the same mesh and schedule; changed in place.
        identity: what the edit is made of, by name.
        steps: updates asked for.

    Raises:
        ValueError: not a snapshot, that of another edit, or one with more updates than asked for.
    """
    remedy = f"Choose another --out, or delete {path} to start over."
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        known = found["identity"]
        history = found["history"]
    except Exception as error:  # a damaged file fails anywhere in the unpickler
        raise ValueError(f"{path} is not a snapshot of an edit ({error}). {remedy}") from error
    differing = [name for name in {**known, **identity} if known.get(name) != identity.get(name)]
    if differing:
        listed = "; ".join(f"{name}: {known.get(name)} there, {identity.get(name)} now" for name in differing)
        raise ValueError(f"{path} belongs to another edit ({listed}). {remedy}")
    if len(history) > steps:
        raise ValueError(f"{path} has {len(history)} updates, and --steps asks for {steps}. {remedy}")
    with torch.no_grad():
        state.verts.copy_(found["verts"])
        state.logits.copy_(found["logits"])
    state.adam.load_state_dict(found["adam"])
    state.generator.set_state(found["generator"])
    state.history[:] = history
