from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recon3d.apps.editing.optimise import (
    EditState,
    Schedule,
    load_snapshot,
    optimise,
    save_snapshot,
    start,
)
from recon3d.apps.editing.views import Views, random_cameras
from recon3d.geometry.templates import icosphere
from recon3d.renderers.neural import Lights

VERTS, FACES = icosphere(1)
SCHEDULE = Schedule(
    steps=6, lr_vertices=1e-2, lr_textures=0.1, batch=2, image_size=32, texture_size=2, seed=5, snapshot_every=2
)


class Painting:
    """Asks for red, and for vertices at a given distance from the origin."""

    def __init__(self, radius: float | None = None, fail_at: int | None = None) -> None:
        self.radius, self.fail_at, self.calls = radius, fail_at, 0

    def views(self, batch: int, generator: torch.Generator) -> Views:
        lights = Lights(ambient=1.0, directional=0.0)
        return Views(random_cameras(batch, 2.732, (-30.0, 30.0), generator), lights, torch.zeros(3))

    def terms(self, images: Tensor, mask: Tensor, verts: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        target = torch.tensor([1.0, 0.0, 0.0])[:, None, None] * mask
        terms = {"red": (images - target).square().mean()}
        if self.radius is not None:
            terms["radius"] = (verts.norm(dim=1) - self.radius).square().mean()
        if self.calls == self.fail_at:
            terms["red"] = terms["red"] * torch.nan
        return terms


def ignore(state: EditState) -> None:
    pass


def run(schedule: Schedule = SCHEDULE, objective: Painting | None = None, save=ignore) -> EditState:
    state = start(VERTS, len(FACES), schedule)
    optimise(state, FACES, objective or Painting(0.5), schedule, save, ignore)
    return state


def test_it_starts_as_the_mesh_in_grey() -> None:
    state = start(VERTS, len(FACES), SCHEDULE)
    assert torch.equal(state.verts, VERTS) and state.logits.shape == (len(FACES), 2, 2, 2, 3)
    assert state.logits.mean().abs() < 0.01 and state.logits.std().item() == pytest.approx(0.05, rel=0.1)
    assert (state.textures - 0.5).abs().max() < 0.1


def test_textures_and_vertices_come_to_what_is_asked_for() -> None:
    schedule = replace(SCHEDULE, steps=40, lr_vertices=2e-2, lr_textures=0.3)
    state = run(schedule)
    losses = [values["loss"] for values in state.history]
    assert losses[-1] < 0.05 * losses[0]
    assert state.verts.norm(dim=1).mean().item() == pytest.approx(0.5, abs=0.05)
    colors = state.textures.mean(dim=(0, 1, 2, 3))
    assert colors[0] > 0.9 and colors[1:].max() < 0.1


def test_each_rate_moves_its_own() -> None:
    still = run(replace(SCHEDULE, lr_vertices=0.0))
    assert torch.equal(still.verts, VERTS) and not torch.equal(still.logits, start(VERTS, len(FACES), SCHEDULE).logits)
    unpainted = run(replace(SCHEDULE, lr_textures=0.0))
    assert torch.equal(unpainted.logits, start(VERTS, len(FACES), SCHEDULE).logits)
    assert not torch.equal(unpainted.verts, VERTS)


def test_the_first_update_has_the_size_of_the_rate_however_small_the_loss() -> None:
    class Faint(Painting):
        def terms(self, images: Tensor, mask: Tensor, verts: Tensor) -> dict[str, Tensor]:
            return {name: 1e-6 * term for name, term in super().terms(images, mask, verts).items()}

    schedule = replace(SCHEDULE, steps=1)
    state = run(schedule, Faint(0.5))
    moved = (state.verts.detach() - VERTS).abs()
    assert moved.max().item() == pytest.approx(schedule.lr_vertices, rel=1e-3)
    painted = (state.logits.detach() - start(VERTS, len(FACES), schedule).logits).abs()
    assert painted[painted > 0].median().item() == pytest.approx(schedule.lr_textures, rel=1e-3)


def test_the_seed_decides() -> None:
    first, again, other = run(), run(), run(replace(SCHEDULE, seed=6))
    assert torch.equal(first.verts, again.verts) and torch.equal(first.logits, again.logits)
    assert first.history == again.history != other.history


def test_a_resumed_edit_is_the_same_to_the_bit(tmp_path: Path) -> None:
    whole = run()
    half = run(replace(SCHEDULE, steps=3))
    save_snapshot(tmp_path / "s.ckpt", half, {"mesh": "x"})
    assert [path.name for path in tmp_path.iterdir()] == ["s.ckpt"]
    state = start(VERTS, len(FACES), SCHEDULE)
    load_snapshot(tmp_path / "s.ckpt", state, {"mesh": "x"}, SCHEDULE.steps)
    assert len(state.history) == 3
    optimise(state, FACES, Painting(0.5), SCHEDULE, ignore, ignore)
    assert torch.equal(state.verts, whole.verts) and torch.equal(state.logits, whole.logits)
    assert state.history == whole.history


def test_renders_are_made_at_twice_the_size_and_halved() -> None:
    class Masks(Painting):
        def terms(self, images: Tensor, mask: Tensor, verts: Tensor) -> dict[str, Tensor]:
            assert images.shape == (2, 3, 32, 32) and mask.shape == (2, 1, 32, 32) and not mask.requires_grad
            assert set((4 * mask).unique().tolist()) == {0, 1, 2, 3, 4}
            return super().terms(images, mask, verts)

    run(replace(SCHEDULE, steps=1), Masks())


def test_snapshots_come_every_so_often_and_at_the_end() -> None:
    seen: list[int] = []
    run(replace(SCHEDULE, steps=5), save=lambda state: seen.append(len(state.history)))
    assert seen == [2, 4, 5]


def test_snapshots_that_do_not_fit(tmp_path: Path) -> None:
    path, state = tmp_path / "s.ckpt", start(VERTS, len(FACES), SCHEDULE)
    save_snapshot(path, run(replace(SCHEDULE, steps=3)), {"mesh": "x", "seed": "5"})
    with pytest.raises(ValueError, match=r"another edit \(seed: 5 there, 6 now\).*delete"):
        load_snapshot(path, state, {"mesh": "x", "seed": "6"}, 6)
    with pytest.raises(ValueError, match="3 updates, and --steps asks for 2"):
        load_snapshot(path, state, {"mesh": "x", "seed": "5"}, 2)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"not a snapshot of an edit.*delete"):
        load_snapshot(path, state, {"mesh": "x", "seed": "5"}, 6)
    assert state.history == [] and torch.equal(state.verts, VERTS)


def test_a_loss_that_is_not_finite_stops_the_edit_before_it_spoils_anything() -> None:
    state, saved = start(VERTS, len(FACES), SCHEDULE), []
    with pytest.raises(RuntimeError, match=r"Update 4: loss, red, .* not finite.*Lower --lr"):
        optimise(state, FACES, Painting(fail_at=4), SCHEDULE, lambda state: saved.append(len(state.history)), ignore)
    assert saved == [2] and len(state.history) == 3
    assert state.verts.isfinite().all() and state.logits.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "--steps should be at least 1, got 0"),
        ({"image_size": 16}, "--image-size should be at least 32"),
        ({"texture_size": 1}, "--texture-size should be at least 2"),
        ({"batch": 0}, "--batch"),
        ({"snapshot_every": 0}, "--snapshot-every"),
        ({"lr_vertices": -1e-3}, "--lr-vertices"),
        ({"lr_textures": float("nan")}, "--lr-textures"),
    ],
)
def test_schedules_that_make_no_sense(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SCHEDULE, **change)
