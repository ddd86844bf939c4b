"""The README's example of a method is a method: a newcomer who copies it can train it."""

import re
from pathlib import Path

import torch

from recon3d.geometry.cameras import nmr_cameras
from recon3d.structures import ViewBatch

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_example_method_learns() -> None:
    source = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert source is not None
    namespace: dict[str, object] = {"__name__": "example"}
    exec(compile(source[1], "README.md", "exec"), namespace)
    torch.manual_seed(0)
    method = namespace["NearestSphere"]()  # type: ignore[operator]
    axis = torch.linspace(-1, 1, 64)
    disc = (axis[:, None] ** 2 + axis[None] ** 2 < 0.6**2).float().expand(2, 1, 1, 64, 64)
    batch = ViewBatch(
        images=disc.expand(-1, -1, 3, -1, -1),
        masks=disc,
        sample_id=("a", "b"),
        category=("x", "x"),
        cameras=nmr_cameras()[torch.zeros(2, 1, dtype=torch.long)],
    )
    optimizer = torch.optim.Adam(method.parameters(), lr=0.1)
    losses = []
    for _ in range(15):
        loss = method.losses(batch, method(batch.inputs(method.in_channels)))["iou"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_the_commands_of_the_readme_exist() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for target in set(re.findall(r"`?make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
