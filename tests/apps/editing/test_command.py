"""The whole command on small meshes: the real loop, the real networks with random weights."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from torchvision.models import GoogLeNet

from recon3d import cli
from recon3d.apps.editing import command
from recon3d.apps.editing.optimise import EditState

SMALL = ["--random-features", "--image-size", "32", "--batch", "1", "--texture-size", "2", "--device", "cpu"]


@pytest.fixture(autouse=True)
def few_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recon3d.apps.editing.turntable.FRAMES", 2)
    monkeypatch.setattr("recon3d.apps.editing.turntable.SIZE", 32)


def style(mesh: Path, image: Path, out: Path, *more: str) -> list[str]:
    return ["edit", "style", str(mesh), "--image", str(image), "--out", str(out), *SMALL, *more]


def losses(path: Path, column: str = "loss") -> list[float]:
    with path.open(newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file)]


def read(path: Path) -> trimesh.Trimesh:
    (mesh,) = trimesh.load_scene(path, process=False).geometry.values()
    return mesh


def test_style_falls_and_the_result_lies_where_the_input_lay(egg: Path, stripes: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    assert cli.main(style(egg, stripes, out, "--steps", "12", "--lr-textures", "0.2", "--batch", "2")) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {f"egg-style{end}" for end in (".glb", ".gif", ".csv", ".ckpt", "-views.png")}
    history = losses(out / "egg-style.csv", "style")
    assert len(history) == 12 and sum(history[-3:]) < 0.8 * sum(history[:3])
    source, result = trimesh.load_mesh(egg, process=False), read(out / "egg-style.glb")
    moved = result.vertices[result.faces] - source.vertices[source.faces]
    # 12 updates of 2.5e-4 in the editing frame, whose unit is half the longest side, 2.
    assert 0 < np.abs(moved).max() <= 1.05 * 12 * 2.5e-4 * 2
    assert result.visual.uv is not None
    image = np.asarray(result.visual.material.baseColorTexture).astype(float)
    assert np.ptp(image) > 100  # it began as grey, give or take 20


def test_dream_features_rise(egg: Path, tmp_path: Path) -> None:
    features = {}
    for name, rates in (("still", ("0", "0")), ("dream", ("5e-5", "0.3"))):
        out = tmp_path / name
        options = ["--steps", "15", "--lr-vertices", rates[0], "--lr-textures", rates[1]]
        assert cli.main(["edit", "dream", str(egg), "--out", str(out), *SMALL, *options]) == 0
        features[name] = np.array(losses(out / "egg-dream.csv", "features"))
        assert read(out / "egg-dream.glb").visual.uv is not None
        assert losses(out / "egg-dream.csv", "edges")[0] > 0
    # The same views and backgrounds, update by update; the term is minus the mean square.
    assert features["dream"][0] == features["still"][0]
    assert features["dream"][-5:].sum() < 1.15 * features["still"][-5:].sum() < 0


def test_obj_comes_with_its_texture(egg: Path, stripes: Path, tmp_path: Path) -> None:
    assert cli.main(style(egg, stripes, tmp_path, "--steps", "1", "--format", "obj")) == 0
    source, result = trimesh.load_mesh(egg, process=False), read(tmp_path / "egg-style.obj")
    np.testing.assert_allclose(result.vertices[result.faces], source.vertices[source.faces], atol=2e-3)
    with Image.open(tmp_path / "egg-style-texture.png") as texture:
        assert result.visual.material.image.size == texture.size
    assert "map_Kd egg-style-texture.png" in (tmp_path / "egg-style.mtl").read_text()
    assert len(trimesh.load_mesh(egg).vertices) == (tmp_path / "egg-style.obj").read_text().count("\nv ")


def test_a_stopped_edit_goes_on_to_the_same_result(
    egg: Path, stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    steps = ("--steps", "5", "--snapshot-every", "2")
    assert cli.main(style(egg, stripes, tmp_path / "whole", *steps)) == 0

    real, saves = command.save_snapshot, []

    def stop(path: Path, state: EditState, identity: dict[str, str]) -> None:
        saves.append(len(state.history))
        if saves == [2, 4]:
            raise KeyboardInterrupt  # before the second is written
        real(path, state, identity)

    monkeypatch.setattr(command, "save_snapshot", stop)
    assert cli.main(style(egg, stripes, tmp_path / "cut", *steps)) == command.INTERRUPTED
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {"egg-style.ckpt", "egg-style.csv"}
    assert len(losses(tmp_path / "cut" / "egg-style.csv")) == 2
    assert cli.main(style(egg, stripes, tmp_path / "cut", *steps)) == 0
    assert saves == [2, 4, 4, 5]  # from update 2 on
    for end in (".glb", ".gif", ".csv", "-views.png"):
        name = f"egg-style{end}"
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_finished_edit_can_be_made_longer_and_not_changed(
    egg: Path, stripes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(style(egg, stripes, tmp_path, "--steps", "2")) == 0
    assert cli.main(style(egg, stripes, tmp_path, "--steps", "3")) == 0
    assert len(losses(tmp_path / "egg-style.csv")) == 3
    before = (tmp_path / "egg-style.glb").read_bytes()
    other = tmp_path / "other.png"
    Image.new("RGB", (9, 9), "green").save(other)
    for more, message in (
        (("--steps", "3", "--seed", "1"), "seed: 0 there, 1 now"),
        (("--steps", "3", "--style-weight", "2"), "style_weight: 1.0 there, 2.0 now"),
        (("--steps", "3", "--image", str(other)), "image: "),
        (("--steps", "2"), "3 updates, and --steps asks for 2"),
    ):
        assert cli.main(style(egg, stripes, tmp_path, *more)) == 1
        shown = capsys.readouterr().err
        assert message in shown and "another --out" in shown
    assert (tmp_path / "egg-style.glb").read_bytes() == before


@pytest.mark.parametrize("left", [b"", b"update,loss\n1,0.5\n"])
def test_the_history_is_that_of_the_result(egg: Path, stripes: Path, tmp_path: Path, left: bytes) -> None:
    arguments = style(egg, stripes, tmp_path, "--steps", "2")
    assert cli.main(arguments) == 0
    history = tmp_path / "egg-style.csv"
    before = history.read_bytes()
    # As after a kill between the last snapshot and its table: there is no table, or an older one.
    history.unlink()
    if left:
        history.write_bytes(left)
    assert cli.main(arguments) == 0
    assert history.read_bytes() == before


def test_other_weights_of_the_same_name_and_size_are_another_edit(
    egg: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    after = ("inception4d", "inception4e", "inception5", "aux", "fc")
    state = GoogLeNet(init_weights=False).state_dict()
    state = {name: value for name, value in state.items() if not name.startswith(after)}
    file, renamed = tmp_path / "w.pth", tmp_path / "renamed.pth"
    torch.save(state, file)
    size = file.stat().st_size
    options = [option for option in SMALL if option != "--random-features"]
    arguments = ["edit", "dream", str(egg), "--out", str(tmp_path / "out"), *options, "--weights"]
    assert cli.main([*arguments, str(file), "--steps", "1"]) == 0
    shutil.move(file, renamed)
    assert cli.main([*arguments, str(renamed), "--steps", "2"]) == 0  # the same edit

    state["inception4c.branch1.bn.bias"] += 1
    torch.save(state, file)
    assert file.stat().st_size == size
    assert cli.main([*arguments, str(file), "--steps", "3"]) == 1
    shown = capsys.readouterr().err
    assert "features: weights " in shown and "another --out" in shown
    assert len(losses(tmp_path / "out" / "egg-dream.csv")) == 2


def test_without_weights_it_says_what_to_download(
    egg: Path, stripes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    for arguments, names in (
        (["style", str(egg), "--image", str(stripes)], ("vgg16-397923af.pth", "VGG16_Weights.IMAGENET1K_V1")),
        (["dream", str(egg)], ("googlenet-1378be20.pth", "GoogLeNet_Weights.IMAGENET1K_V1")),
    ):
        assert cli.main(["edit", *arguments, *out]) == 1
        shown = capsys.readouterr().err
        for name in (*names, "--weights PATH", "--random-features"):
            assert name in shown
    assert not (tmp_path / "out").exists()


def test_weights_of_another_network_are_refused(
    egg: Path, stripes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "w.pth")
    arguments = ["edit", "style", str(egg), "--image", str(stripes), "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, "--weights", str(tmp_path / "w.pth")]) == 1
    assert "features.0.weight" in capsys.readouterr().err
    assert cli.main([*arguments, "--weights", str(tmp_path / "w.pth"), "--random-features"]) == 1
    assert "exclude each other" in capsys.readouterr().err


def test_inputs_that_cannot_be_used(
    egg: Path, stripes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    shutil.copyfile(egg, tmp_path / "a.obj")
    shutil.copyfile(egg, tmp_path / "an egg.obj")
    for name in ("a-style.gif", "an_egg-style-texture.png"):
        shutil.copyfile(stripes, tmp_path / name)
    obj = ("--format", "obj")
    for arguments, message in (
        (style(tmp_path / "no.obj", stripes, tmp_path / "out"), "No mesh at"),
        (style(egg, tmp_path / "no.png", tmp_path / "out"), "No style image at"),
        (style(egg, stripes, tmp_path / "file"), "expects a folder"),
        (style(tmp_path / "a.obj", tmp_path / "a-style.gif", tmp_path), "would be overwritten"),
        (style(tmp_path / "an egg.obj", tmp_path / "an_egg-style-texture.png", tmp_path, *obj), "would be overwritten"),
        (style(egg, stripes, tmp_path / "out", "--steps", "0"), "--steps should be at least 1"),
        (style(egg, stripes, tmp_path / "out", "--tv-weight", "-1"), "--tv-weight should be 0 or positive"),
    ):
        assert cli.main(arguments) == 1
        shown = capsys.readouterr().err
        assert message in shown and "Traceback" not in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_a_gpu_that_is_not_there(egg: Path, stripes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(style(egg, stripes, tmp_path / "out", "--device", "cuda")) == 1
    assert "no GPU" in capsys.readouterr().err
