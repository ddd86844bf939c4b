"""`read_photo` for methods trained on photographs, whose background stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from recon3d.apps.photo import Photo, read_photo

S = 64
BOX = (100, 50, 180, 90)  # left, top, right, bottom of the object, the last two outside


def ramp(width: int = 250, height: int = 200) -> Image.Image:
    """A picture that says where it is: red is the column, green the row."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return Image.fromarray(np.stack([columns, rows, np.full_like(rows, 7)], axis=-1))


def mask_of(picture: Image.Image, box: tuple[int, int, int, int] = BOX) -> Image.Image:
    mask = Image.new("L", picture.size)
    mask.paste(255, box)
    return mask


def save(image: Image.Image, path: Path) -> Path:
    image.save(path)
    return path


def photograph(folder: Path, picture: Image.Image, mask: Image.Image, size: int = S) -> Photo:
    return read_photo(save(picture, folder / "photo.png"), size, save(mask, folder / "mask.png"), background=True)


def places(image: Tensor) -> tuple[Tensor, Tensor]:
    """Column and row of the picture, in its pixels, that each pixel of a crop of `ramp` shows."""
    return image[0] * 255, image[1] * 255


# The box is 80 x 40: 5 % are 4 and 2 pixels a side, so columns 96 to 183 and rows 48 to 91; rows grow by 22 at each end
# to the square of 88.
LEFT, TOP, SIDE = 96, 26, 88


@pytest.mark.parametrize("size", [S, 40])  # 88 / 40 is more than 2: the picture is first made smaller
def test_the_frame_is_the_grown_and_squared_box(tmp_path: Path, size: int) -> None:
    picture = ramp()
    photo = photograph(tmp_path, picture, mask_of(picture), size)
    assert photo.background and photo.mask is not None
    assert photo.image.shape == (3, size, size) and photo.mask.shape == (1, size, size)
    centres = (torch.arange(size) + 0.5) * SIDE / size - 0.5
    columns, rows = places(photo.image)
    assert (columns - (LEFT + centres)).abs().max() < 0.6
    assert (rows - (TOP + centres)[:, None]).abs().max() < 0.6
    inside = (
        (columns > BOX[0]) & (columns < BOX[2] - 1) & (rows > BOX[1]) & (rows < BOX[3] - 1)
    )  # of the mask, by what the picture shows
    assert (photo.mask[0][inside] > 0.45).all()
    assert photo.mask.mean().item() == pytest.approx(80 * 40 / SIDE**2, rel=0.02)


def test_a_picture_without_a_mask_is_taken_whole_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(ramp(), tmp_path / "bare.png")
    photo = read_photo(path, S, background=True)
    assert photo.mask is None and photo.background
    (said,) = caplog.messages
    assert "bare.png has no mask" in said and "--mask" in said and "--remove-background" in said
    caplog.clear()
    read_photo(path, S)  # of renders: those that need a mask refuse the picture
    photograph(tmp_path, ramp(), mask_of(ramp()))
    read_photo(path, S, background=True, remover=mask_of)
    assert not caplog.messages


def test_beyond_the_picture_is_white_and_no_object(tmp_path: Path) -> None:
    picture = ramp(100, 60)
    photo = photograph(tmp_path, picture, mask_of(picture, (0, 0, 100, 20)))
    assert photo.mask is not None
    # 100 x 20: columns -5 to 104, rows -1 to 20; rows grow by 44: from -45 to 64.
    scale = S / 110
    outside = torch.ones(S, S, dtype=torch.bool)
    outside[round(45 * scale) - 1 : round(105 * scale) + 1, round(5 * scale) - 1 : round(105 * scale) + 1] = False
    assert outside.sum() > 1000 and (photo.image[:, outside] == 1).all() and (photo.mask[0, outside] == 0).all()
    columns, rows = places(photo.image)
    assert columns[S // 2, S // 2] == pytest.approx(49.9, abs=0.5)
    assert rows[S // 2, S // 2] == pytest.approx(-45 + 32.5 / scale - 0.5, abs=0.5)


def test_without_a_mask_the_picture_is_taken_whole(tmp_path: Path) -> None:
    photo = read_photo(save(ramp(200, 100), tmp_path / "photo.png"), S, background=True)
    assert photo.mask is None and photo.background
    assert (photo.image[:, : S // 4 - 1] == 1).all() and (photo.image[:, 3 * S // 4 + 1 :] == 1).all()
    middle = photo.image[:, S // 4 : 3 * S // 4]
    scale = 200 / S  # the outermost rows mix with the white
    columns, rows = places(middle)
    assert (columns - ((torch.arange(S) + 0.5) * scale - 0.5)).abs()[2:-2, 2:-2].max() < 0.6
    assert (rows - ((torch.arange(S // 2) + 0.5) * scale - 0.5)[:, None]).abs()[2:-2].max() < 0.6


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (200, 100), (0, 255, 0, 0))  # green that must never be seen
    ImageDraw.Draw(picture).rectangle((80, 30, 119, 69), fill=(200, 0, 0, 255))
    photo = read_photo(save(picture, tmp_path / "photo.png"), S, background=True)
    assert photo.mask is not None
    red, green = photo.image[0], photo.image[1]
    assert (green <= red + 1e-6).all() and (photo.image[:, photo.mask[0] == 0] == 1).all()
    assert photo.image[:, S // 2, S // 2].tolist() == pytest.approx([200 / 255, 0, 0], abs=1e-3)


def test_fine_patterns_of_large_pictures_are_averaged(tmp_path: Path) -> None:
    checks = np.indices((1300, 1300)).sum(axis=0) % 2 * 255
    picture = Image.fromarray(checks.astype(np.uint8)).convert("RGB")
    photo = photograph(tmp_path, picture, mask_of(picture, (100, 100, 1200, 1200)))
    inside = photo.image[:, 4:-4, 4:-4]
    assert (inside - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("background", [False, True])
def test_the_remover_finds_what_no_mask_shows(tmp_path: Path, background: bool) -> None:
    picture = ramp()
    asked: list[Image.Image] = []

    def remover(image: Image.Image) -> Image.Image:
        asked.append(image)
        return mask_of(image)

    path, mask = save(picture, tmp_path / "photo.png"), save(mask_of(picture), tmp_path / "mask.png")
    found = read_photo(path, S, background=background, remover=remover)
    assert len(asked) == 1 and np.array_equal(np.asarray(asked[0]), np.asarray(picture))
    given = read_photo(path, S, mask, background=background, remover=remover)
    cut = picture.convert("RGBA")
    cut.putalpha(mask_of(picture))
    read_photo(save(cut, tmp_path / "cut.png"), S, background=background, remover=remover)
    assert len(asked) == 1  # a mask of the user is better
    assert found.mask is not None and given.mask is not None
    assert torch.equal(found.image, given.image) and torch.equal(found.mask, given.mask)


def test_a_remover_that_finds_little_is_an_empty_mask(tmp_path: Path) -> None:
    path = save(ramp(), tmp_path / "photo.png")
    with pytest.raises(ValueError, match=r"photo\.png: the mask is empty"):
        read_photo(path, S, background=True, remover=lambda image: Image.new("L", image.size, 90))
