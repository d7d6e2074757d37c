"""Labelled images as one file: uint8 pixels, labels and class names, read with no pickle."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save

from normlab.utils import files
from normlab.utils.errors import NormlabError

SIZE = 32  #: height and width of every image, in pixels


@dataclass(frozen=True)
class Images:
    """`pixels` uint8 `[N, 32, 32, 3]` (channels last), `labels` int64 `[N]` into `classes`."""

    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Sequence[int] | np.ndarray) -> "Images":
        index = np.asarray(index)
        return Images(self.pixels[index], self.labels[index], self.classes)


def write(path: Path | str, images: Images) -> None:
    tensors = {"pixels": np.ascontiguousarray(images.pixels), "labels": images.labels}
    # One metadata key: safetensors does not keep the order of several, and bytes must repeat.
    metadata = {"classes": json.dumps(images.classes)}
    files.write_bytes(path, save(tensors, metadata))


def read(path: Path | str) -> Images:
    """Read what `write` wrote.

    Raises `NormlabError` for a file that is missing, damaged, or holds something else.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            classes = tuple(json.loads((file.metadata() or {})["classes"]))
            images = Images(file.get_tensor("pixels"), file.get_tensor("labels"), classes)
    except FileNotFoundError:
        raise NormlabError(f"{path}: no such file; `dvc repro` makes it") from None
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise NormlabError(
            f"{path}: is not a valid images file ({error}); `dvc repro --force download`"
        ) from None
    pixels, labels = images.pixels, images.labels
    wrong = None
    if pixels.shape[1:] != (SIZE, SIZE, 3) or pixels.dtype != np.uint8:
        wrong = f"pixels are {pixels.dtype} {pixels.shape}, not uint8 [N, {SIZE}, {SIZE}, 3]"
    elif labels.shape != pixels.shape[:1] or labels.dtype != np.int64 or not len(labels):
        wrong = f"labels are {labels.dtype} {labels.shape}, not int64 [{len(pixels)}]"
    elif not classes or not all(isinstance(name, str) for name in classes):
        wrong = f"classes are {classes}, not names"
    elif labels.min() < 0 or labels.max() >= len(classes):
        wrong = f"labels are {labels.min()} to {labels.max()}, of {len(classes)} classes"
    if wrong:
        raise NormlabError(f"{path}: {wrong}; `dvc repro --force download`")
    return images
