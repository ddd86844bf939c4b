from __future__ import annotations

import base64
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from recon3d.apps.background import background_remover

# An ONNX network of 145 bytes: Sigmoid(ReduceMean(p, axes=[1])) for p of (1, 3, h, w), opset 13.
MEAN_NETWORK = base64.b64decode(
    "CAgSADqEAQowCgFwEgFtIgpSZWR1Y2VNZWFuKgsKBGF4ZXNAAaABByoPCghrZWVwZGltcxgBoAECCg8KAW0SAW8iB1NpZ21vaWQSAWdaHQoBcBIYChYI"
    "ARISCgIIAQoCCAMKAxIBaAoDEgF3Yh0KAW8SGAoWCAESEgoCCAEKAggBCgMSAWgKAxIBd0IECgAQDQ=="
)


class Session:
    """Stands in for ONNX Runtime: keeps what it gets and answers what it was told to."""

    def __init__(self, answer: np.ndarray, shape: list[Any] | None = None) -> None:
        self.answer, self.shape = answer, shape or [1, 3, 32, 32]
        self.seen: dict[str, np.ndarray] = {}

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="picture", shape=self.shape)]

    def run(self, outputs: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.seen = inputs
        return [self.answer, np.zeros(1)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "network.onnx"
    path.write_bytes(MEAN_NETWORK)
    return path


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch):
    def put(session: Session) -> Session:
        monkeypatch.setattr("recon3d.apps.background._open_session", lambda model: session)
        return session

    return put


def test_pictures_are_prepared_and_answers_read_as_in_the_authors_code(model: Path, use) -> None:
    answer = np.full((1, 1, 32, 32), 0.2, dtype=np.float32)
    answer[..., :16, 8:] = 0.8
    session = use(Session(answer))
    picture = Image.new("RGB", (32, 32), (100, 50, 0))
    picture.paste((200, 50, 0), (16, 0, 32, 32))
    remover = background_remover(model)
    remover(picture)
    (pixels,) = session.seen.values()
    assert list(session.seen) == ["picture"] and pixels.shape == (1, 3, 32, 32) and pixels.dtype == np.float32
    # Divided by the highest value of the picture, 200; then by ImageNet's mean and deviation.
    expected = [(0.5 - 0.485) / 0.229, (0.25 - 0.456) / 0.224, (0 - 0.406) / 0.225]
    assert pixels[0, :, 5, 3] == pytest.approx(expected, abs=1e-5)
    assert pixels[0, 0, 5, 28] == pytest.approx((1 - 0.485) / 0.229, abs=1e-5)
    mask = remover(picture.resize((64, 96)))
    values = np.asarray(mask)
    assert mask.mode == "L" and mask.size == (64, 96)
    # From 0.2 to 0.8 is from 0 to 255; columns 8 of 32 are 16 of 64, rows 16 of 32 are 48 of 96.
    assert (values[:40, 24:] == 255).all() and (values[:, :8] == 0).all() and (values[60:] == 0).all()


def test_a_black_picture_is_no_division_by_zero(model: Path, use) -> None:
    session = use(Session(np.linspace(0, 1, 1024, dtype=np.float32).reshape(1, 1, 32, 32)))
    background_remover(model)(Image.new("RGB", (8, 8)))
    assert np.isfinite(session.seen["picture"]).all()


@pytest.mark.parametrize("side", [None, "height"])
def test_a_network_of_any_size_gets_that_of_u2net(model: Path, use, side: str | None) -> None:
    session = use(Session(np.eye(4, dtype=np.float32)[None, None], [1, 3, side, side]))
    assert background_remover(model)(Image.new("RGB", (50, 20))).size == (50, 20)
    assert session.seen["picture"].shape == (1, 3, 320, 320)


@pytest.mark.parametrize("value", [0.1, 0.9, np.nan])
def test_no_object_is_said(model: Path, use, value: float) -> None:
    use(Session(np.full((1, 1, 32, 32), value, dtype=np.float32)))
    with pytest.raises(ValueError, match=r"network\.onnx finds no object before a background .*--mask"):
        background_remover(model)(Image.new("RGB", (8, 8)))


def test_networks_that_do_not_fit(tmp_path: Path, model: Path, use) -> None:
    with pytest.raises(FileNotFoundError, match=r"No background remover at .*gone\.onnx"):
        background_remover(tmp_path / "gone.onnx")
    use(Session(np.zeros((1, 1, 4, 4)), [1, 4, 32, 32]))
    with pytest.raises(ValueError, match=r"one input \(1, 3, H, W\), got inputs \[\[1, 4, 32, 32\]\]"):
        background_remover(model)
    use(Session(np.zeros((1, 1000))))
    with pytest.raises(ValueError, match=r"first output \(1, 1, H, W\), got \(1, 1000\)"):
        background_remover(model)(Image.new("RGB", (8, 8)))


def test_without_onnx_runtime_the_way_to_it_is_said(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeError, match=r"\.venv/bin/pip install -e '\.\[background\]'.*--mask"):
        background_remover(model)


def test_a_network_runs(tmp_path: Path, model: Path) -> None:
    pytest.importorskip("onnxruntime")
    picture = Image.new("RGB", (200, 100), (10, 10, 10))
    ImageDraw.Draw(picture).rectangle((50, 25, 149, 74), fill=(250, 250, 250))
    mask = np.asarray(background_remover(model)(picture)) > 127
    expected = np.zeros((100, 200), dtype=bool)
    expected[25:75, 50:150] = True
    assert (mask != expected).mean() < 0.005
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.onnx is not a network that ONNX Runtime can read"):
        background_remover(tmp_path / "text.onnx")
