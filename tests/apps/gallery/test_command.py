from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest
import torch
import trimesh

from recon3d.apps.gallery import building, command
from recon3d.apps.gallery.data_files import unpacked
from recon3d.apps.gallery.runs import find_runs
from recon3d.apps.mesh_files import object_to_gltf
from recon3d.bench.record import load_all
from recon3d.methods.loading import load_method
from tests.apps.gallery.conftest import METHODS, value


def test_the_meshes_are_the_predictions(page, board):
    shown = value(page / "data/tiny-tiny/set.js")
    (run_set,) = find_runs(board.leaderboard, board.runs, "tiny", None, None)
    run = next(run for run in run_set.runs if run.method == "softras")
    method = load_method(run.checkpoint)
    batches = list(run.data_module().test_dataloader())
    for sample in shown["samples"]:
        batch, index = next(
            (batch, batch.sample_id.index(sample["id"])) for batch in batches if sample["id"] in batch.sample_id
        )
        with torch.inference_mode():
            verts, faces = method.reconstruct(batch).mesh.get_mesh_verts_faces(index)
        place = page / "data/tiny-tiny" / sample["folder"]
        scene = trimesh.load(io.BytesIO(unpacked((place / "softras.js").read_text())), file_type="glb", process=False)
        (mesh,) = scene.geometry.values()
        np.testing.assert_allclose(mesh.vertices, object_to_gltf(verts).numpy(), atol=1e-5)
        np.testing.assert_array_equal(mesh.faces, faces.numpy())
        assert sample["results"]["softras"]["faces"] == len(faces)
        assert {file.name for file in place.glob("*.png")} >= {"input.png", "mask.png", "softras.png"}


def test_the_numbers_are_those_of_the_records_and_samples(page, board):
    shown = value(page / "data/tiny-tiny/set.js")
    for record in load_all(board.leaderboard / "results"):
        row = next(row for row in shown["rows"] if row["method"] == record.method)
        assert row["values"]["voxel_iou"] == [record.measures["voxel_iou"].value, None]
        assert row["cost"]["params"] == record.cost.params and row["input"] == record.input and row["meshes"]
    assert {row["method"] for row in shown["rows"]} == set(METHODS)
    (run_set,) = find_runs(board.leaderboard, board.runs, "tiny", None, None)
    for run in run_set.runs:
        table = pd.read_csv(run.folder / "samples.csv").set_index("sample_id")
        for sample in shown["samples"]:
            scores = sample["results"][run.method]["scores"]
            assert scores["voxel_iou"] == pytest.approx(table.loc[sample["id"], "voxel_iou"])
            assert all(np.isfinite(number) for number in scores.values())


def test_all_it_needs_is_in_the_folder(page):
    text = (page / "index.html").read_text()
    assert "default-src 'none'" in text and "http" not in text.replace("http-equiv", "")
    for name in ("core.js", "gallery.css", "model-viewer/model-viewer-umd.min.js", "model-viewer/LICENSE"):
        assert (page / name).is_file()
    assert not any(path.suffix == ".py" for path in page.rglob("*"))
    summary = value(page / "data/index.js")["sets"]
    assert [(item["key"], item["samples"], item["total"]) for item in summary] == [("tiny-tiny", 4, 4)]


def test_the_same_runs_give_the_same_bytes(page, board, build, tmp_path):
    assert build(tmp_path / "again", board) == 0
    files = {path.relative_to(page): path.read_bytes() for path in page.rglob("*") if path.is_file()}
    again = {p.relative_to(tmp_path / "again"): p.read_bytes() for p in (tmp_path / "again").rglob("*") if p.is_file()}
    assert files == again


def test_an_interrupted_build_leaves_the_old_page(board, build, tmp_path, monkeypatch):
    out = tmp_path / "gallery"
    assert build(out, board, methods=["template"]) == 0
    before = (out / "data/index.js").read_text()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "predicted_model", stop)
    with pytest.raises(KeyboardInterrupt):
        build(out, board)
    assert (out / "data/index.js").read_text() == before and sorted(p.name for p in tmp_path.iterdir()) == ["gallery"]
    # A kill between the two renames: the old page comes back before anything else is done.
    out.rename(tmp_path / ".gallery.old")
    with pytest.raises(FileNotFoundError):
        build(out, board, methods=["nobody"])
    assert (out / "data/index.js").read_text() == before


def test_a_folder_that_is_no_gallery_is_not_replaced(board, build, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years")
    with pytest.raises(ValueError, match="not a gallery"):
        build(tmp_path / "home", board)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years"


def test_a_gallery_with_files_of_somebody_else_is_not_replaced(board, build, tmp_path):
    out = tmp_path / "pages"
    assert build(out, board, methods=["template"]) == 0
    for name in (".git", "CNAME"):
        (out / name).write_text("mine")
    with pytest.raises(ValueError, match=r"not of it and would be lost: \.git, CNAME\. Move them away"):
        build(out, board, methods=["template"])
    assert (out / "CNAME").read_text() == "mine"
    for name in (".git", "CNAME"):
        (out / name).unlink()
    assert build(out, board, methods=["template"]) == 0
    (out / "data" / "index.js").write_text("var mine = 1;")
    with pytest.raises(ValueError, match="not a gallery"):
        build(out, board, methods=["template"])


def test_methods_carry_the_supervision_within_which_they_are_compared(page):
    shown = value(page / "data/tiny-tiny/set.js")
    told = {row["method"]: row["supervision"] for row in shown["rows"]}
    assert {item["name"]: item["supervision"] for item in shown["methods"]} == told and len(set(told.values())) > 1
    (summary,) = value(page / "data/index.js")["sets"]
    assert summary["supervision"] == told[summary["best"]]


def test_a_method_that_fails_is_said_on_the_page(board, build, tmp_path, monkeypatch):
    real = building.predicted_model

    def fail(title, method, batch):
        if title == "softras" and batch.category[0] == "car":
            raise RuntimeError("out of luck")
        return real(title, method, batch)

    monkeypatch.setattr(building, "predicted_model", fail)
    assert build(tmp_path / "g", board) == 0
    for sample in value(tmp_path / "g/data/tiny-tiny/set.js")["samples"]:
        failed = sample["category"] == "car"
        assert sample["results"]["softras"]["error"] == ("RuntimeError: out of luck" if failed else None)
        assert (tmp_path / "g/data/tiny-tiny" / sample["folder"] / "softras.js").exists() is not failed
        assert sample["results"]["template"]["error"] is None


def test_weights_that_do_not_load_fail_their_method_only(own_board, build, tmp_path):
    (checkpoint,) = own_board.runs.glob("tiny/tiny/softras--*/last.ckpt")
    checkpoint.write_bytes(b"torn")
    assert build(tmp_path / "g", own_board) == 0
    for sample in value(tmp_path / "g/data/tiny-tiny/set.js")["samples"]:
        assert "weights do not load" in sample["results"]["softras"]["error"]
        assert sample["results"]["mean_shape"]["error"] is None


def test_what_is_missing_is_said_with_a_command_that_makes_it(board, build, tmp_path):
    with pytest.raises(FileNotFoundError, match="make bench METHOD=softras DATA=synthetic PRESET=tiny"):
        build(tmp_path / "g", board._replace(runs=tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=r"method voxel.*make bench METHOD=voxel"):
        build(tmp_path / "g", board, methods=["voxel"])
    with pytest.raises(FileNotFoundError, match=r"data set cub.*DATA=cub"):
        build(tmp_path / "g", board, data=["cub"])
    with pytest.raises(FileNotFoundError, match="There is no preset smokey"):
        build(tmp_path / "g", board, preset="smokey")
    assert not (tmp_path / "g").exists()


def test_other_data_than_the_records_are_refused(own_board, build, tmp_path):
    for path in own_board.leaderboard.rglob("*.json"):
        content = json.loads(path.read_text())
        content["data"]["hash"] = "0" * 64
        path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="tested on 000000000000"):
        build(tmp_path / "g", own_board)


def test_a_method_without_weights_is_in_the_table_only(own_board, build, tmp_path):
    (checkpoint,) = own_board.runs.glob("tiny/tiny/template--*/last.ckpt")
    checkpoint.unlink()
    assert build(tmp_path / "g", own_board) == 0
    shown = value(tmp_path / "g/data/tiny-tiny/set.js")
    row = next(row for row in shown["rows"] if row["method"] == "template")
    assert not row["meshes"] and "no meshes" in row["note"]
    assert {method["name"] for method in shown["methods"]} == {"softras", "mean_shape"}


def test_the_command_line_reaches_it(board, tmp_path, monkeypatch):
    from recon3d.cli import main

    arguments = ["--preset", "tiny", "--samples", "1", "--methods", "template", "--out", str(tmp_path / "g")]
    places = [f"--{name}={place}" for name, place in board._asdict().items()]
    assert main(["gallery", *arguments, *places]) == 0
    assert (tmp_path / "g" / command.INDEX).is_file()
