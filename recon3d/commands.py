"""What the commands of `recon3d.cli` do: options to calls, results to the terminal, an exit status.

Imports are made inside the commands, so that `recon3d --help` and the tables do not wait for torch.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from recon3d.apps.editing.command import Request


def bench(options: argparse.Namespace) -> int:
    """Run a cell and its baselines, show the table."""
    from rich.console import Console
    from rich.text import Text

    from recon3d.bench.cell import Cell
    from recon3d.bench.record import load_all
    from recon3d.bench.runner import bench
    from recon3d.bench.table import terminal_table

    _check_loggers(options.logger)
    results = options.results or options.leaderboard / "results"
    if options.overrides and options.results is None:
        # A run with other numbers than the configs is not evidence of the cell, so it stays out of the leaderboard.
        results = (
            options.runs / f"with-{hashlib.sha256(' '.join(options.overrides).encode()).hexdigest()[:8]}" / "results"
        )
    cell = Cell(
        method=options.method,
        data=options.data,
        preset=options.preset,
        seed=options.seed,
        overrides=("--trainer.devices", options.devices, *options.overrides),
        loggers=tuple(dict.fromkeys(options.logger)),
        configs=options.configs,
        results=results,
        runs=options.runs,
    )
    records = bench(cell, options.force, baselines=()) if options.alone else bench(cell, options.force)
    console = Console()
    if not options.alone:
        console.print(terminal_table(load_all(cell.results / cell.data / cell.preset)))
    console.print(f"Record: {cell.record_path}", soft_wrap=True)
    if not records[-1].error:
        picture = cell.folder(records[-1].provenance.config_hash) / "picture.png"
        console.print(f"Picture: {picture}", soft_wrap=True)
    failed = [record for record in records if record.error]
    for record in failed:
        console.print(Text(f"{record.method} failed: {record.error}", style="red"), soft_wrap=True)
    return 1 if failed else 0


def _check_loggers(names: Sequence[str]) -> None:
    """Refuse a logger whose package is not installed, before LightningCLI does so in the words of its parser."""
    for name in names:
        if name in ("wandb", "tensorboard") and importlib.util.find_spec(name) is None:
            raise ValueError(
                f"--logger {name}: {name} is not installed; it comes with the extra `{name}`: "
                f"pip install -e '.[{name}]'"
            )


def suite(options: argparse.Namespace) -> int:
    """Run what is not finished of a suite, show what came out."""
    from recon3d.bench.suite import SUITES, is_grid

    path = options.leaderboard.parent / SUITES / f"{options.name}.yaml"
    grid = is_grid(path)
    foreign = ("rows",) if grid else ("methods", "data", "logger")
    wrong = [f"--{name}" for name in foreign if getattr(options, name, None)]
    if not grid and options.devices != "1":
        wrong.append("--devices")
    if wrong:
        raise ValueError(f"{path} is {'a grid' if grid else 'an experiment'} and has no {', '.join(wrong)}.")
    return _grid(options, path) if grid else _experiment(options, path)


def _grid(options: argparse.Namespace, path: Path) -> int:
    """Run what is not finished of a grid, render the pages, say what became of every cell."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from recon3d.bench.grid_runner import cells, run_grid
    from recon3d.bench.standing_table import duration
    from recon3d.bench.suite import read_grid
    from recon3d.bench.table import HIDDEN_PRESETS, write_all

    _check_loggers(options.logger)
    grid = read_grid(path)
    chosen = cells(
        grid,
        options.leaderboard,
        options.runs,
        options.configs,
        options.methods,
        options.data,
        options.seeds,
        ("--trainer.devices", options.devices),
        tuple(dict.fromkeys(options.logger)),
    )
    outcomes = run_grid(chosen, options.force)
    if grid.preset not in HIDDEN_PRESETS:
        write_all(options.leaderboard)
    counts = {state: sum(one.state == state for one in outcomes) for state in ("done", "finished", "failed")}
    table = Table(title=grid.title, caption=", ".join(f"{count} {state}" for state, count in counts.items()))
    for title in ("data", "method", "seed", "outcome", "time", "error"):
        table.add_column(title)
    for one in outcomes:
        style = "red" if one.state == "failed" else ""
        time = duration(one.seconds) if one.state != "finished" else ""
        texts = (one.cell.data, one.cell.method, str(one.cell.seed), one.state, time, one.error)
        table.add_row(*(Text(text, style=style) for text in texts))
    Console().print(table)
    return 1 if counts["failed"] else 0


def _experiment(options: argparse.Namespace, path: Path) -> int:
    """Run what is not finished of rows times seeds, show their table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from recon3d.bench.suite import read, records
    from recon3d.bench.suite_page import results
    from recon3d.bench.suite_runner import run_suite

    suite = read(path)
    folder, runs = options.leaderboard / "suites" / options.name, options.runs / "suites" / options.name
    done = run_suite(suite, folder, runs, options.configs, options.rows, options.seeds, options.force)
    header, lines = results(suite, records(folder, suite))
    table = Table(title=suite.title)
    for title in header:
        table.add_column(Text(title))
    for line in lines:
        table.add_row(*(Text(cell.plain, style="bold" if cell.mark == "best" else "") for cell in line))
    console = Console()
    console.print(table)
    failed = {key: record for key, record in done.items() if record.error}
    for (name, seed), record in failed.items():
        console.print(Text(f"row {name}, seed {seed} failed: {record.error}", style="red"), soft_wrap=True)
    return 1 if failed else 0


def leaderboard(options: argparse.Namespace) -> int:
    """Write the pages of the leaderboard, or find stale ones."""
    from recon3d.bench.table import check, write_all

    if not options.check:
        write_all(options.leaderboard)
        return 0
    stale = check(options.leaderboard)
    for path in stale:
        logging.getLogger("recon3d").error("stale: %s; run `make leaderboard` and commit", path)
    return 1 if stale else 0


def gallery(options: argparse.Namespace) -> int:
    """Write the web page of the meshes."""
    from recon3d.apps.gallery.command import main

    return main(
        options.out,
        data=options.data,
        methods=options.methods,
        preset=options.preset,
        n_samples=options.samples,
        configs=options.configs,
        leaderboard=options.leaderboard,
        runs=options.runs,
    )


def dashboard(options: argparse.Namespace) -> int:
    """Make a workspace or a report on W&B, or write down what it would be."""
    from recon3d.bench.dashboard import main

    return main(options.kind, options.entity, options.project, options.leaderboard, options.out)


def doctor(options: argparse.Namespace) -> int:
    """Say what works here."""
    from recon3d.apps.doctor.command import main

    return main(options.json)


def data_render(options: argparse.Namespace) -> int:
    """Render meshes to a data set."""
    from recon3d.data.rendering import render_dataset

    report = render_dataset(
        options.source,
        options.out,
        layout=options.layout,
        views=options.views,
        image_size=options.image_size,
        categories=options.categories,
        split_file=options.split_file,
        scale=options.scale,
        n_points=options.points,
        name=options.name,
        workers=options.workers,
    )
    logging.getLogger("recon3d").info("%s", report)
    return 0


def data_check(options: argparse.Namespace) -> int:
    """Check a data set."""
    from recon3d.data.checking import main as check

    return check(options.target, options.out)


def data_open_shapes(options: argparse.Namespace) -> int:
    """Build the open meshes; its arguments are its own."""
    from recon3d.data.open_shapes.__main__ import main as build

    return build(options.overrides)


def predict(options: argparse.Namespace) -> int:
    """Make meshes of photographs."""
    from recon3d.apps.predict import main as predict

    return predict(
        options.images, options.checkpoint, options.out, options.format, options.mask, options.remove_background
    )


def edit_style(options: argparse.Namespace) -> int:
    """Give a mesh the style of an image."""
    from recon3d.apps.editing.command import edit_style

    weights = (options.content_weight, options.style_weight, options.tv_weight)
    return edit_style(_edit_request(options), options.image, *weights)


def edit_dream(options: argparse.Namespace) -> int:
    """Let a mesh become what a network sees in it."""
    from recon3d.apps.editing.command import edit_dream

    return edit_dream(_edit_request(options), options.edge_weight)


def _edit_request(options: argparse.Namespace) -> Request:
    from recon3d.apps.editing.command import Request
    from recon3d.apps.editing.optimise import Schedule

    schedule = Schedule(
        steps=options.steps,
        lr_vertices=options.lr_vertices,
        lr_textures=options.lr_textures,
        batch=options.batch,
        image_size=options.image_size,
        texture_size=options.texture_size,
        seed=options.seed,
        snapshot_every=options.snapshot_every,
    )
    return Request(
        mesh=options.mesh,
        out=options.out,
        schedule=schedule,
        weights=options.weights,
        random_features=options.random_features,
        device=options.device,
        format=options.format,
    )


def kernels(options: argparse.Namespace) -> int:
    """List kernels and backends."""
    from rich.console import Console
    from rich.table import Table

    from recon3d.kernels.dispatch import environment_backend
    from recon3d.kernels.listing import backends

    table = Table("kernel", "backends by device, the default first", title="Kernels")
    for name, devices in backends().items():
        table.add_row(name, "\n".join(f"{device}: {', '.join(names)}" for device, names in devices.items()))
    console = Console()
    console.print(table)
    console.print(f"RECON3D_BACKEND asks for: {environment_backend() or 'nothing, the default is taken'}")
    return 0
