"""Labelled images as one file: uint8 pixels, labels and class names, read with no pickle."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save

from normlab import files
from normlab.errors import NormlabError

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

    def checksum(self) -> str:
        """SHA-256 over class names, labels and pixels."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        digest.update(self.labels.astype("<i8").tobytes())
        digest.update(self.pixels.tobytes())
        return digest.hexdigest()


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
    except (safetensors.SafetensorError, KeyError, ValueError, OSError) as error:
        raise NormlabError(
            f"{path}: is no images file ({error}); `dvc repro -f download`"
        ) from None
    if images.pixels.shape != (len(images), SIZE, SIZE, 3) or images.pixels.dtype != np.uint8:
        raise NormlabError(
            f"{path}: holds {images.pixels.dtype} {images.pixels.shape}, "
            f"not uint8 [{len(images)}, {SIZE}, {SIZE}, 3]; `dvc repro -f download`"
        )
    return images
