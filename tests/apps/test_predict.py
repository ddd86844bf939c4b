from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from lightning import Trainer
from PIL import Image
from pytorch3d.renderer import TexturesVertex
from pytorch3d.structures import Meshes
from torch import Tensor
from torch.utils.data import DataLoader

from recon3d.apps.photo import Photo, read_photo
from recon3d.apps.predict import FailedMeshError, predict
from recon3d.cli import main
from recon3d.geometry.cameras import look_at_camera, nmr_cameras
from recon3d.geometry.templates import icosphere
from recon3d.methods.base import ReconstructionMethod
from recon3d.methods.loading import load_method
from recon3d.methods.mean_shape import MeanShape
from recon3d.methods.softras import SoftRasMesh
from recon3d.methods.template import TemplateSphere
from recon3d.structures import Camera, Reconstruction, ViewBatch

S = 32


def tiny(color: bool = True) -> SoftRasMesh:
    torch.manual_seed(0)
    return SoftRasMesh(image_size=S, width=4, hidden=16, code=16, color=color)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one training step on random images."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(2, 2, 1, S, S)
    masks[..., 8:24, 8:24] = 1.0
    batch = ViewBatch(
        images=torch.rand(2, 2, 3, S, S, generator=generator),
        masks=masks,
        sample_id=("a/0", "a/1"),
        category=("a", "a"),
        cameras=Camera.cat([nmr_cameras()[:2][None]] * 2),
    )
    method = tiny()
    trainer = Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    one_batch: Any = [batch]
    trainer.fit(method, DataLoader(one_batch, batch_size=None))
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.ckpt"
    trainer.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def spheres(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a method that reads RGB and answers with a sphere of radius 0.4."""
    return saved(TemplateSphere(radius=0.4), tmp_path_factory.mktemp("spheres") / "sphere.ckpt")


def saved(method: ReconstructionMethod, path: Path) -> Path:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(method)
    trainer.save_checkpoint(path)
    return path


def picture(path: Path, mode: str = "RGBA") -> Path:
    pixels = np.full((90, 120, 4), 255, dtype=np.uint8)
    pixels[..., :3] = np.random.default_rng(len(path.stem)).integers(0, 256, (90, 120, 3))
    pixels[..., 3] = 0
    pixels[20:70, 30:100, 3] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def read(path: Path) -> trimesh.Trimesh:
    (geometry,) = trimesh.load_scene(path, process=False).geometry.values()
    return geometry


def run(*arguments: object) -> int:
    return main(["predict", *(str(argument) for argument in arguments)])


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("kind", ["glb", "obj", "ply"])
def test_a_photo_becomes_a_mesh_and_a_preview(
    tmp_path: Path, checkpoint: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = picture(tmp_path / "photo.png"), tmp_path / "new" / "out"
    assert run(image, "--checkpoint", checkpoint, "--out", out, "--format", kind) == 0
    assert files(out) == [f"photo.{kind}", "photo.png"]

    method = load_method(checkpoint)
    photo = read_photo(image, S)
    assert photo.mask is not None
    with torch.no_grad():
        expected = method(torch.cat([photo.image, photo.mask])[None])
    verts, faces = expected.mesh.get_mesh_verts_faces(0)
    back = read(out / f"photo.{kind}")
    assert np.array_equal(back.faces, faces.numpy())
    assert np.abs(back.vertices - torch.stack([-verts[:, 2], verts[:, 1], verts[:, 0]], dim=1).numpy()).max() < 1e-6
    if kind != "glb":  # whose colours are linear: tests/apps/test_mesh_files.py
        stored = back.visual.vertex_colors[:, :3] / 255
        assert np.abs(stored - expected.vert_colors[0].numpy()).max() <= 0.51 / 255
        assert stored.std() > 0

    with Image.open(out / "photo.png") as preview:
        assert preview.format == "PNG"
        tiles = np.asarray(preview.convert("L"))[14:].reshape(160, -1, 160)
    assert tiles.shape[1] == 7  # input, its view, five sides
    assert ((tiles < 250).any(axis=(0, 2))).all()

    printed = capsys.readouterr().out
    assert f"{len(verts)}" in printed and f"{len(faces)}" in printed and "yes" in printed
    peak = re.search(r"Peak memory of the\s+process:\s+([\d,]+)\s+MiB", printed)
    assert peak is not None and int(peak[1].replace(",", "")) > 50  # torch alone takes more


def test_many_photos_with_masks_in_order(tmp_path: Path, checkpoint: Path) -> None:
    images = [picture(tmp_path / f"{name}.jpg", "RGB") for name in ("one", "three")]
    masks = []
    for index, box in enumerate([(30, 20, 100, 70), (10, 10, 30, 80)]):
        mask = Image.new("L", (120, 90))
        mask.paste(255, box)
        masks.append(tmp_path / f"mask{index}.png")
        mask.save(masks[-1])
    out = tmp_path / "out"
    assert run(*images, "--mask", *masks, "--checkpoint", checkpoint, "--out", out, "--format", "ply") == 0
    assert files(out) == ["one.ply", "one.png", "three.ply", "three.png"]
    method = load_method(checkpoint)
    for image, mask_path in zip(images, masks, strict=True):
        mesh = predict(method, read_photo(image, S, mask_path)).mesh
        assert mesh is not None
        bounds = np.abs(read(out / f"{image.stem}.ply").bounds)
        assert np.allclose(bounds.max(axis=0), mesh.verts_packed().abs().amax(dim=0)[[2, 1, 0]].numpy(), atol=1e-6)


def test_a_second_run_replaces_the_files(tmp_path: Path, spheres: Path) -> None:
    image, out = picture(tmp_path / "photo.png"), tmp_path / "out"
    out.mkdir()
    (out / "photo.glb").write_bytes(b"old")
    assert run(image, "--checkpoint", spheres, "--out", out) == 0
    assert read(out / "photo.glb").bounds == pytest.approx(np.array([[-0.4] * 3, [0.4] * 3]), abs=2e-3)


def test_a_method_of_three_channels_needs_no_mask(tmp_path: Path, spheres: Path) -> None:
    image, out = picture(tmp_path / "photo.jpg", "RGB"), tmp_path / "out"
    assert run(image, "--checkpoint", spheres, "--out", out) == 0
    with Image.open(out / "photo.png") as preview:
        assert preview.width == 6 * 160  # no mask: nothing says which view is the input's


def test_a_method_of_voxels_gives_their_surface(tmp_path: Path) -> None:
    method = MeanShape()
    box = torch.zeros(32, 32, 32, dtype=torch.bool)
    box[12:20, 8:24, 14:18] = True  # [y, x, z]: 8 high, 16 wide in x, 4 in z
    method.shapes = {"box": box}
    out = tmp_path / "out"
    status = run(picture(tmp_path / "photo.png"), "--checkpoint", saved(method, tmp_path / "m.ckpt"), "--out", out)
    assert status == 0
    back = read(out / "photo.glb")
    assert back.is_watertight and back.volume > 0
    # x becomes z in the file, z becomes -x; a cell is 1/31.
    assert back.extents == pytest.approx(np.array([4, 8, 16]) / 31, abs=1e-6)


def test_inputs_are_checked_before_anything_is_written(
    tmp_path: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, rgb = picture(tmp_path / "good.png"), picture(tmp_path / "rgb.png", "RGB")
    empty = tmp_path / "empty.png"
    Image.new("RGBA", (50, 50)).save(empty)
    text = tmp_path / "text.png"
    text.write_text("hello")
    small = tmp_path / "small.png"
    Image.new("L", (5, 5), 255).save(small)
    twin = picture(tmp_path / "other" / "GOOD.png")
    out = tmp_path / "out"
    cases: list[tuple[list[object], str]] = [
        ([good, tmp_path / "gone.png"], r"No image at .*gone\.png"),
        ([good, text], r"text\.png is not an image"),
        ([good, empty], r"empty\.png: the mask is empty"),
        ([good, rgb], r"rgb\.png has no mask, and SoftRasMesh reads one.* RGBA .*--mask"),
        ([good, rgb, "--mask", small], "2 images and 1 masks"),
        ([rgb, "--mask", small], r"small\.png is 5x5 pixels"),
        ([good, twin], r"good\.png and .*GOOD\.png would both become"),
        ([good, good], "would both become"),
        ([good, "--checkpoint", text], r"text\.png is not a checkpoint"),
        ([good, "--checkpoint", tmp_path / "gone.ckpt"], "No checkpoint at"),
        ([good, "--out", text], "is a file; --out expects a folder"),
        ([good, "--out", tmp_path], r"good\.png is an input and would be overwritten"),
    ]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    for arguments, message in cases:
        caplog.clear()
        assert run("--checkpoint", checkpoint, "--out", out, *arguments) == 1
        assert re.search(message, caplog.text), (message, caplog.text)
        assert "Traceback" not in caplog.text
        assert not out.exists()
        assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == before


class Answer(ReconstructionMethod):
    """Answers as it was told to."""

    def __init__(self, answer: Reconstruction) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, image: Tensor) -> Reconstruction:
        return self.answer


@pytest.fixture
def photo(tmp_path: Path) -> Photo:
    return read_photo(picture(tmp_path / "photo.png"), S)


def test_predict_keeps_colors_and_camera(photo: Photo) -> None:
    verts, faces = icosphere(1, 0.3)
    colors = torch.rand(verts.shape, generator=torch.Generator().manual_seed(0))
    camera = look_at_camera(azimuth=40.0)
    told = Reconstruction(mesh=Meshes(verts[None], faces[None], TexturesVertex(colors[None])), camera=camera)
    recon = predict(Answer(told), photo)
    assert recon.mesh is not None and recon.camera is camera
    assert torch.equal(recon.mesh.verts_list()[0], verts)
    assert torch.equal(recon.mesh.textures.verts_features_list()[0], colors)


def test_predict_gives_a_surface_of_points(photo: Photo) -> None:
    generator = torch.Generator().manual_seed(0)
    points = 0.4 * torch.nn.functional.normalize(torch.randn(1, 2000, 3, generator=generator), dim=2)
    recon = predict(Answer(Reconstruction(points=points)), photo)
    assert recon.mesh is not None and recon.points is None
    mesh = trimesh.Trimesh(recon.mesh.verts_list()[0].numpy(), recon.mesh.faces_list()[0].numpy(), process=False)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.4**3, rel=0.05)
    with pytest.raises(FailedMeshError, match="no surface"):
        predict(Answer(Reconstruction(points=torch.zeros(1, 100, 3))), photo)


def test_predict_says_what_it_cannot_do(photo: Photo) -> None:
    verts, faces = icosphere(1, 0.3)
    broken = Meshes(torch.full_like(verts, torch.nan)[None], faces[None])
    with pytest.raises(FailedMeshError, match="no surface"):
        predict(Answer(Reconstruction(mesh=broken)), photo)
    with pytest.raises(ValueError, match="has no mask, and SoftRasMesh reads one"):
        predict(tiny(), Photo(photo.path, photo.image, None))


def test_a_failed_mesh_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spheres: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sphere = TemplateSphere.forward

    def fails_once(self: TemplateSphere, image: Tensor) -> Reconstruction:
        recon = sphere(self, image)
        if not calls:
            recon = Reconstruction(voxels=torch.zeros(1, 8, 8, 8, dtype=torch.bool))
        calls.append(1)
        return recon

    calls: list[int] = []
    monkeypatch.setattr(TemplateSphere, "forward", fails_once)
    images = [picture(tmp_path / f"{name}.png") for name in ("first", "second")]
    assert run(*images, "--checkpoint", spheres, "--out", tmp_path / "out") == 1
    assert files(tmp_path / "out") == ["second.glb", "second.png"]
    assert "no surface" in " ".join(capsys.readouterr().out.split())


def test_what_fails_in_writing_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spheres: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("recon3d.apps.predict.write_mesh", full)
    assert run(picture(tmp_path / "photo.png"), "--checkpoint", spheres, "--out", tmp_path / "out") == 1
    assert "No space left" in caplog.text
    assert files(tmp_path / "out") == []
