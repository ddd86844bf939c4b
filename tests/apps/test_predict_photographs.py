"""`recon3d predict` with a method trained on photographs: UV map, orthographic camera, background."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from pytorch3d.renderer import TexturesAtlas, TexturesUV
from pytorch3d.structures import Meshes
from torch import Tensor

from recon3d.apps.photo import read_photo
from recon3d.apps.predict import FailedMeshError, predict
from recon3d.apps.preview import LABEL, TILE
from recon3d.cli import main
from recon3d.geometry.cameras import project
from recon3d.geometry.templates import icosphere
from recon3d.methods.base import ReconstructionMethod
from recon3d.structures import Camera, Reconstruction

S = 48
# Looks along +Z of the object frame: its x goes left.
CAMERA = Camera(torch.eye(3)[None], torch.tensor([[0.0, 0.0, 5.0]]), torch.full((1, 2), 1.7), torch.zeros(1, 2), True)


class Painted(ReconstructionMethod):
    """An egg with its input painted on along the line of sight: from there it looks like the photograph."""

    photographs: ClassVar[bool] = True

    def __init__(self, image_size: int = S) -> None:
        super().__init__()
        verts, faces = icosphere(3, 0.5)
        self.verts, self.faces = verts * torch.tensor([1.0, 0.7, 0.8]), faces
        self.camera = CAMERA
        self.seen: list[Tensor] = []

    def forward(self, image: Tensor) -> Reconstruction:
        self.seen.append(image)
        x, y = project(self.camera, self.verts[None])[0, :, :2].unbind(dim=1)
        uv = torch.stack([(1 - x) / 2, (1 + y) / 2], dim=1)  # NDC x goes left, y up
        textures = TexturesUV(image[:, :3].permute(0, 2, 3, 1), self.faces[None], uv[None], align_corners=False)
        return Reconstruction(Meshes(self.verts[None], self.faces[None], textures), camera=self.camera)


@pytest.fixture
def method(monkeypatch: pytest.MonkeyPatch) -> Painted:
    painted = Painted().eval()
    monkeypatch.setattr("recon3d.apps.predict.load_method", lambda checkpoint: painted)
    return painted


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Smooth, and like none of its turns and mirror images."""
    rows, columns = np.mgrid[:100, :140] / 140
    picture = np.stack([columns, rows, columns * rows], axis=-1) * 200 + 20
    Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "a photo.jpg", quality=95)
    return tmp_path / "a photo.jpg"


def run(photo: Path, out: Path, *arguments: object) -> int:
    return main(["predict", *map(str, (photo, "--checkpoint", "any", "--out", out, *arguments))])


def read(path: Path) -> trimesh.Trimesh:
    (geometry,) = trimesh.load_scene(path, process=False).geometry.values()
    return geometry


FILES = {
    "glb": {"a photo.glb", "a photo.png"},
    "obj": {"a photo.obj", "a_photo.mtl", "a_photo-texture.png", "a photo.png"},
    "ply": {"a photo.ply", "a photo.png"},
}


@pytest.mark.parametrize("kind", FILES)
def test_a_photograph_becomes_a_textured_mesh(
    tmp_path: Path, method: Painted, photo: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(photo, out, "--format", kind) == 0
    assert {path.name for path in out.iterdir()} == FILES[kind]
    expected = read_photo(photo, S, background=True).image
    assert torch.equal(method.seen[0][0], expected)  # whole, with its background

    back = read(out / f"a photo.{kind}")
    turned = torch.stack([-method.verts[:, 2], method.verts[:, 1], method.verts[:, 0]], dim=1)
    assert np.array_equal(back.faces, method.faces.numpy())  # nothing is split: the map has no seam
    assert np.abs(back.vertices - turned.numpy()).max() < 1e-6
    x, y = project(CAMERA, method.verts[None])[0, :, :2].unbind(dim=1)
    pixels = (expected.permute(1, 2, 0).numpy() * 255).round()
    if kind == "ply":  # the colours that the map has at the vertices
        near = pixels[((1 - y) / 2 * S).long().clamp(max=S - 1), ((1 - x) / 2 * S).long().clamp(max=S - 1)]
        assert np.abs(back.visual.vertex_colors[:, :3] - near).max() < 12
    else:
        image = back.visual.material.baseColorTexture if kind == "glb" else back.visual.material.image
        assert np.array_equal(np.asarray(image.convert("RGB")), pixels)
        assert np.abs(back.visual.uv - torch.stack([(1 - x) / 2, (1 + y) / 2], dim=1).numpy()).max() < 1e-6
    assert f"{S}x{S}" in capsys.readouterr().out


def test_the_preview_shows_the_photograph_on_the_mesh(tmp_path: Path, method: Painted, photo: Path) -> None:
    # Off the middle, as cameras of photographs are.
    method.camera = replace(CAMERA, center=torch.tensor([[0.1, -0.05]]))
    assert run(photo, tmp_path / "out") == 0
    with Image.open(tmp_path / "out" / "a photo.png") as sheet:
        tiles = np.asarray(sheet)[LABEL:].reshape(TILE, -1, TILE, 3).swapaxes(0, 1).astype(int)
    shown, front, other, clay = tiles
    x, y = np.meshgrid(1 - (2 * np.arange(TILE) + 1) / TILE, 1 - (2 * np.arange(TILE) + 1) / TILE)

    def inside(center: tuple[float, float]) -> np.ndarray:
        radius = ((x - center[0]) / (0.5 * 1.7)) ** 2 + ((y - center[1]) / (0.35 * 1.7)) ** 2
        assert 0.3 < (radius < 0.9).mean() < 0.6
        return radius < 0.9

    egg = inside((0.1, -0.05))
    assert np.abs(front - shown)[egg].mean() < 3 and np.abs(front - shown[:, ::-1])[egg].mean() > 20
    # Turned half around, the egg shows what is behind each point: mirrored about the centre, NDC 0.1, that is 8 pixels
    # left of the middle.
    mirrored = np.roll(front[:, ::-1], -16, axis=1)
    assert np.abs(other - mirrored)[egg].mean() < 3
    assert (clay[egg].max(axis=-1) == clay[egg].min(axis=-1)).all() and clay[egg].std() > 10
    assert (front.min(axis=-1) < 250)[egg].all() and (clay.min(axis=-1) < 250)[egg].all()


def test_with_a_mask_the_frame_is_the_objects(tmp_path: Path, method: Painted, photo: Path) -> None:
    mask = Image.new("L", (140, 100))
    mask.paste(255, (40, 30, 90, 60))
    mask.save(tmp_path / "mask.png")
    assert run(photo, tmp_path / "out", "--mask", tmp_path / "mask.png") == 0
    expected = read_photo(photo, S, tmp_path / "mask.png", background=True)
    assert torch.equal(method.seen[0][0], expected.image)
    with Image.open(tmp_path / "out" / "a photo.png") as sheet:
        corner = np.asarray(sheet)[LABEL + 2, 2].tolist()
    assert corner == pytest.approx((expected.image[:, 0, 0] * 255).tolist(), abs=8)  # the background, not white


def test_a_background_remover_stands_in_for_a_mask(
    tmp_path: Path, method: Painted, photo: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mask = Image.new("L", (140, 100))
    mask.paste(255, (40, 30, 90, 60))
    mask.save(tmp_path / "mask.png")
    network = tmp_path / "network.onnx"
    assert run(photo, tmp_path / "out", "--remove-background", network) == 1
    assert "No background remover at" in caplog.text and not (tmp_path / "out").exists()
    assert run(photo, tmp_path / "out", "--remove-background", network, "--mask", tmp_path / "mask.png") == 1
    assert "exclude each other" in caplog.text

    given: list[Path] = []
    monkeypatch.setattr("recon3d.apps.predict.background_remover", lambda path: given.append(path) or (lambda _: mask))
    assert run(photo, tmp_path / "out", "--remove-background", network) == 0
    assert given == [network]
    assert torch.equal(method.seen[0][0], read_photo(photo, S, tmp_path / "mask.png", background=True).image)
    monkeypatch.setattr(Painted, "in_channels", 4)
    assert run(photo, tmp_path / "out") == 1
    assert "has no mask, and Painted reads one" in caplog.text and "--remove-background MODEL.onnx" in caplog.text
    assert run(photo, tmp_path / "out", "--remove-background", network) == 0
    assert method.seen[1].shape == (1, 4, S, S) and method.seen[1][0, 3].mean() > 0.3


def test_a_texture_of_an_obj_never_replaces_an_input(
    tmp_path: Path, method: Painted, photo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = photo.rename(tmp_path / "a-texture.png")
    Image.open(other).save(tmp_path / "a.png", format="png")
    before = other.read_bytes()
    assert main(["predict", str(tmp_path / "a.png"), str(other), "--checkpoint", "any", "--out", str(tmp_path / "out"),
                 "--format", "obj"]) == 1  # fmt: skip
    assert "a.png and " in caplog.text and "would both become" in caplog.text
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert run(tmp_path / "a.jpg", tmp_path, "--format", "obj", "--mask", other) == 1
    assert "a-texture.png is an input and would be overwritten" in caplog.text
    assert other.read_bytes() == before


def test_textures_that_cannot_be_used(
    method: Painted, photo: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    picture = read_photo(photo, S, background=True)
    with pytest.raises(FailedMeshError, match="colours that are not finite"):
        predict(method, replace(picture, image=picture.image * torch.nan))
    atlas = TexturesAtlas(torch.rand(1, len(method.faces), 2, 2, 3))
    told = Reconstruction(Meshes(method.verts[None], method.faces[None], atlas))
    monkeypatch.setattr(Painted, "forward", lambda self, image: told)
    recon = predict(method, picture)
    assert recon.mesh is not None and recon.mesh.textures is None
    assert "a TexturesAtlas cannot be written" in caplog.text
