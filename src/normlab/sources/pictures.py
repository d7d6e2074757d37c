"""Image files: how a folder of them is listed, and how one becomes 8-bit RGB."""

import io
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from normlab.utils.errors import NormlabError

# Text chunks and colour profiles of valid images exceed the 1 MB that Pillow allows each.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

#: what systems leave in folders, in lower case, in addition to hidden files
CLUTTER = {
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "__macosx", "@eadir",
    "#recycle", "$recycle.bin", "system volume information", "lost+found",
}  # fmt: skip


def visible(name: str) -> bool:
    """Whether a file or folder called `name` is a user's: not hidden, and not `CLUTTER`."""
    return not name.startswith(".") and name.lower() not in CLUTTER


def below(folder: Path, on_error: Callable[[OSError], None]) -> list[Path]:
    """All visible files below `folder`, sorted. Links are followed, but not in circles.

    A link that leads nowhere is among them: reading it raises the reason.
    `on_error` is called for each folder that cannot be read, and for what is no file.
    """
    found: list[Path] = []
    for root, folders, names in os.walk(folder, onerror=on_error, followlinks=True):
        here = Path(root)
        places = (here.absolute(), *here.absolute().parents)
        above = {os.path.realpath(place) for place in places}
        folders[:] = [n for n in folders if visible(n) and os.path.realpath(here / n) not in above]
        found += [here / name for name in names if visible(name)]
    files = []
    for path in sorted(found):
        if path.exists() and not path.is_file():  # a reader might wait forever
            on_error(OSError(f"{path}: is not a regular file"))
        else:
            files.append(path)
    return files


def decode(path: Path) -> Image.Image:
    """The image in the file `path`, the first of several: upright, RGB, on white if transparent.

    Raises `NormlabError` for a file that is not an image, cannot be decoded, or whose
    values have no natural scale to 8 bits, such as floats; `OSError` for one that cannot be read.
    """
    if path.is_symlink() and not path.exists():
        raise NormlabError(f"{path}: is a broken link")
    content = io.BytesIO(path.read_bytes())  # by its path, Pillow turns some TIFF files twice
    kind: str | None = "an image"
    try:
        with warnings.catch_warnings(action="ignore"):  # what cannot be read is told below
            image = Image.open(content)
            kind = image.format
            image.load()
            with suppress(Exception):  # EXIF data are often broken, in images that are not
                ImageOps.exif_transpose(image, in_place=True)
            return _rgb(image)
    except UnidentifiedImageError:
        line = f"{path}: is not an image, is damaged, or has a format that Pillow cannot read"
        raise NormlabError(line) from None
    except Image.DecompressionBombError as error:
        raise NormlabError(f"{path}: is too large; save it smaller ({error})") from None
    except NormlabError as error:
        raise NormlabError(f"{path}: {error}") from None
    except Exception as error:  # there is no list of what Pillow's decoders raise
        reason = str(error) or type(error).__name__
        raise NormlabError(f"{path}: cannot be decoded as {kind} ({reason})") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        if not _fills_16_bits(image):
            raise NormlabError(
                f"its values (Pillow's mode {image.mode}) have no natural scale to 8 bits; "
                "save it as 8-bit or 16-bit PNG"
            )
        # The upper byte, which Pillow itself takes of 16-bit colours; its `convert` would clip.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _fills_16_bits(image: Image.Image) -> bool:
    """Whether black is 0 and white 65535 in an image of a mode that is wider than 8 bits."""
    if image.format == "TIFF":  # Pillow leaves 12 bits as they are, and white at 0
        tags = image.tag_v2  # type: ignore[attr-defined]
        return image.mode.startswith("I;16") and (tags.get(258), tags.get(262)) == ((16,), 1)
    # PGM's values come as 32-bit integers, scaled to 16 bits.
    return (image.mode, image.format) in (("I;16", "PNG"), ("I;16", "JPEG2000"), ("I", "PPM"))
