"""A folder of image files, sorted into classes by their folders."""

import sys
from pathlib import Path

import numpy as np

from normlab.data.images import SIZE, Images
from normlab.sources.pictures import below, decode, visible
from normlab.utils.errors import NormlabError
from normlab.utils.progress import track

NEEDED = (
    f"at least 2 classes are required, each with {SIZE}x{SIZE} images "
    "in train/<class>/ and in test/<class>/"
)


def load(root: Path) -> tuple[Images, Images]:
    """A tree `train/<class>/**`, `test/<class>/**` of 32x32 images, in the order of their names.

    Raises `NormlabError` that names the file or folder which is not so, and `OSError` for one that
    cannot be read. Files in no class are ignored, and a line on stderr says how many.
    """
    if not root.is_dir():
        raise NormlabError(f"dataset = folder:{root}: no such folder; {NEEDED}")
    parts = [part for part in (root / "train", root / "test") if part.is_dir()]
    inside = [path for part in parts for path in part.iterdir() if visible(path.name)]
    classes = tuple(sorted({path.name for path in inside if path.is_dir()}))
    if len(classes) < 2:
        raise NormlabError(f"dataset = folder:{root}: contains {len(classes)} classes; {NEEDED}")
    others = [path for path in sorted(inside) if not path.is_dir()]
    for path in others:
        if not path.exists():
            raise NormlabError(f"{path}: is a broken link")
    if others:
        line = f"{root}: ignored, as outside any class folder: {len(others)}, such as {others[0]}"
        print(line, file=sys.stderr)
    train, test = (_find(root / part, classes) for part in ("train", "test"))
    return _read(root / "train", train, classes), _read(root / "test", test, classes)


def _find(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    """The files of all classes, each with its label."""
    found = []
    for label, name in enumerate(classes):
        paths = below(folder / name, _refuse) if (folder / name).is_dir() else []
        if not paths:
            raise NormlabError(f"{folder / name}: contains no images; {NEEDED}")
        found += [(path, label) for path in paths]
    return found


def _refuse(error: OSError) -> None:
    raise error


def _read(folder: Path, found: list[tuple[Path, int]], classes: tuple[str, ...]) -> Images:
    pixels = []
    for path, _ in track(found, f"reading {folder}", len(found)):
        image = decode(path)
        if image.size != (SIZE, SIZE):
            size = f"{image.width}x{image.height}"
            raise NormlabError(f"{path}: has {size} pixels, not {SIZE}x{SIZE}")
        pixels.append(np.asarray(image))
    return Images(np.stack(pixels), np.array([label for _, label in found], np.int64), classes)
