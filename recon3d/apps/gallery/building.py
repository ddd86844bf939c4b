"""One data set of the gallery: reconstructs the chosen samples with every method and writes their files.

Between `runs` and `choice` on one side and the page's scripts on the other. A method is loaded once, one after the
other, so that memory holds one network and the chosen samples.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from recon3d.apps.gallery import tables
from recon3d.apps.gallery.choice import Choice, choose
from recon3d.apps.gallery.data_files import packed, write_script
from recon3d.apps.gallery.models import Model, NoSurfaceError, predicted_model, true_models
from recon3d.apps.gallery.runs import Run, RunSet
from recon3d.apps.gallery.views import rgba_picture, shared_orbit, view_scale
from recon3d.data.base import ReconstructionDataModule
from recon3d.methods.loading import load_method
from recon3d.structures import Camera, ViewBatch

logger = logging.getLogger(__name__)

TRUTH = "ground-truth-"  # before "points" and "voxels"; no method's name has two hyphens


def build_set(run_set: RunSet, folder: Path, n_samples: int, done: Callable[[str], None]) -> dict[str, Any]:
    """Write the files of one data set; what could not be made is said on its page.

    Args:
        run_set: its runs.
        folder: of its files, ``<folder>/<sample number>/<model>.js`` and pictures.
        n_samples: how many samples to show.
        done: called with the name of each method that is finished.

    Returns:
        The summary for the landing page.

    Raises:
        ValueError: no scores, or data that are not those of the Records; the message says what to do.
    """
    scores = {run.method: run.samples() for run in run_set.runs}
    choice = choose(list(scores.values()), n_samples)
    names = choice.samples["sample_id"].tolist()
    batches = _chosen(run_set.runs[0].data_module(), names)
    if missing := [name for name in names if name not in batches]:
        raise ValueError(f"{run_set.runs[0].folder}: samples.csv names {missing[0]}, which the test data do not have.")
    folders = {name: f"{number:04d}" for number, name in enumerate(names)}
    results: dict[str, dict[str, Any]] = {name: {} for name in names}
    truths: dict[str, dict[str, Any]] = {name: {} for name in names}
    cameras: dict[str, dict[str, Camera]] = {name: {} for name in names}
    for name, batch in batches.items():
        place = folder / folders[name]
        place.mkdir(parents=True)
        rgba_picture(batch.images[0, 0]).save(place / "input.png")
        rgba_picture(batch.masks[0, 0]).save(place / "mask.png")
        for kind, true in true_models(batch).items():
            cameras[name][TRUTH + kind] = true.view.camera
            truths[name][TRUTH + kind] = _write(true, place, f"{folder.name}/{place.name}", TRUTH + kind)
    for run in run_set.runs:
        for name, model, error in _reconstructed(run, batches):
            place = folder / folders[name]
            entry: dict[str, Any] = {"error": error}
            if model is not None:
                cameras[name][run.method] = model.view.camera
                entry |= _write(model, place, f"{folder.name}/{place.name}", run.method)
            results[name][run.method] = entry | {"scores": tables.scores(scores[run.method], name)}
        done(run.method)
    orbits = {name: _place(seen, truths[name] | results[name]) for name, seen in cameras.items()}
    samples = [
        {
            "id": row.sample_id,
            "category": row.category,
            "folder": folders[str(row.sample_id)],
            "rank": row.rank,
            "truths": truths[str(row.sample_id)],
            "results": results[str(row.sample_id)],
            "orbit": orbits[str(row.sample_id)],
        }
        for row in choice.samples.itertuples()
    ]
    write_script(folder / "set.js", folder.name, _page(run_set, choice, list(scores.values()), samples))
    return _summary(run_set, choice, samples)


def _chosen(data: ReconstructionDataModule, names: list[str]) -> dict[str, ViewBatch]:
    """The chosen samples as batches of one, in the order of `names`."""
    wanted, found = set(names), {}
    for batch in data.test_dataloader():
        for index, name in enumerate(batch.sample_id):
            if name in wanted:
                one: dict[str, Any] = {
                    field.name: value[index : index + 1]
                    for field in fields(ViewBatch)
                    if (value := getattr(batch, field.name)) is not None
                }
                found[name] = ViewBatch(**one)
    return {name: found[name] for name in names if name in found}


def _reconstructed(run: Run, batches: dict[str, ViewBatch]) -> Iterator[tuple[str, Model | None, str | None]]:
    """Name, model and error of each sample; weights that do not load fail every sample of the run."""
    try:
        method = load_method(run.checkpoint)
    except ValueError as error:
        logger.exception("%s cannot be shown.", run.folder)
        yield from ((name, None, f"the weights do not load: {error}") for name in batches)
        return
    for name, batch in batches.items():
        try:
            model = predicted_model(run.method, method, batch)
        except NoSurfaceError as error:
            yield name, None, str(error)
        except Exception as error:  # one method on one sample must not lose the page; what it was is said there
            logger.exception("%s failed on %s.", run.method, name)
            yield name, None, f"{type(error).__name__}: {error}"
        else:
            yield name, model, None


def _write(model: Model, place: Path, prefix: str, name: str) -> dict[str, Any]:
    """Write a model's mesh and preview; what the page has to know of it."""
    model.preview.save(place / f"{name}.png")
    write_script(place / f"{name}.js", f"{prefix}/{name}", packed(model.glb))
    return {
        "title": model.title,
        "verts": model.verts,
        "faces": model.faces,
        "texture": model.texture,
        "bytes": len(model.glb),
        "camera": model.view.source,
        "scale": round(view_scale(model.view.camera), 5),
    }


def _place(cameras: dict[str, Camera], entries: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """Give each model the orientation with which all of a sample share an orbit; the orbit, None without models."""
    if not cameras:
        return None
    orbit = shared_orbit(list(cameras.values()))
    for name, orientation in zip(cameras, orbit.orientations, strict=True):
        entries[name]["orientation"] = [round(angle, 3) for angle in orientation]
    return {"polar": round(orbit.polar, 3), "field": round(orbit.field_of_view, 3)}


def _page(run_set: RunSet, choice: Choice, scores: list[pd.DataFrame], samples: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page of a data set knows."""
    data = run_set.standing.data
    assert data is not None
    supervision = {row.method: row.supervision for row in run_set.standing.rows}
    return {
        "key": run_set.key,
        "data": data.name,
        "preset": run_set.standing.preset,
        "split": data.split,
        "scale": data.scale,
        "hash": data.hash,
        "primary": choice.measure,
        "choice": choice.rule(len(run_set.runs)),
        "columns": tables.columns(run_set),
        "measures": tables.sample_measures(scores),
        "rows": tables.rows(run_set),
        "stale": len(run_set.standing.stale),
        "methods": [
            {"name": run.method, "seed": run.record.seed, "supervision": supervision[run.method]}
            for run in run_set.runs
        ],
        "categories": sorted({sample["category"] for sample in samples}),
        "samples": samples,
    }


def _summary(run_set: RunSet, choice: Choice, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """What the landing page knows: the medians of the categories first, with the mesh of the method with the best mean.

    It is the best over all supervisions, and so no ranking, which the page says.
    """
    standing = run_set.standing
    means = {
        run.method: result.value if result.higher_is_better else -result.value
        for run in run_set.runs
        if (result := run.record.measures[choice.measure]).value is not None
    }
    best = max(means, key=lambda method: means[method]) if means else run_set.runs[0].method
    shown = sorted(samples, key=lambda sample: sample["rank"] != "median")[:4]
    return {
        "key": run_set.key,
        "data": standing.name,
        "preset": standing.preset,
        "samples": len(samples),
        "total": choice.total,
        "categories": len(set(choice.samples["category"])),
        "methods": [run.method for run in run_set.runs],
        "best": best,
        "primary": choice.measure,
        "supervision": next(row.supervision for row in standing.rows if row.method == best),
        "pictures": [
            {"folder": sample["folder"], "mesh": sample["results"][best]["error"] is None} for sample in shown
        ],
    }
