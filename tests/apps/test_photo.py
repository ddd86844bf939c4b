from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from recon3d.apps.photo import CENTER_ROW, FILL, Photo, read_photo
from recon3d.geometry.cameras import nmr_cameras
from recon3d.geometry.templates import icosphere
from recon3d.renderers.hard import render_hard

S = 64
COLOR = (200, 100, 40)


def cut_out(size: tuple[int, int] = (300, 200), box: tuple[int, int, int, int] = (60, 40, 180, 100)) -> Image.Image:
    """A rectangle of one colour with a darker left half, on nothing; the far corner tells orientations apart."""
    image = Image.new("RGBA", size, (0, 255, 0, 0))  # green that must never be seen
    draw = ImageDraw.Draw(image)
    draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=(*COLOR, 255))
    middle = (box[0] + box[2]) // 2
    draw.rectangle((box[0], box[1], middle - 1, box[3] - 1), fill=(100, 50, 20, 255))
    return image


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def extent(mask: Tensor) -> tuple[float, float, float, float]:
    """Left, right, top, bottom of the mask in shares of the image, by coverage along its middle row and column."""
    on = mask[0] > 0.5
    columns, rows = on.any(dim=0).nonzero(), on.any(dim=1).nonzero()
    size = len(on)
    return (
        columns[0].item() / size,
        (columns[-1].item() + 1) / size,
        rows[0].item() / size,
        (rows[-1].item() + 1) / size,
    )


@pytest.fixture
def reference(tmp_path: Path) -> Photo:
    return read_photo(save(cut_out(), tmp_path / "reference.png"), S)


def close(photo: Photo, other: Photo, tolerance: float = 2 / 255) -> bool:
    assert photo.mask is not None and other.mask is not None
    # Colours are compared as they are seen: that of a pixel covered to 1/255 says nothing.
    seen, expected = photo.image * photo.mask, other.image * other.mask
    return bool((seen - expected).abs().max() <= tolerance) and bool((photo.mask - other.mask).abs().max() <= 2 / 255)


def test_the_object_is_framed_as_in_the_renders(reference: Photo) -> None:
    assert reference.mask is not None
    assert reference.image.shape == (3, S, S) and reference.mask.shape == (1, S, S)
    assert reference.image.dtype == reference.mask.dtype == torch.float32
    left, right, top, bottom = extent(reference.mask)
    assert right - left == pytest.approx(FILL, abs=1 / S)  # 120 x 60 pixels: twice as wide as high
    assert bottom - top == pytest.approx(FILL / 2, abs=1 / S)
    assert (left + right) / 2 == pytest.approx(0.5, abs=1 / S)
    assert (top + bottom) / 2 == pytest.approx(CENTER_ROW, abs=1 / S)
    area = FILL * FILL / 2
    assert reference.mask.mean().item() == pytest.approx(area, rel=0.01)  # edges are covered in part


def test_framing_agrees_with_the_renders_of_the_training_sets() -> None:
    # A sphere that fills the object's cube, seen from the training cameras: the largest object that can be. Its
    # silhouette has radius tan(asin(0.5 / 2.732)) / tan(15 degrees) = 0.6948 of half the image.
    verts, faces = icosphere(4, 0.5)
    mask = render_hard(verts[None], faces, nmr_cameras()[:1], 128).mask[0]
    left, right, _, _ = extent(mask)
    assert right - left == pytest.approx(0.6948, abs=0.02)
    assert abs(right - left - FILL) < 0.1


def test_colors_do_not_bleed_out_of_the_background(reference: Photo) -> None:
    assert reference.mask is not None
    inside = (reference.mask[0] > 0.02) & (torch.arange(S) > S // 2 + 1)
    expected = torch.tensor(COLOR)[:, None] / 255
    assert (reference.image[:, inside] - expected).abs().max() < 0.06  # 8-bit premultiplied colours at thin edges
    assert reference.image[:, reference.mask[0] == 0].abs().max() == 0


@pytest.mark.parametrize("scale", [0.1, 1, 7])
def test_size_does_not_matter(tmp_path: Path, reference: Photo, scale: float) -> None:
    size, box = (int(300 * scale), int(200 * scale)), (60, 40, 180, 100)
    image = cut_out(size, tuple(int(value * scale) for value in box))  # type: ignore[arg-type]
    photo = read_photo(save(image, tmp_path / "scaled.png"), S)
    assert photo.mask is not None and reference.mask is not None
    assert (photo.mask - reference.mask).abs().mean() < 0.03
    assert (photo.image - reference.image).abs().mean() < 0.03


def test_an_object_at_the_border_is_padded(tmp_path: Path, reference: Photo) -> None:
    image = cut_out((120, 60), (0, 0, 120, 60))
    image.putpixel((0, 0), (0, 0, 0, 0))  # else it would be opaque everywhere
    photo = read_photo(save(image, tmp_path / "border.png"), S)
    assert photo.mask is not None and reference.mask is not None
    assert (photo.mask - reference.mask).abs().mean() < 0.002


def test_a_render_goes_through_unchanged(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (S, S, 4), dtype=np.uint8)
    pixels[:20, :, 3] = 0
    pixels[:20, :, :3] = 0
    photo = read_photo(save(Image.fromarray(pixels), tmp_path / "render.png"), S)
    assert photo.mask is not None
    expected = torch.from_numpy(pixels).permute(2, 0, 1)
    pixels_again = (torch.cat([photo.image, photo.mask]) * 255).round().byte()
    assert torch.equal(pixels_again[3], expected[3])
    assert torch.equal(pixels_again[:3], expected[:3] * (expected[3] > 0))
    framed = read_photo(tmp_path / "render.png", 32)
    assert framed.image.shape == (3, 32, 32)


def on_green() -> tuple[Image.Image, Image.Image]:
    """The photograph of the cut-out on an opaque background, and its mask."""
    image = cut_out()
    return Image.alpha_composite(Image.new("RGBA", image.size, (0, 255, 0, 255)), image), image.getchannel("A")


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_a_mask_file_does_as_alpha_does(tmp_path: Path, reference: Photo, suffix: str) -> None:
    image, mask = on_green()
    path = tmp_path / f"photo.{suffix}"
    image.convert("RGB").save(path, lossless=True)
    photo = read_photo(path, S, save(mask, tmp_path / "mask.png"))
    assert close(photo, reference)


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "RGB", "P", "RGBA", "LA"])
def test_masks_of_every_mode(tmp_path: Path, reference: Photo, mode: str) -> None:
    image, mask = on_green()
    if mode == "I;16":
        mask = Image.fromarray(np.asarray(mask).astype(np.uint16) * 257)
    elif mode in ("RGBA", "LA"):  # the mask is their alpha, the colours say nothing
        alpha, mask = mask, Image.new(mode, image.size)
        mask.putalpha(alpha)
    else:
        mask = mask.convert(mode)
    photo = read_photo(save(image, tmp_path / "photo.png"), S, save(mask, tmp_path / "mask.png"))
    assert photo.mask is not None and reference.mask is not None
    assert (photo.mask - reference.mask).abs().max() <= 2 / 255


def test_a_mask_file_wins_over_alpha(tmp_path: Path) -> None:
    image = cut_out()
    other = Image.new("L", image.size)
    ImageDraw.Draw(other).rectangle((120, 40, 179, 99), fill=255)  # the right half: square
    photo = read_photo(save(image, tmp_path / "photo.png"), S, save(other, tmp_path / "mask.png"))
    assert photo.mask is not None
    left, right, top, bottom = extent(photo.mask)
    assert right - left == pytest.approx(bottom - top, abs=1.5 / S)


@pytest.mark.parametrize("mode", ["LA", "P", "GIF", "RGB key", "L key"])
def test_transparency_of_every_mode(tmp_path: Path, reference: Photo, mode: str) -> None:
    image, path = cut_out(), tmp_path / "photo.png"
    grey = image.convert("LA")
    if mode == "LA":
        grey.save(path)
    elif mode == "P":
        image.quantize(8).save(path)
    elif mode == "GIF":
        path = path.with_suffix(".gif")
        image.save(path)
    elif mode == "RGB key":  # one colour of the file stands for transparent
        on_green()[0].convert("RGB").save(path, transparency=(0, 255, 0))
    else:
        flat = Image.composite(grey.getchannel("L"), Image.new("L", image.size, 255), image.getchannel("A"))
        flat.save(path, transparency=255)
    with Image.open(path) as file:
        assert file.mode == {"LA": "LA", "P": "P", "GIF": "P", "RGB key": "RGB", "L key": "L"}[mode]
    photo = read_photo(path, S)
    assert photo.mask is not None and reference.mask is not None
    assert (photo.mask - reference.mask).abs().max() <= 2 / 255
    if mode in ("LA", "L key"):
        luminance = (reference.image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=0)
        assert ((photo.image - luminance) * photo.mask).abs().max() <= 3 / 255
    else:
        assert close(photo, reference, 4 / 255)


@pytest.mark.parametrize("mode", ["L", "I;16", "CMYK", "YCbCr", "1"])
def test_opaque_images_of_every_mode(tmp_path: Path, mode: str) -> None:
    rng = np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).resize((200, 200), Image.Resampling.BOX)
    mask = Image.new("L", grey.size)
    ImageDraw.Draw(mask).rectangle((50, 50, 149, 149), fill=255)
    expected = read_photo(save(grey, tmp_path / "grey.png"), S, save(mask, tmp_path / "mask.png"))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    elif mode in ("CMYK", "YCbCr"):
        image = grey.convert("RGB").convert(mode)
    else:
        image = grey.convert(mode)
    if mode == "1":
        expected = read_photo(save(image.convert("L"), tmp_path / "bits.png"), S, tmp_path / "mask.png")
    photo = read_photo(save(image, tmp_path / "photo.tiff"), S, tmp_path / "mask.png")
    assert photo.image.std() > 0.1
    assert (photo.image - expected.image).abs().max() <= 4 / 255  # YCbCr rounds twice


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, reference: Photo, orientation: int) -> None:
    turns = {  # what a viewer has to do, by the EXIF standard; to store, do the opposite
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # shown turned by 270 degrees, so stored turned by 90
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image, mask = on_green()
    stored = image.transpose(turns[orientation]) if orientation in turns else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(stored.convert("RGB"), tmp_path / "photo.jpg", exif=exif, quality=98, subsampling=0)
    photo = read_photo(path, S, save(mask, tmp_path / "mask.png"))
    assert photo.mask is not None and reference.mask is not None
    inside = (photo.mask[0] == 1) & (reference.mask[0] == 1)
    assert (photo.image - reference.image)[:, inside].abs().mean() < 0.02


def test_without_a_mask_the_whole_picture_is_padded(tmp_path: Path) -> None:
    image = Image.new("RGB", (200, 100), COLOR)
    photo = read_photo(save(image, tmp_path / "photo.png"), S)
    assert photo.mask is None
    expected = torch.zeros(3, S, S)
    expected[:, S // 4 : -S // 4] = torch.tensor(COLOR)[:, None, None] / 255
    assert (photo.image - expected).abs().mean() < 0.01
    opaque = read_photo(save(image.convert("RGBA"), tmp_path / "opaque.png"), S)
    assert opaque.mask is None and torch.equal(opaque.image, photo.image)


def test_a_full_mask_is_allowed_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = save(Image.new("RGB", (50, 50), COLOR), tmp_path / "photo.png")
    with caplog.at_level(logging.WARNING):
        photo = read_photo(image, S, save(Image.new("L", (50, 50), 255), tmp_path / "full.png"))
    assert "full.png: the mask covers the whole picture" in caplog.text
    assert photo.mask is not None and photo.mask.mean().item() == pytest.approx(FILL**2, rel=0.02)


def test_bad_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"No image at .*missing\.png"):
        read_photo(tmp_path / "missing.png", S)
    with pytest.raises(FileNotFoundError, match="No image at"):
        read_photo(tmp_path, S)
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.png is not an image"):
        read_photo(tmp_path / "text.png", S)
    whole = save(cut_out(), tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.png cannot be read"):
        read_photo(tmp_path / "cut.png", S)
    with pytest.raises(ValueError, match=r"float\.tiff cannot be read: floating-point"):
        read_photo(save(Image.new("F", (9, 9), 0.5), tmp_path / "float.tiff"), S)
    wide = Image.fromarray(np.full((9, 9), 70000, dtype=np.int32))
    with pytest.raises(ValueError, match=r"wide\.tiff cannot be read: expected 16-bit .* 70000"):
        read_photo(save(wide, tmp_path / "wide.tiff"), S)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for pixels in (1500, 5000):  # Pillow warns of the first and refuses the second
        with pytest.raises(ValueError, match=r"big\.png has more than 1,000 pixels"):
            read_photo(save(Image.new("L", (pixels, 1)), tmp_path / "big.png"), S)


def test_bad_masks_are_named(tmp_path: Path) -> None:
    image = save(Image.new("RGB", (50, 40), COLOR), tmp_path / "photo.png")
    with pytest.raises(FileNotFoundError, match=r"No image at .*missing\.png"):
        read_photo(image, S, tmp_path / "missing.png")
    with pytest.raises(ValueError, match=r"small\.png is 40x50 pixels, its photo .*photo\.png 50x40"):
        read_photo(image, S, save(Image.new("L", (40, 50), 255), tmp_path / "small.png"))
    with pytest.raises(ValueError, match=r"labels\.png: the mask is empty; .* the highest is 1\."):
        read_photo(image, S, save(Image.new("L", (50, 40), 1), tmp_path / "labels.png"))
    with pytest.raises(ValueError, match=r"clear\.png: the mask is empty"):
        read_photo(save(Image.new("RGBA", (S, S)), tmp_path / "clear.png"), S)
