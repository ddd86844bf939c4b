from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor

from recon3d.methods.base import ReconstructionMethod
from recon3d.methods.loading import load_method
from recon3d.methods.mean_shape import MeanShape
from recon3d.methods.softras import SoftRasMesh
from recon3d.methods.template import TemplateSphere


def save(method: ReconstructionMethod, path: Path) -> Path:
    """As `recon3d bench` writes it, without training."""
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(method)
    trainer.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[SoftRasMesh, Path]:
    torch.manual_seed(0)
    method = SoftRasMesh(image_size=16, width=4, hidden=16, code=8, color=True, sigma=1e-4).eval()
    return method, save(method, tmp_path_factory.mktemp("saved") / "softras.ckpt")


def changed(path: Path, target: Path, **changes: Any) -> Path:
    content = torch.load(path, weights_only=True) | changes
    torch.save({key: value for key, value in content.items() if value is not None}, target)
    return target


def test_a_method_answers_as_before_it_was_saved(saved: tuple[SoftRasMesh, Path]) -> None:
    method, path = saved
    image = torch.rand(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    loaded = load_method(path)
    assert isinstance(loaded, SoftRasMesh) and not loaded.training
    assert loaded.sigma == 1e-4 and loaded.image_size == 16
    with torch.no_grad():
        before, after = method(image), loaded(image)
    assert torch.equal(before.verts, after.verts)
    assert torch.equal(before.vert_colors, after.vert_colors)


def test_methods_that_fix_the_arguments_of_the_base_load(tmp_path: Path) -> None:
    # Built in Python, Lightning keeps the base's arguments (lr, schedule) too, which these constructors do not take.
    sphere = load_method(save(TemplateSphere(radius=0.4), tmp_path / "template.ckpt"))
    assert isinstance(sphere, TemplateSphere)
    assert sphere.verts.norm(dim=1).sub(0.4).abs().max() < 1e-6
    mean = MeanShape()
    mean.shapes = {"car": torch.eye(4, dtype=torch.bool).expand(4, 4, 4).clone()}
    loaded = load_method(save(mean, tmp_path / "mean.ckpt"))
    assert isinstance(loaded, MeanShape)
    assert torch.equal(loaded.shapes["car"], mean.shapes["car"])


class Payload:
    """Unpickled, it makes the folder that it names."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_the_file_is_refused_and_does_not_run(tmp_path: Path, zipped: bool) -> None:
    mark, path = tmp_path / "ran", tmp_path / "evil.ckpt"
    content = {"recon3d_method": "recon3d.methods.softras.SoftRasMesh", "state_dict": Payload(mark)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"evil\.ckpt is not a checkpoint"):
        load_method(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torch.nn.Linear", "holds no recon3d method"),
        ("recon3d.bench.record.Record", "holds no recon3d method"),
        ("recon3d.methods", "holds no recon3d method"),
        (None, "holds no recon3d method"),
        ("recon3d.methods.softras.Meshes", "which is not a method"),
        ("recon3d.methods.base.Paper", "which is not a method"),
        ("recon3d.methods.softras.torch", "which is not a method"),
        ("recon3d.methods.softras.Gone", "which this version does not have"),
        ("recon3d.methods.gone.Gone", "which this version does not have"),
    ],
)
def test_only_methods_are_built(saved: tuple[SoftRasMesh, Path], tmp_path: Path, name: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_method(changed(saved[1], tmp_path / "other.ckpt", recon3d_method=name))


@pytest.mark.parametrize(
    "changes",
    [
        {"state_dict": None},
        {"hyper_parameters": None},
        {"hyper_parameters": {"image_size": 16, "width": 8, "hidden": 16, "code": 8}},
        {"hyper_parameters": {"image_size": 16, "width": 4, "hidden": 16, "code": 8, "color": True, "sigmma": 1.0}},
        {"recon3d_method": "recon3d.methods.template.TemplateSphere"},
        {"recon3d_method": "recon3d.methods.mean_shape.MeanShape", "hyper_parameters": {}, "state_dict": {}},
    ],
    ids=["no weights", "no arguments", "other sizes", "unknown argument", "other method", "no shapes"],
)
def test_what_does_not_fit_is_refused(saved: tuple[SoftRasMesh, Path], tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"odd\.ckpt does not fit"):
        load_method(changed(saved[1], tmp_path / "odd.ckpt", **changes))


@pytest.mark.parametrize(
    "content", [b"", b"hello\n", b"\x89PNG\r\n\x1a\n", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(99)]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.ckpt is not a checkpoint"):
        load_method(path)


def test_a_cut_or_damaged_checkpoint_is_refused(saved: tuple[SoftRasMesh, Path], tmp_path: Path) -> None:
    path, whole = tmp_path / "file.ckpt", saved[1].read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not a checkpoint"):
        load_method(path)
    # The first opcodes of the pickle: what fails then is the unpickler, in any way.
    start = whole.index(b"\x80\x02}q")
    path.write_bytes(whole[: start + 2] + b"h\xff" + whole[start + 4 :])
    with pytest.raises(ValueError, match="loaded safely"):
        load_method(path)


def test_a_plain_tensor_and_a_missing_file(tmp_path: Path) -> None:
    tensor: Tensor = torch.zeros(3)
    torch.save(tensor, tmp_path / "tensor.ckpt")
    with pytest.raises(ValueError, match="holds a Tensor"):
        load_method(tmp_path / "tensor.ckpt")
    with pytest.raises(FileNotFoundError, match="No checkpoint at"):
        load_method(tmp_path / "missing.ckpt")
    with pytest.raises(FileNotFoundError, match="No checkpoint at"):
        load_method(tmp_path)
