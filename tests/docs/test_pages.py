"""The documentation without running it: every command parses, every name in it exists, every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from recon3d import cli
from recon3d.bench.cell import Cell, ReconCLI, own_arguments
from tests.docs.commands import NOT_RUN, ROOT, Command, commands, documents, shortened

MAKEFILE = (ROOT / "Makefile").read_text()
COMMANDS = commands()
LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)\)")
TOOLS = {"make", "recon3d", "python", "bash", "git", "sudo", "wandb", "pip", "pre-commit", "srun", "sbatch", "torchrun"}
TOOLS |= {"curl", "docker", "tensorboard", "export", "nvidia-smi", "cd", "xdg-open"}


class ParsedCLI(ReconCLI):
    """Reads its arguments, makes and runs nothing."""

    def instantiate_classes(self) -> None: ...

    def _run_subcommand(self, subcommand: str) -> None: ...


def identify(command: Command) -> str:
    return f"{command.place} {command.text}"


@pytest.mark.parametrize("command", COMMANDS, ids=identify)
def test_the_command_parses(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = command.words
    if words and words[0] in ("srun", "torchrun"):  # what they start is a command, too
        starts = [index for index, word in enumerate(words) if word.endswith(("recon3d", "make"))]
        words = [words[starts[0]].removeprefix(".venv/bin/"), *words[starts[0] + 1 :]] if starts else words
    assert words and words[0] in TOOLS, f"unknown program {words[:1]}"
    if words[0] == "make":
        check_make(words[1:])
    elif words[0] == "recon3d":
        check_recon3d(words[1:])


def check_make(words: list[str]) -> None:
    given = dict(word.split("=", 1) for word in words if "=" in word)
    targets = [word for word in words if "=" not in word]
    assert targets
    for target in targets:
        assert re.search(rf"^{re.escape(target)}:", MAKEFILE, re.MULTILINE), f"no target {target}"
    for name in given:
        assert f"$({name})" in MAKEFILE or f",$({name}))" in MAKEFILE, f"the Makefile knows no {name}"
    arguments = shlex.split(given.get("ARGS", ""))
    if targets == ["bench"]:
        check_cell(
            given.get("METHOD", "softras"), given.get("DATA", "synthetic"), given.get("PRESET", "quick"), arguments
        )
    elif targets == ["suite"]:
        assert (ROOT / "benchmarks/suites" / f"{given.get('SUITE', 'quick')}.yaml").is_file()
        check_recon3d(["suite", given.get("SUITE", "quick"), *arguments])
    elif targets[0] in ("gallery", "dashboard"):
        check_recon3d([targets[0], *arguments])


def check_recon3d(words: list[str]) -> None:
    if words[0] in cli.LIGHTNING_COMMANDS:
        with own_arguments():
            try:
                ParsedCLI(args=words, save_config_callback=None)
            except SystemExit as error:  # the end of --print_config and --help
                assert not error.code
        return
    if "--help" in words:
        words = [word for word in words if word != "--help"]
        assert words == [] or words[0] in cli._parser().format_help()
        return
    options, rest = cli._parser().parse_known_args(words)
    if words[0] == "bench":
        check_cell(options.method, options.data, options.preset, rest)
    elif words[:2] != ["data", "open-shapes"]:
        assert not rest, f"unknown arguments {rest}"


def check_cell(method: str, data: str, preset: str, arguments: list[str]) -> None:
    cell = Cell(method, data, preset, overrides=tuple(arguments))  # refuses names that are no yaml
    if arguments:
        with own_arguments():
            ParsedCLI(args=["fit", *cell.arguments()], save_config_callback=None)


def test_there_are_commands_in_all_kinds_of_pages() -> None:
    places = {command.place.partition(":")[0] for command in COMMANDS}
    assert {"README.md", "docs/editing.md", "docs/methods/cmr.md"} <= places
    assert len(COMMANDS) > 30


def test_nothing_is_excused_that_no_page_says() -> None:
    reasons = {command.why_not_run for command in COMMANDS}
    assert len(NOT_RUN) < 30 and len(reasons) > 1
    assert sum(command.why_not_run is None for command in COMMANDS) > 0.6 * len(COMMANDS)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("make bench METHOD=dpc PRESET=paper DEVICES=8", "make bench METHOD=dpc DEVICES=2 PRESET=smoke FORCE=1"),
        (
            "make bench METHOD=dpc ARGS='--model.init_args.lr 1'",
            "make bench METHOD=dpc PRESET=smoke FORCE=1 ARGS='--model.init_args.lr 1 --runs runs/options'",
        ),
        ("make suite SUITE=quick FORCE=1 ARGS='--seeds 0 1'", "make suite FORCE=1 SUITE=quick_smoke"),
        ("make gallery ARGS='--samples 30'", "make gallery ARGS='--preset smoke --samples 2'"),
        ("make dashboard", "make dashboard ARGS='--out dashboard.json'"),
        (
            "recon3d fit --config a.yaml --config b.yaml --trainer.max_epochs 10 --trainer.devices 4",
            "recon3d fit --config a.yaml --config b.yaml --config configs/presets/smoke.yaml --trainer.max_epochs 1 "
            "--trainer.devices 2",
        ),
        (
            "recon3d predict a.png --checkpoint runs/synthetic/quick/softras--seed0-*/last.ckpt --out o",
            "recon3d predict a.png --checkpoint runs/synthetic/smoke/softras--seed0-*/last.ckpt --out o",
        ),
        (
            ".venv/bin/recon3d edit dream chair.obj --out e --weights g.pth --steps 9",
            "recon3d edit dream chair.obj --out e --random-features --steps 2 --image-size 32",
        ),
        ("make doctor", "make doctor"),
    ],
)  # fmt: skip
def test_the_short_form(text: str, short: str) -> None:
    assert shortened(text) == short


def test_commands_are_found_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "# x\n\n```bash\nmake a  # why\nmake b \\\n  C='d # e'\n# f\nmake g\n```\n```text\nno\n```\n"
    )
    (tmp_path / "CONTRIBUTING.md").write_text("```bash\nmake a\n```\n")
    found = [(command.text, command.place) for command in commands(tmp_path)]
    assert found == [("make a", "README.md:4"), ("make b  C='d # e'", "README.md:5"), ("make g", "README.md:8")]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "") for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower().strip()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`]*`|\$[^$\n]+\$", "", text)
    for target in LINK.findall(text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}"


def test_every_page_is_reached_from_the_index() -> None:
    reached: set[Path] = set()
    open_pages = [ROOT / "docs/README.md"]
    while open_pages:
        page = open_pages.pop()
        reached.add(page)
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            file = (page.parent / target.partition("#")[0]).resolve()
            if file.suffix == ".md" and file.is_file() and file not in reached and ROOT / "docs" in file.parents:
                open_pages.append(file)
    assert set((ROOT / "docs").rglob("*.md")) - reached == set()
