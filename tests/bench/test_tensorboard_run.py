"""A cell of the benchmark that is logged to TensorBoard, read back with TensorBoard's own reader."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from recon3d.bench import runner
from recon3d.bench.runner import Cell
from recon3d.evaluation.picture import LABEL, TILE
from recon3d.evaluation.protocol import PROTOCOL

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

NAMES = {f"{category}/{item}/v00" for category in ("car", "lamp") for item in "ab"}


def logged(configs: Path, root: Path, **changes: Any) -> Any:
    places = {"configs": configs, "results": root / "board" / "results", "runs": root / "runs"}
    cell = Cell("softras", "tiny", "tiny", loggers=("tensorboard",), **places | changes)
    assert runner.run(cell).error is None
    (folder,) = cell.runs.glob(f"tiny/tiny/{cell.method}--*/tensorboard/version_0")
    events = accumulator.EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0, "scalars": 0})
    return events.Reload()


def pictures(events: Any, kind: str) -> dict[str, list[Any]]:
    tags = [tag for tag in events.Tags()["images"] if tag.startswith(f"{kind}/")]
    return {
        tag.removeprefix(f"{kind}/"): [Image.open(BytesIO(one.encoded_image_string)) for one in events.Images(tag)]
        for tag in tags
    }


def test_a_run_shows_numbers_pictures_meshes_and_the_worst(tiny_configs, tmp_path) -> None:
    events = logged(tiny_configs, tmp_path)
    scalars = set(events.Tags()["scalars"])
    assert {"train/iou", "train/laplacian", "train/flatten", "train/loss", "lr-Adam", "val/train_s"} <= scalars
    assert {f"val/{measure.name}" for measure in PROTOCOL if measure.in_validation} <= scalars
    assert "test/voxel_iou" in scalars and len(events.Scalars("train/loss")) == 6
    shown = pictures(events, "val_pictures")
    assert shown.keys() == NAMES and all(len(steps) == 2 for steps in shown.values())
    for first, last in shown.values():
        assert first.size == last.size == (7 * TILE, LABEL + TILE)
        assert (np.asarray(first)[LABEL:, :TILE] == np.asarray(last)[LABEL:, :TILE]).all()
        assert (np.asarray(first) != np.asarray(last)).any()
    meshes = {tag for tag in events.Tags()["tensors"] if tag.startswith("test_meshes/")}
    assert {tag.split("/", 1)[1].rsplit("_", 1)[0] for tag in meshes} == NAMES
    vertices = [tag for tag in meshes if tag.endswith("VERTEX")]
    (value,) = events.Tensors(vertices[0])
    assert [dimension.size for dimension in value.tensor_proto.tensor_shape.dim] == [1, 642, 3]
    (table,) = events.Tensors("test_worst/table/text_summary")
    text = table.tensor_proto.string_val[0].decode()
    assert text.startswith("| sample_id | category | voxel_iou | chamfer |") and all(name in text for name in NAMES)
    assert pictures(events, "test_worst").keys() == NAMES


@pytest.mark.slow
def test_on_two_devices_the_worst_are_of_both(tiny_configs, tmp_path) -> None:
    events = logged(tiny_configs, tmp_path, overrides=("--trainer.devices", "2"))
    assert len(pictures(events, "val_pictures")) == 2  # process 0's share
    assert pictures(events, "test_worst").keys() == NAMES
