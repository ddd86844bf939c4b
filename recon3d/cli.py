"""The command line: `recon3d fit | validate | test` (LightningCLI) and the commands around them, in `recon3d.commands`.

What needs torch is imported inside functions, so that `recon3d --help` does not wait for it.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from recon3d import commands

LIGHTNING_COMMANDS = ("fit", "validate", "test")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 when it did what it was asked to."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _set_up_logging()
    if arguments and arguments[0] in LIGHTNING_COMMANDS:
        from recon3d.bench.cell import ReconCLI, own_arguments

        with own_arguments(arguments):
            ReconCLI()
        return 0
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.run not in (commands.bench, commands.data_open_shapes):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    options.overrides = rest
    try:
        return int(options.run(options))
    except (ValueError, OSError, RuntimeError) as error:
        # Errors of ours say what to do; a stack trace would hide that. `--debug` shows it.
        if options.debug:
            raise
        logging.getLogger("recon3d").error("error: %s", error)
        return 1
    except KeyboardInterrupt:
        logging.getLogger("recon3d").error("stopped by Ctrl-C")
        return 128 + signal.SIGINT


def _set_up_logging() -> None:
    """Our messages to standard error."""
    logger = logging.getLogger("recon3d")
    handler = logging.StreamHandler()  # bound to the standard error of now; a second call of `main` may have another
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.name = logger.name
    for old in [one for one in logger.handlers if one.name == logger.name]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="recon3d",
        allow_abbrev=False,
        description="Single-view 3D reconstruction: train, compare, use.",
        epilog="recon3d fit | validate | test: LightningCLI; recon3d fit --help lists every option.",
    )
    parser.add_argument("--debug", action="store_true", help="show the stack trace of an error")
    subparsers = parser.add_subparsers(dest="command", required=True)

    bench = subparsers.add_parser(
        "bench", help="run one cell of the benchmark: fit, test, Record, table", allow_abbrev=False
    )
    bench.add_argument("--method", required=True, help="stem of configs/methods/<method>.yaml")
    bench.add_argument("--data", default="synthetic", help="stem of configs/data/<data>.yaml")
    bench.add_argument("--preset", default="quick", help="stem of configs/presets/<preset>.yaml")
    bench.add_argument("--seed", type=int, default=0)
    bench.add_argument("--devices", default="1", help="number of devices")
    _add_logger_options(bench)
    bench.add_argument("--force", action="store_true", help="run again what is finished")
    bench.add_argument("--alone", action="store_true", help="without the baselines and the table")
    bench.add_argument("--configs", type=Path, default=Path("configs"))
    bench.add_argument("--leaderboard", type=Path, default=Path("leaderboard"))
    bench.add_argument("--results", type=Path, help="folder of the Records (default: the leaderboard's)")
    bench.add_argument("--runs", type=Path, default=Path("runs"))
    bench.epilog = (
        "Further arguments go to LightningCLI, such as --trainer.max_epochs 2 or --model.init_args.lr 1e-3; the Record "
        "of such a run goes below runs/with-<hash>/ and not into the leaderboard."
    )
    bench.set_defaults(run=commands.bench)

    suite = subparsers.add_parser(
        "suite", help="run what is not finished of a suite: methods or rows, data sets, seeds", allow_abbrev=False
    )
    suite.add_argument("name", help="stem of benchmarks/suites/<name>.yaml")
    suite.add_argument("--rows", nargs="+", metavar="ROW", help="of an experiment: names of rows; default: all")
    suite.add_argument("--methods", nargs="+", metavar="METHOD", help="of a grid: some of its methods; default: all")
    suite.add_argument("--data", nargs="+", metavar="DATA", help="of a grid: some of its data sets; default: all")
    suite.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="some of the suite's; default: all")
    suite.add_argument("--devices", default="1", help="of a grid: number of devices of every run")
    _add_logger_options(suite, "of a grid: ")
    suite.add_argument("--force", action="store_true", help="run again what is finished")
    suite.add_argument("--configs", type=Path, default=Path("configs"))
    suite.add_argument("--leaderboard", type=Path, default=Path("leaderboard"), help="benchmarks/ is beside it")
    suite.add_argument("--runs", type=Path, default=Path("runs"))
    suite.set_defaults(run=commands.suite)

    board = subparsers.add_parser("leaderboard", help="render the pages of the leaderboard from its Records")
    board.add_argument("--check", action="store_true", help="write nothing, fail when a page is stale")
    board.add_argument("--leaderboard", type=Path, default=Path("leaderboard"))
    board.set_defaults(run=commands.leaderboard)

    data = subparsers.add_parser("data", help="make and check data sets").add_subparsers(dest="data", required=True)
    render = data.add_parser("render", help="meshes to the NMR or the DPC layout: images, voxels, points")
    render.add_argument("source", type=Path, help="<category>/<id>/model.*, or ShapeNetCore v1 or v2")
    render.add_argument("--out", type=Path, required=True)
    render.add_argument("--layout", choices=("nmr", "dpc"), default="nmr")
    render.add_argument("--views", type=int, help="nmr: 24 (default) or 120; dpc: random directions (default 5)")
    render.add_argument("--image-size", type=int, help="pixels (default: nmr 64, dpc 128)")
    render.add_argument("--categories", nargs="+")
    render.add_argument(
        "--scale", choices=("longest_side", "diagonal"), help="what is 1 (default: nmr longest_side, dpc diagonal)"
    )
    render.add_argument("--points", type=int, default=10_000, help="surface samples of an object")
    render.add_argument("--name", help="of the data set, in Records; default: the folder's")
    render.add_argument("--split-file", type=Path, help="CSV with id and split; found by itself in the source")
    render.add_argument("--workers", type=int)
    render.set_defaults(run=commands.data_render)
    check = data.add_parser("check", help="counts, shapes, missing files, and whether the cameras fit the images")
    check.add_argument("target", help="name of a data set below RECON3D_DATA, or its folder")
    check.add_argument("--out", type=Path, help="where the contact sheet goes")
    check.set_defaults(run=commands.data_check)
    shapes = data.add_parser("open-shapes", help="build 449 open meshes from Debian packages", add_help=False)
    shapes.set_defaults(run=commands.data_open_shapes)

    predict = subparsers.add_parser("predict", help="photographs to meshes")
    predict.add_argument("images", type=Path, nargs="+")
    predict.add_argument("--checkpoint", type=Path, required=True)
    predict.add_argument("--out", type=Path, required=True)
    predict.add_argument("--format", choices=("glb", "obj", "ply"), default="glb")
    predict.add_argument("--mask", type=Path, nargs="+", help="masks of the images, in their order")
    predict.add_argument(
        "--remove-background", type=Path, metavar="MODEL", help=".onnx of the U2-Net family, for images without a mask"
    )
    predict.set_defaults(run=commands.predict)

    edit = subparsers.add_parser("edit", help="change shape and texture of a mesh through images of it")
    edits = edit.add_subparsers(dest="edit", required=True)
    style = edits.add_parser("style", help="give a mesh the style of an image", allow_abbrev=False)
    _add_edit_options(style, steps=5000, lr_vertices=2.5e-4, lr_textures=5e-2)
    style.add_argument("--image", type=Path, required=True, help="the style; stretched to a square")
    style.add_argument("--content-weight", type=float, default=0.2, help="against moving vertices (default 0.2)")
    style.add_argument("--style-weight", type=float, default=1.0, help="for the style (default 1)")
    style.add_argument("--tv-weight", type=float, default=1e-4, help="against noise (default 1e-4)")
    style.set_defaults(run=commands.edit_style)
    dream = edits.add_parser("dream", help="let a mesh become what a network sees in it", allow_abbrev=False)
    _add_edit_options(dream, steps=1000, lr_vertices=5e-5, lr_textures=1e-2)
    dream.add_argument("--edge-weight", type=float, default=1e-4, help="for edges of one length (default 1e-4)")
    dream.set_defaults(run=commands.edit_dream)

    gallery = subparsers.add_parser("gallery", help="a web page of every method's meshes, side by side")
    gallery.add_argument("--out", type=Path, default=Path("gallery"), help="folder of the page")
    gallery.add_argument("--data", nargs="+", help="some data sets; default: all with runs")
    gallery.add_argument("--methods", nargs="+", help="some methods; default: all with runs")
    gallery.add_argument("--preset", default="quick")
    gallery.add_argument("--samples", type=int, default=30, help="of each data set (default 30)")
    gallery.add_argument("--configs", type=Path, default=Path("configs"))
    gallery.add_argument("--leaderboard", type=Path, default=Path("leaderboard"))
    gallery.add_argument("--runs", type=Path, default=Path("runs"))
    gallery.set_defaults(run=commands.gallery)

    dashboard = subparsers.add_parser("dashboard", help="compare runs on W&B: a workspace or a report")
    dashboard.add_argument("--kind", choices=("workspace", "report"), default="workspace")
    dashboard.add_argument("--entity", help="W&B user or team; default: the one that is logged in")
    dashboard.add_argument("--project", default="recon3d")
    dashboard.add_argument("--leaderboard", type=Path, default=Path("leaderboard"))
    dashboard.add_argument("--out", type=Path, help="write the specification to this JSON file instead of to W&B")
    dashboard.set_defaults(run=commands.dashboard)

    doctor = subparsers.add_parser("doctor", help="what works here, and what to do about the rest")
    doctor.add_argument("--json", action="store_true", help="a JSON list in place of tables")
    doctor.set_defaults(run=commands.doctor)

    kernels = subparsers.add_parser("kernels", help="which kernels and backends there are")
    kernels.set_defaults(run=commands.kernels)
    return parser


def _add_logger_options(parser: argparse.ArgumentParser, scope: str = "") -> None:
    """`logger`: a list of names, in the order given."""
    add = partial(parser.add_argument, dest="logger", default=[])
    add("--logger", nargs="+", action="extend", metavar="NAME", help=f"{scope}stems of configs/logger/<name>.yaml")
    add("--wandb", action="append_const", const="wandb", help=f"{scope}--logger wandb (offline without a key)")


def _add_edit_options(parser: argparse.ArgumentParser, steps: int, lr_vertices: float, lr_textures: float) -> None:
    parser.add_argument("mesh", type=Path, help="OBJ, GLB or PLY, +Y up")
    parser.add_argument("--out", type=Path, required=True, help="folder; a killed edit goes on from its snapshot there")
    parser.add_argument("--weights", type=Path, help="of the feature network, a torchvision state dict")
    parser.add_argument("--random-features", action="store_true", help="do without weights, for trying")
    parser.add_argument("--format", choices=("glb", "obj"), default="glb")
    parser.add_argument("--steps", type=int, default=steps, help=f"updates (default {steps})")
    parser.add_argument("--batch", type=int, default=4, help="views an update (default 4)")
    parser.add_argument("--image-size", type=int, default=224, help="pixels; rendered at twice that (default 224)")
    parser.add_argument("--texture-size", type=int, default=4, help="T of the T^3 colours of a face (default 4)")
    parser.add_argument("--lr-vertices", type=float, default=lr_vertices, help=f"Adam (default {lr_vertices:g})")
    parser.add_argument("--lr-textures", type=float, default=lr_textures, help=f"Adam (default {lr_textures:g})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--snapshot-every", type=int, default=20, help="updates (default 20)")
    parser.add_argument("--device", help="cpu or cuda; default: a GPU if there is one")
