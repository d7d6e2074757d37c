"""Image files: how a folder of them is listed, and how one becomes RGB of 8 bits."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from normlab.utils.errors import NormlabError

#: what systems leave in folders, in lower case, beside what a dot hides
CLUTTER = {
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "__macosx", "@eadir",
    "#recycle", "$recycle.bin", "system volume information", "lost+found",
}  # fmt: skip


def visible(folder: Path, pattern: str) -> list[Path]:
    """What matches `pattern` in `folder`, sorted; hidden files and `CLUTTER` are passed over."""
    return sorted(
        path
        for path in folder.glob(pattern)
        if not any(
            part.startswith(".") or part.lower() in CLUTTER
            for part in path.relative_to(folder).parts
        )
    )


def decode(path: Path) -> Image.Image:
    """The image in the file `path`, the first of several: upright, RGB, on white if transparent.

    Raises `NormlabError` for a file that is no image, a damaged one, or one whose values have no
    natural scale to 8 bits, such as floats; `OSError` for one that cannot be read.
    """
    content = io.BytesIO(path.read_bytes())  # by its path, Pillow turns some TIFF files twice
    try:
        with warnings.catch_warnings(action="ignore"):  # what cannot be read is told below
            image = Image.open(content)
            ImageOps.exif_transpose(image, in_place=True)
    except UnidentifiedImageError:
        raise NormlabError(f"{path}: is no image") from None
    except Exception as error:  # there is no list of what Pillow's decoders raise
        raise NormlabError(f"{path}: is a damaged image ({error})") from None
    if image.mode.startswith(("I", "F")):
        if not _fills_16_bits(image):
            raise NormlabError(
                f"{path}: its values (Pillow's mode {image.mode}) have no natural scale to 8 bits; "
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
