from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import LightningModule
from PIL import ImageDraw
from pytorch3d.renderer import TexturesVertex
from pytorch3d.structures import Meshes

from recon3d.evaluation.convert import Conversion
from recon3d.evaluation.picture import CLOUD_COLUMNS, COLUMNS, LABEL, RANKS, TILE, TURNED_COLUMNS, comparison_picture
from recon3d.geometry.cameras import project
from recon3d.renderers.hard import render_hard
from recon3d.structures import Camera, Reconstruction, ViewBatch


class Oracle(LightningModule):
    """Answers with the true voxels, and notes whom it was asked about."""

    def __init__(self, cloud: torch.Tensor | None = None) -> None:
        super().__init__()
        self.cloud, self.asked = cloud, []

    def reconstruct(self, batch: ViewBatch) -> Reconstruction:
        self.asked += batch.sample_id
        known = [TRUTH[name] for name in batch.sample_id]
        if self.cloud is not None:
            return Reconstruction(points=self.cloud.expand(len(batch), -1, -1))
        return Reconstruction(voxels=torch.stack(known))


TRUTH: dict[str, torch.Tensor] = {}


@pytest.fixture
def loader(full_batch) -> list[ViewBatch]:
    """Two batches of 3 ellipsoids, of two categories."""
    batches = []
    for number in range(2):
        batch = full_batch(objects=3, views=2, size=48)
        names = tuple(f"{'car' if number == 0 else 'lamp'}/{index}/v00" for index in range(3))
        batches.append(replace(batch, sample_id=names, category=tuple(name.split("/")[0] for name in names)))
        TRUTH.update(zip(names, batch.voxels, strict=True))
    return batches


def table(scores: dict[str, float]) -> pd.DataFrame:
    return pd.DataFrame(
        {"sample_id": list(scores), "category": [name.split("/")[0] for name in scores], "voxel_iou": scores.values()}
    )


def tile(sheet: np.ndarray, row: int, rank: str, column: int, columns: tuple[str, ...] = COLUMNS) -> np.ndarray:
    top, left = LABEL + row * (TILE + LABEL), (RANKS.index(rank) * len(columns) + column) * TILE
    return sheet[top : top + TILE, left + 1 : left + TILE]  # without the line between the ranks


def test_each_category_shows_its_worst_median_and_best(loader):
    cars = {"car/0/v00": 0.9, "car/1/v00": 0.1, "car/2/v00": 0.5, "car/x/v00": 0.2, "car/y/v00": 0.2}
    others = replace(loader[0], sample_id=("car/x/v00", "car/y/v00", "car/z/v00"))
    TRUTH.update(zip(others.sample_id, others.voxels, strict=True))
    method, batches = Oracle(), [*loader, others]
    sheet = np.asarray(comparison_picture(method, batches, table(cars | {"lamp/2/v00": 0.3})))
    # Of the five in order of score and name the third is y; the lamp is alone.
    expected = {(0, "worst"): "car/1/v00", (0, "median"): "car/y/v00", (0, "best"): "car/0/v00"}
    expected |= {(1, rank): "lamp/2/v00" for rank in RANKS}
    assert sorted(method.asked) == sorted(set(expected.values()))
    assert sheet.shape[:2] == (LABEL + 2 * (TILE + LABEL), len(RANKS) * len(COLUMNS) * TILE)
    inputs = {name: index for index, name in enumerate(name for batch in batches for name in batch.sample_id)}
    images = torch.cat([batch.images[:, 0] * batch.masks[:, 0] + 1 - batch.masks[:, 0] for batch in batches])
    images = torch.nn.functional.interpolate(images, TILE, mode="bilinear").permute(0, 2, 3, 1).numpy()
    for (row, rank), name in expected.items():
        shown = tile(sheet, row, rank, 0) / 255
        assert np.abs(shown - images[inputs[name], :, 1:]).mean() < 0.02


def test_where_there_are_no_voxels_another_score_ranks(loader, monkeypatch):
    texts = []
    draw = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda self, xy, text, **kwargs: (texts.append(text), draw(self, xy, text, **kwargs)),
    )
    samples = table({"car/0/v00": np.nan, "car/1/v00": np.nan, "car/2/v00": np.nan, "lamp/0/v00": np.nan})
    samples["chamfer"] = [5.0, np.nan, 2.0, np.nan]  # smaller is better
    samples["mask_iou"] = [0.2, 0.3, 0.4, 0.5]
    sheet = np.asarray(comparison_picture(Oracle(), loader, samples))
    assert [text for text in texts if ":" in text] == [
        "worst: car/0/v00   chamfer 5.000",
        "median: car/2/v00   chamfer 2.000",
        "best: car/2/v00   chamfer 2.000",
    ]
    assert sheet.shape[0] == LABEL + TILE + LABEL  # no lamp has a score
    texts.clear()
    comparison_picture(Oracle(), loader, samples.drop(columns="chamfer"))
    assert "worst: car/0/v00   mask_iou 0.200" in texts and "best: car/2/v00   mask_iou 0.400" in texts
    with pytest.raises(ValueError, match="Expected values of voxel_iou, chamfer, mask_iou"):
        comparison_picture(Oracle(), loader, samples[["sample_id", "category", "voxel_iou"]])


def test_tiles_show_input_prediction_and_truth(loader):
    sheet = np.asarray(comparison_picture(Oracle(), loader, table({"lamp/1/v00": 0.5})))
    batch = loader[1]
    with_white = batch.images * batch.masks + 1 - batch.masks
    for column, view in ((0, 0), (3, 1)):
        ours = tile(sheet, 0, "best", column).astype(float) / 255
        true = torch.nn.functional.interpolate(with_white[1, view][None], TILE, mode="bilinear")[0].permute(1, 2, 0)
        assert np.abs(ours - true.numpy()[:, 1:]).mean() < 0.02
    mesh = Conversion(Reconstruction(voxels=batch.voxels), batch).mesh
    for column, view in ((1, 0), (2, 1)):
        shown = (tile(sheet, 0, "best", column) < 250).any(axis=2)
        camera: Camera = batch.cameras[1, view : view + 1]
        mask = (
            render_hard(mesh.verts_list()[1][None], mesh.faces_list()[1], camera, TILE).mask[0, 0, :, 1:].numpy() > 0.5
        )
        assert (shown & mask).sum() / (shown | mask).sum() > 0.95


def test_a_cloud_is_shown_beside_its_surface(loader):
    generator = torch.Generator().manual_seed(0)
    ball = 0.3 * torch.nn.functional.normalize(torch.randn(1, 1500, 3, generator=generator), dim=2)
    sheet = np.asarray(comparison_picture(Oracle(ball), loader, table({"lamp/1/v00": 0.5})))
    assert sheet.shape[1] == len(RANKS) * len(CLOUD_COLUMNS) * TILE
    camera: Camera = loader[1].cameras[1, 0]
    seen = project(camera, ball[0])
    cloud = tile(sheet, 0, "best", 1, CLOUD_COLUMNS)[:, :, 0]
    # Every point has left a dot at its pixel, and there is none elsewhere.
    column = ((1 - seen[:, 0]) / 2 * TILE).long() - 1  # the tile is cut by one pixel on the left
    row = ((1 - seen[:, 1]) / 2 * TILE).long()
    assert (cloud[row, column] < 250).mean() > 0.99
    distance = torch.cdist(torch.tensor(np.argwhere(cloud < 250)).float(), torch.stack([row, column], dim=1).float())
    assert float(distance.min(dim=1).values.max()) <= 2.5
    # Near ones are dark: the nearest point has not been painted over.
    nearest = seen[:, 2].argmin()
    assert cloud[row[nearest], column[nearest]] < 100
    surface, dots = (tile(sheet, 0, "best", 2, CLOUD_COLUMNS) < 250).any(axis=2), cloud < 250
    assert (surface & dots).sum() / dots.sum() > 0.9


@pytest.mark.parametrize("bad", [torch.zeros(1, 100, 3), torch.full((1, 100, 3), torch.nan)])
def test_a_cloud_without_a_surface_leaves_blank_tiles(loader, bad):
    sheet = np.asarray(comparison_picture(Oracle(bad), loader, table({"car/0/v00": 0.5})))
    for column in (2, 3):
        assert (tile(sheet, 0, "best", column, CLOUD_COLUMNS) == 255).all()
    assert (tile(sheet, 0, "best", 0, CLOUD_COLUMNS) < 250).any()


def test_what_has_no_camera_leaves_blank_tiles(loader):
    batches = [replace(batch, cameras=None) for batch in loader]
    for method, columns in ((Oracle(), COLUMNS), (Oracle(torch.rand(1, 100, 3)), CLOUD_COLUMNS)):
        sheet = np.asarray(comparison_picture(method, batches, table({"car/0/v00": 0.5})))
        for column in range(1, len(columns) - 1):
            assert (tile(sheet, 0, "best", column, columns) == 255).all()
        assert (tile(sheet, 0, "best", 0, columns) < 250).any()


class Fin(LightningModule):
    """Answers with a body and, at its +X end, a fin above it, in two colours; through its own camera if it has one."""

    def __init__(self, camera: Camera | None, textured: bool = True) -> None:
        super().__init__()
        self.camera, self.textured = camera, textured

    def reconstruct(self, batch: ViewBatch) -> Reconstruction:
        corners = [[-0.5, -0.2, 0], [0.5, -0.2, 0], [0.5, 0.1, 0], [-0.5, 0.1, 0], [0.3, 0.1, 0], [0.5, 0.4, 0]]
        verts = torch.tensor(corners)
        verts = torch.cat([verts, verts + torch.tensor([0.0, 0.0, 0.1])])
        faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 2, 5], [6, 7, 8], [6, 8, 9], [10, 8, 11]])
        blue, red = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0])
        colors = torch.cat([blue.expand(6, 3), red.expand(6, 3)])  # blue at z = 0, red at z = 0.1
        n = len(batch)
        textures = TexturesVertex([colors] * n) if self.textured else None
        camera = self.camera[[0] * n] if self.camera is not None else None
        return Reconstruction(mesh=Meshes([verts] * n, [faces] * n, textures), camera=camera)


def straight() -> Camera:
    """An orthographic camera that looks along +Z: +X to the left, +Y up."""
    ones = torch.ones(1, 2)
    shift = torch.tensor([[0.0, 0.0, 5.0]])
    return Camera(R=torch.eye(3)[None], T=shift, focal=1.6 * ones, center=0 * ones, orthographic=True)


def test_where_there_is_one_view_input_and_truth_are_the_photograph_with_and_without_background(loader):
    colors = torch.tensor([0.2, 0.5, 0.8])[:, None, None].expand(3, 1, 3, 48, 48)
    batch = replace(loader[0], images=colors, masks=loader[0].masks[:, :1], cameras=None)
    cameras = Camera.cat([straight()[None]] * 3)
    scores = table({"car/1/v00": 0.5})
    sheet = np.asarray(comparison_picture(Fin(straight()), [batch], scores))
    assert sheet.shape[1] == len(RANKS) * len(TURNED_COLUMNS) * TILE
    assert np.abs(tile(sheet, 0, "best", 0, TURNED_COLUMNS) / 255 - [0.2, 0.5, 0.8]).max() < 0.01
    truth = tile(sheet, 0, "best", 4, TURNED_COLUMNS) / 255
    mask = batch.masks[1, 0, 0].numpy()
    on_white = torch.from_numpy(np.where(mask[..., None] > 0, [0.2, 0.5, 0.8], 1.0)).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(on_white, TILE, mode="bilinear")[0].permute(1, 2, 0).numpy()
    assert np.abs(truth - expected[:, 1:]).mean() < 0.02
    # The camera of the data serves where none is predicted.
    again = np.asarray(comparison_picture(Fin(None), [replace(batch, cameras=cameras)], scores))
    assert np.array_equal(again, sheet)


def test_half_a_turn_shows_the_other_side_and_a_quarter_the_edge(loader):
    batch = replace(loader[0], images=loader[0].images[:, :1], masks=loader[0].masks[:, :1], cameras=None)
    sheet = np.asarray(comparison_picture(Fin(straight()), [batch], table({"car/1/v00": 0.5})))
    front, edge, back = (tile(sheet, 0, "best", column, TURNED_COLUMNS).astype(float) / 255 for column in (1, 2, 3))
    pure = {"blue": [0, 0, 1], "red": [1, 0, 0]}

    def share(image: np.ndarray, color: str) -> float:
        return float((np.abs(image - pure[color]).max(axis=2) < 0.02).mean())

    # +Z points into the scene: z = 0 is the near side. The textures hold their light: the colours are exact.
    broad = 0.3 * 1.0 * 1.6**2 / 4  # of the image, without the fin
    assert share(front, "blue") > broad > 0.01 > share(front, "red")
    assert share(back, "red") > broad > 0.01 > share(back, "blue")
    assert (edge < 0.9).any(axis=2).mean() < 0.3 * broad
    # +X is left: so is the fin, and after half a turn it is right.
    for image, left in ((front, True), (back, False)):
        top = np.argwhere((image < 0.9).any(axis=2))
        fin = top[top[:, 0] < TILE * (0.5 - 0.2 * 0.8)][:, 1]
        assert len(fin) and ((fin < TILE / 2).all() if left else (fin > TILE / 2 - 2).all())


def test_one_view_without_a_camera_or_a_texture(loader):
    batch = replace(loader[0], images=loader[0].images[:, :1], masks=loader[0].masks[:, :1], cameras=None)
    sheet = np.asarray(comparison_picture(Fin(None), [batch], table({"car/1/v00": 0.5})))
    for column in (1, 2, 3):
        assert (tile(sheet, 0, "best", column, TURNED_COLUMNS) == 255).all()
    sheet = np.asarray(comparison_picture(Fin(straight(), textured=False), [batch], table({"car/1/v00": 0.5})))
    for column in (1, 3):
        shown = tile(sheet, 0, "best", column, TURNED_COLUMNS)
        inked = shown[(shown < 250).any(axis=2)]
        assert len(inked) and (inked.std(axis=1) < 1).all()  # grey, shaded
