"""Image files: whatever their kind, the pixels that a viewer shows, or one line why not."""

import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import refused
from PIL import Image

from normlab.sources.pictures import below, decode
from normlab.utils.errors import NormlabError

WIDE = np.array([[0, 255, 256], [32767, 32768, 65535]], np.uint16)
SHOWN = [0, 0, 1, 127, 128, 255]  #: what `WIDE` is in 8 bits
GREEN = (20, 200, 60)
NO_IMAGE = "is not an image, is damaged, or has a format that Pillow cannot read"


def written(path: Path, image: Image.Image, kind: str, **options: object) -> Path:
    image.save(path, kind, **options)
    return path


def tiff(path: Path, values: np.ndarray, bits: int, sample_format: int, black: int = 1) -> Path:
    """An uncompressed little-endian TIFF of one channel; `black` 0: zero is white."""
    height, width = values.shape
    data = values.tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: black, 273: 8, 277: 1, 278: height,
            279: len(data), 339: sample_format}  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory)
    return path


def refusal(path: Path) -> str:
    return refused(lambda: decode(path)).removeprefix(f"{path}: ")


def big_endian(values: np.ndarray) -> Image.Image:
    return Image.frombytes("I;16B", values.shape[::-1], values.astype(">u2").tobytes())


@pytest.mark.parametrize(
    "make",
    [
        lambda path: written(path, Image.fromarray(WIDE), "PNG"),
        lambda path: written(path, Image.fromarray(WIDE), "TIFF"),
        lambda path: written(path, Image.fromarray(WIDE), "TIFF", compression="tiff_lzw"),
        lambda path: written(path, big_endian(WIDE), "TIFF"),
        lambda path: written(path, big_endian(WIDE), "TIFF", compression="tiff_lzw"),
        lambda path: written(path, Image.fromarray(WIDE), "PPM"),
        lambda path: path.write_bytes(b"P2 3 2 65535 " + " ".join(map(str, WIDE.flat)).encode()),
        lambda path: tiff(path, WIDE, 16, 1),
    ],
    ids=["PNG", "TIFF", "LZW", "big-endian", "big-endian LZW", "PGM", "plain PGM", "bare TIFF"],
)
def test_grey_of_16_bits_is_scaled_to_8(make: object, tmp_path: Path) -> None:
    path = tmp_path / "image"
    make(path)  # type: ignore[operator]
    pixels = np.asarray(decode(path))
    assert pixels.shape == (2, 3, 3)
    for channel in range(3):
        assert pixels[..., channel].flatten().tolist() == SHOWN


def test_grey_of_16_bits_in_jpeg_2000_is_scaled_to_8(tmp_path: Path) -> None:
    values = np.repeat(np.repeat(WIDE, 16, 0), 16, 1)
    path = written(tmp_path / "image", Image.fromarray(values), "JPEG2000")
    assert np.asarray(decode(path))[8::16, 8::16, 0].flatten().tolist() == SHOWN


def test_the_values_of_a_10_bit_pgm_are_scaled_too(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"P5 2 1 1023\n" + struct.pack(">2H", 1023, 512))
    assert np.asarray(decode(path))[0, :, 0].tolist() == [255, 128]


@pytest.mark.parametrize(
    ("make", "mode"),
    [
        (lambda path: tiff(path, WIDE.astype("<f4"), 32, 3), "F"),
        (lambda path: tiff(path, WIDE.astype("<u4"), 32, 1), "I"),
        (lambda path: tiff(path, WIDE.astype("<i4"), 32, 2), "I"),
        (lambda path: tiff(path, WIDE.astype("<i2"), 16, 2), "I"),
        (lambda path: tiff(path, WIDE, 16, 1, black=0), "I;16"),  # which Pillow would show inverted
        (lambda path: tiff(path, np.zeros((2, 3), "u1"), 12, 1), "I;16"),
        (lambda path: path.write_bytes(b"Pf 3 2 -1.0\n" + WIDE.astype("<f4").tobytes()), "F"),
    ],
    ids=["float", "unsigned 32", "signed 32", "signed 16", "white is 0", "12 bits", "PFM"],
)
def test_values_without_a_natural_scale_are_refused(
    make: object, mode: str, tmp_path: Path
) -> None:
    make(tmp_path / "image")  # type: ignore[operator]
    assert refusal(tmp_path / "image") == (
        f"its values (Pillow's mode {mode}) have no natural scale to 8 bits; "
        "save it as 8-bit or 16-bit PNG"
    )


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("P", "GIF"), ("CMYK", "TIFF"), ("LAB", "TIFF"),
     ("YCbCr", "TIFF"), ("RGB", "BMP")],
)  # fmt: skip
def test_colours_are_the_same_in_every_mode(mode: str, kind: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4), GREEN)
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    pixels = np.asarray(decode(written(tmp_path / "image", image, kind)))
    np.testing.assert_allclose(pixels, np.full((4, 4, 3), GREEN), atol=4)


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_has_three_equal_channels(mode: str, tmp_path: Path) -> None:
    pixels = np.asarray(decode(written(tmp_path / "image", Image.new(mode, (4, 4)), "PNG")))
    assert np.array_equal(pixels, np.full((4, 4, 3), 255 if mode == "LA" else 0))


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_what_is_transparent_lies_on_white(alpha: int, tmp_path: Path) -> None:
    path = written(tmp_path / "image", Image.new("RGBA", (4, 4), (*GREEN, alpha)), "PNG")
    expected = [255 + (value - 255) * alpha / 255 for value in GREEN]
    np.testing.assert_allclose(np.asarray(decode(path))[0, 0], expected, atol=1)


def test_a_transparent_colour_of_a_palette_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, *GREEN])
    path = written(tmp_path / "image", image, "GIF", transparency=1)
    assert decode(path).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF"])
def test_of_several_images_the_first_is_taken(kind: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in (GREEN, "black", "white")]
    path = written(tmp_path / "image", frames[0], kind, save_all=True, append_images=frames[1:])
    assert decode(path).getpixel((0, 0)) == GREEN


@pytest.mark.parametrize(
    ("kind", "wide"),
    [("JPEG", False), ("PNG", False), ("PNG", True), ("TIFF", False), ("TIFF", True)],
)
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_every_image_stands_upright(
    kind: str, wide: bool, orientation: int, tmp_path: Path
) -> None:
    """By its orientation tag: a bright quarter that was top left is where it belongs."""
    stored = np.zeros((32, 64), np.uint8)
    stored[:16, :32] = 255
    image = Image.fromarray(stored.astype(np.uint16) * 257 if wide else stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = written(tmp_path / "image", image, kind, exif=exif)
    found = np.asarray(decode(path))[..., 0]
    turned = {1: 0, 3: 2, 6: 3, 8: 1}[orientation]  # quarters, anticlockwise
    np.testing.assert_allclose(found, np.rot90(stored, turned), atol=8)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", NO_IMAGE),
        (b"hello", NO_IMAGE),
        (b"GIF89z" + bytes(100), NO_IMAGE),
        (b"\0\0\0\x18ftypheic" + bytes(16), NO_IMAGE),
        (b"\0\0\1\xb3\x20\2\0\0" + bytes(16), r"cannot be decoded as MPEG \(.+\)"),
        (b"\x89HDF\r\n\x1a\n" + bytes(16), r"cannot be decoded as HDF5 \(.+\)"),
    ],
    ids=["empty", "text", "GIF", "HEIC", "MPEG", "HDF5"],
)
def test_a_file_that_is_no_image_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    """Sound files of another kind are not called damaged."""
    path = tmp_path / "image.png"
    path.write_bytes(content)
    assert re.fullmatch(reason, refusal(path))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_a_truncated_image_is_refused(kind: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    path = written(tmp_path / "image", Image.fromarray(noise), kind)
    content = path.read_bytes()
    for share in (0.3, 0.9):
        path.write_bytes(content[: int(len(content) * share)])
        assert refusal(path).startswith(("cannot be decoded as ", NO_IMAGE))


def test_an_image_of_too_many_pixels_is_called_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = written(tmp_path / "image", Image.new("L", (20, 20)), "PNG")
    assert refusal(path).startswith("is too large; save it smaller (Image size (400 pixels)")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {"exif": b"Exif\0\0garbage!"}),
        ("WEBP", {"exif": b"Exif\0\0garbage!", "lossless": True}),
        ("PNG", {"icc_profile": bytes(2 << 20)}),
    ],
    ids=["broken EXIF data", "in WEBP", "large colour profile"],
)
def test_what_else_a_file_holds_does_not_hide_the_image(
    kind: str, options: dict[str, object], tmp_path: Path
) -> None:
    path = written(tmp_path / "image", Image.new("RGB", (4, 4), GREEN), kind, **options)
    assert decode(path).getpixel((0, 0)) == GREEN


def test_an_image_is_upright_though_other_exif_data_are_broken(tmp_path: Path) -> None:
    """An orientation of 6, and a resolution of -1/0."""
    entries = struct.pack("<HHHIHHHIIII", 2, 0x112, 3, 1, 6, 0, 0x11A, 10, 1, 38, 0)
    exif = b"II*\0" + struct.pack("<I", 8) + entries + struct.pack("<ii", -1, 0)
    path = written(tmp_path / "image", Image.new("L", (4, 2)), "PNG", exif=exif)
    assert decode(path).size == (2, 4)


def test_random_damage_never_ends_in_a_traceback(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    path, outcomes = tmp_path / "image", set()
    for kind in ("PNG", "TIFF", "GIF", "BMP", "PPM", "TGA"):
        image = Image.fromarray(generator.integers(0, 256, (8, 8), np.uint8))
        whole = written(path, image, kind).read_bytes()
        for _ in range(50):
            content = np.frombuffer(whole, np.uint8).copy()
            content[generator.integers(0, len(content), 4)] = generator.integers(0, 256, 4)
            path.write_bytes(content.tobytes())
            try:
                assert decode(path).mode == "RGB"
                outcomes.add("decoded")
            except NormlabError:
                outcomes.add("refused")
    assert outcomes == {"decoded", "refused"}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as raised:
        decode(tmp_path)
    assert raised.value.filename == str(tmp_path)


def test_hidden_files_and_what_systems_leave_are_passed_over(tmp_path: Path) -> None:
    names = (
        "b.png", "a.png", ".hidden.png", ".DS_Store", "._a.png", "Thumbs.db", "ehthumbs.db",
        "Desktop.ini", "Icon\r", "deeper/c.png", "__MACOSX/a.png", "@eaDir/a.png", ".git/a.png",
        "deeper/.thumbnails/c.png",
    )  # fmt: skip
    root = tmp_path / ".pictures"  # it was asked for by its name
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert below(root, pytest.fail) == [root / "a.png", root / "b.png", root / "deeper/c.png"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    for name in ("here/a.png", "here/deep/b.png", "there/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "deep/itself").symlink_to("../deep")
    (here / "up").symlink_to("..")
    (here / "there").symlink_to(there)
    (there / "back").symlink_to(here)
    (here / "nowhere.png").symlink_to("nowhere")
    names = ("a.png", "deep/b.png", "nowhere.png", "there/c.png")
    assert below(here, pytest.fail) == [here / name for name in names]
    assert refusal(here / "nowhere.png") == "is a broken link"


def test_what_is_no_file_is_told_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    os.mkfifo(tmp_path / "b.png")
    told: list[str] = []
    assert below(tmp_path, lambda error: told.append(str(error))) == [tmp_path / "a.png"]
    assert told == [f"{tmp_path}/b.png: is not a regular file"]


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    told: list[OSError] = []
    assert below(tmp_path / "missing", told.append) == []
    assert [error.filename for error in told] == [str(tmp_path / "missing")]
