"""The commands of the documentation: where they stand, and the shorter form in which a test runs them.

Every line of a fence ```bash is a command, a backslash at its end continues it. `shortened` makes these changes and no
others, so that all commands together take minutes:

- programs are found in the environment: no `.venv/bin/`;
- a bench has the preset `smoke`, at most 2 devices, at most 1 epoch, and runs though another page ran its cell before;
  run folders named in a command are those of `smoke`; on the few files of a licensed set it has 1 device, as their
  val split is of a single picture;
- a bench with options of its own has its run folders apart, so that the others' checkpoints are one each;
- `fit` gets configs/presets/smoke.yaml after its files, and at most 1 epoch;
- a suite is its smoke form (`<name>_smoke`, written by the fixture: the same suite with preset smoke and one row);
- an edit makes 2 updates of 32 pixels with random features, in place of weights of half a gigabyte;
- a dashboard is written to a file, in place of to W&B; the gallery is of preset smoke with 2 samples.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")

# What a test cannot run, by the start of the command, with the reason. The others are all run.
NOT_RUN = {
    "make test": "runs the tests, this one among them",
    "make test-slow": "the same",
    "make lint": "CI runs it, on the checkout",
    "make kernels": "measures for half an hour",
    "make clean": "would delete the environment that the test runs in",
    "make constraints": "asks the package index",
    "bash .ci/run": "runs the tests",
    "git clone": "network",
    "cd recon3d": "follows git clone",
    "sudo apt-get": "changes the machine",
    "pip install": "network",
    "pre-commit": "changes the checkout",
    "wandb login": "asks for a key",
    "wandb sync": "sends runs away",
    "export": "nothing to run by itself",
    "docker": "another machine",
    "nvidia-smi": "needs an NVIDIA driver",
    "srun": "needs Slurm",
    "sbatch": "needs Slurm",
    "torchrun": "needs other machines",
    "curl": "network",
    "tensorboard": "a server, which does not end",
    "http.server": "a server, which does not end",
    "xdg-open": "a browser",
    "recon3d data open-shapes": "fetches 0.9 GB",
    "recon3d predict --remove-background": "the extra `background` is not part of the tests' environment",
}


@dataclass(frozen=True)
class Command:
    """A command and where it stands first.

    Attributes:
        text: without comment, on one line.
        place: file and line.
    """

    text: str
    place: str

    @property
    def words(self) -> list[str]:
        """Its words, without variables that are set before it and without the folder of the environment."""
        words = shlex.split(self.text)
        while words and ASSIGNMENT.match(words[0]):
            words = words[1:]
        return [words[0].removeprefix(".venv/bin/"), *words[1:]] if words else []

    @property
    def why_not_run(self) -> str | None:
        """The reason of `NOT_RUN`, or None."""
        words = [word for word in self.words if not ASSIGNMENT.match(word)]
        if words[:2] == ["python", "-m"]:
            words = words[2:]
        for start, reason in NOT_RUN.items():
            first = start.split()
            if first[-1].startswith("--"):
                if words[: len(first) - 1] == first[:-1] and first[-1] in words:
                    return reason
            elif words[: len(first)] == first:
                return reason
        return None


def documents(root: Path = ROOT) -> list[Path]:
    """The pages whose commands count."""
    return [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").rglob("*.md"))]


def commands(root: Path = ROOT) -> list[Command]:
    """Every command of the documents, the same text once."""
    found: dict[str, Command] = {}
    for path in documents(root):
        text = path.read_text(encoding="utf-8")
        for fence in FENCE.finditer(text):
            line = text[: fence.start(1)].count("\n") + 1
            for step in re.sub(r"\\\n\s*", "\0", fence[1]).split("\n"):
                continued = step.count("\0")
                command = _without_comment(step.replace("\0", " "))
                if command:
                    found.setdefault(command, Command(command, f"{path.relative_to(root)}:{line}"))
                line += 1 + continued
    return list(found.values())


def _without_comment(line: str) -> str:
    """The line up to a # that begins a word outside quotes."""
    quote = ""
    for index, sign in enumerate(line):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign == "#" and (index == 0 or line[index - 1].isspace()):
            return line[:index].strip()
    return line.strip()


def shortened(text: str) -> str:
    """The form of a command that is run; see the module docstring."""
    text = re.sub(r"(^|\s)\.venv/bin/", r"\1", text)
    text = re.sub(r"(runs/\w+)/(quick|paper)/", r"\1/smoke/", text)
    text = re.sub(r"\bDEVICES=(\d+)", lambda m: f"DEVICES={min(int(m[1]), 2)}", text)
    if "DATA=cub" in text or "DATA=pascal3d" in text:
        text = re.sub(r" DEVICES=\d+", "", text)
    text = re.sub(r"--(trainer\.)?devices[ =](\d+)", lambda m: f"--{m[1] or ''}devices {min(int(m[2]), 2)}", text)
    text = re.sub(r"--trainer\.num_nodes[ =]\d+", "--trainer.num_nodes 1", text)
    text = re.sub(r"--trainer\.max_epochs[ =]\d+", "--trainer.max_epochs 1", text)
    words = Command(text, "").words
    match words[:2]:
        case ["make", "bench"]:
            text = re.sub(r" (PRESET=\w+|FORCE=1)", "", text) + " PRESET=smoke FORCE=1"
            if " ARGS=" in text:
                text = _with_arguments(text, r"^$", " --runs runs/options")
        case ["recon3d", "bench"]:
            text = re.sub(r" (--preset[ =]\w+|--force)\b", "", text) + " --preset smoke --force"
            if re.search(r"--(trainer|model|data)\.", text):
                text += " --runs runs/options"
        case ["make", "suite"]:
            name = re.search(r" SUITE=(\w+)", text)
            text = re.sub(r" (SUITE|ARGS)=('[^']*'|\"[^\"]*\"|\S+)", "", text)
            text += f" SUITE={name[1] if name else 'quick'}_smoke"
        case ["recon3d", "fit"]:
            configs = list(re.finditer(r"--config[ =]\S+", text))
            text = text[: configs[-1].end()] + " --config configs/presets/smoke.yaml" + text[configs[-1].end() :]
        case ["recon3d", "edit"]:
            text = re.sub(r" --weights[ =]\S+", "", re.sub(r" --random-features", "", text))
            text = re.sub(r" --(steps|image-size)[ =]\d+", "", text) + " --random-features --steps 2 --image-size 32"
        case ["make", "gallery"]:
            text = _with_arguments(text, r" --(preset|samples) \w+", " --preset smoke --samples 2")
        case ["recon3d", "gallery"]:
            text = re.sub(r" --(preset|samples) \w+", "", text) + " --preset smoke --samples 2"
        case ["make", "dashboard"] if "--out" not in text:
            text = _with_arguments(text, r"^$", " --out dashboard.json")
        case ["recon3d", "dashboard"] if "--out" not in text:
            text += " --out dashboard.json"
    return text


def _with_arguments(text: str, leave_out: str, add: str) -> str:
    """A make command with other words in its ARGS."""
    given = re.search(r" ARGS=('([^']*)'|\"([^\"]*)\"|(\S+))", text)
    words = re.sub(leave_out, "", " " + (given[2] or given[3] or given[4])) if given else ""
    rest = text.replace(given[0], "") if given else text
    return f"{rest} ARGS='{(words + add).strip()}'"
