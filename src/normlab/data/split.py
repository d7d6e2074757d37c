"""The validation set: drawn once, by a fixed seed, out of the training images."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from normlab.data.images import Images
from normlab.utils import files
from normlab.utils.errors import NormlabError


@dataclass(frozen=True)
class Split:
    """Indices into the training images, and what normalizes an image.

    `mean` and `std` are per channel (red, green, blue), of the images of `train` alone, on
    pixels scaled to [0, 1].
    """

    train: list[int]
    val: list[int]
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[float], Field(min_length=3, max_length=3)]


def draw(images: Images, val_size: int | float, seed: int) -> Split:
    """Draw `val_size` images (a fraction below 1, or a number) for validation.

    Raises `NormlabError` when the validation set would be empty or leave nothing to train on.
    """
    total = len(images)
    count = round(total * val_size) if val_size < 1 else int(val_size)
    if not 0 < count < total:
        raise NormlabError(
            f"split.val_size = {val_size}: selects {count} of {total} training images; "
            f"must select 1 to {total - 1}"
        )
    order = np.random.default_rng(seed).permutation(total)
    val, train = np.sort(order[:count]), np.sort(order[count:])
    mean, std = _moments(images.pixels[train])
    return Split(train.tolist(), val.tolist(), mean, std)


def _moments(pixels: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of uint8 `[N, H, W, 3]`, exact, as fractions of 255.

    The standard deviation of a channel whose pixels are all equal is 1: images are divided by it.
    Counting how often each value occurs needs no copy of the images as floats.
    """
    # Sums, whose order is fixed: that in a dot product depends on the processor, and with it the
    # last bit of split.json, on which all trainings depend. The mean's starts with the brightest
    # pixels, which gives the bits that the committed study has.
    values = np.arange(256) / 255
    means, stds = [], []
    for channel in range(pixels.shape[-1]):
        counts = np.bincount(pixels[..., channel].ravel(), minlength=256)
        total = counts.sum()
        mean = (counts * values)[::-1].sum() / total
        means.append(float(mean))
        variance = 1 if total in counts else (counts / total * (values - mean) ** 2).sum()
        stds.append(float(np.sqrt(variance)))
    return means, stds


def write(path: Path | str, split: Split) -> None:
    files.write_text(path, json.dumps(asdict(split)) + "\n")


def read(path: Path | str, total: int) -> Split:
    """Read what `write` wrote.

    Raises `NormlabError` for a file that is missing or damaged, or that does not divide `total`
    images.
    """
    try:
        split = TypeAdapter(Split).validate_json(Path(path).read_bytes(), strict=True)
    except FileNotFoundError:
        raise NormlabError(f"{path}: no such file; `dvc repro split` makes it") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        line = f"{path}: is not a valid split ({reason}); `dvc repro --force split`"
        raise NormlabError(line) from None
    if not split.train or not split.val or sorted(split.train + split.val) != list(range(total)):
        raise NormlabError(
            f"{path}: does not divide the {total} training images; `dvc repro --force split`"
        )
    return split
