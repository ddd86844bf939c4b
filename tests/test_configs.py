import inspect
from pathlib import Path

import pytest
import yaml

from recon3d.bench.runner import Cell, ReconCLI, own_arguments
from recon3d.methods.softras import SoftRasMesh

CONFIGS = Path(__file__).parents[1] / "configs"
METHODS = sorted(path.stem for path in (CONFIGS / "methods").glob("*.yaml"))
DATA = sorted(path.stem for path in (CONFIGS / "data").glob("*.yaml"))
PRESETS = sorted(path.stem for path in (CONFIGS / "presets").glob("*.yaml"))

# Liu et al. 2019, section 5.1; batch and code sizes also from the authors' code.
SOFTRAS_PAPER = {
    "sigma": 3e-5,
    "sigma_schedule": "constant",
    "iou_weight": 1.0,
    "laplacian_weight": 0.01,
    "flatten_weight": 0.001,
    "color": False,
    "image_size": 64,
    "width": 64,
    "hidden": 1024,
    "code": 512,
    "lr": 1e-4,
    "schedule": "constant",
}


def resolved(method: str, data: str, preset: str):
    with own_arguments():
        arguments = Cell(method, data, preset, configs=CONFIGS).arguments()
        return ReconCLI(args=arguments, run=False, save_config_callback=None)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_file_is_plain_yaml_that_says_what_it_is(path):
    text = path.read_text()
    assert isinstance(yaml.safe_load(text), dict)
    assert text.startswith("# ")


def numbers_in_text(value) -> list[str]:
    """YAML 1.1 reads 1e-4 as a string; such a slip would reach a float argument only by luck."""
    if isinstance(value, dict):
        return [found for item in value.values() for found in numbers_in_text(item)]
    if isinstance(value, list):
        return [found for item in value for found in numbers_in_text(item)]
    try:
        float(value)
    except (TypeError, ValueError):
        return []
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_numbers_are_numbers(path):
    assert numbers_in_text(yaml.safe_load(path.read_text())) == []


def test_softras_has_the_numbers_of_the_paper():
    written = yaml.safe_load((CONFIGS / "methods/softras.yaml").read_text())["model"]["init_args"]
    assert written == SOFTRAS_PAPER
    defaults = {name: value.default for name, value in inspect.signature(SoftRasMesh).parameters.items()}
    assert {name: defaults[name] for name in SOFTRAS_PAPER} == SOFTRAS_PAPER


def test_softras_trains_as_in_the_paper_with_the_paper_preset():
    cli = resolved("softras", "shapenet", "paper")
    model = cli.config.model.init_args
    assert {name: model[name] for name in SOFTRAS_PAPER} == SOFTRAS_PAPER
    data, trainer = cli.config.data.init_args, cli.config.trainer
    assert data.batch_size == 64 and data.balanced and cli.datamodule.train_views == 2
    assert data.train_steps_per_epoch * trainer.max_epochs == 250_000
    assert data.test_views == 24 and len(data.categories) == 13


@pytest.mark.parametrize("preset", PRESETS)
def test_every_method_builds_with_every_preset(preset):
    for method in METHODS:
        if (method, preset) != ("softras", "paper"):  # built above
            cli = resolved(method, "shapenet", preset)
            assert cli.datamodule.train_views == cli.model.min_views


@pytest.mark.parametrize("data", DATA)
def test_every_data_set_builds(data):
    cli = resolved("template", data, "smoke")
    assert cli.datamodule.name == data  # Records and folders go by the same name
    assert cli.datamodule.batch_size == 4
    assert cli.datamodule.seed == 0


def test_every_part_of_a_preset_names_a_method_or_a_data_set():
    named = {path.parent.name: path.stem for path in (CONFIGS / "presets").glob("*/*.yaml")}
    assert set(named) <= set(PRESETS)
    variants = {path.stem for path in (CONFIGS / "variants").glob("*.yaml")}
    assert {path.stem for path in (CONFIGS / "presets").glob("*/*.yaml")} <= variants | set(METHODS) | set(DATA)
    assert {name.partition("-")[0] for name in variants} <= set(METHODS)
