"""Image files classified by a trained run."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from normlab.compute.runtime import make_runtime
from normlab.config import pipeline
from normlab.config.paths import run_files
from normlab.data.images import SIZE
from normlab.evaluation.scores import Classifier
from normlab.nets import checkpoint
from normlab.sources.pictures import decode, visible
from normlab.utils import files
from normlab.utils.errors import NormlabError


class Prediction(NamedTuple):
    """What an image is taken for, and with which probability (softmax, from 0 to 1)."""

    file: Path
    label: str
    probability: float


def predict(run: str, paths: Sequence[Path]) -> list[Prediction]:
    """Classify the images `paths`, files or folders of them, by the best weights of `run`.

    Images of another size than 32x32 are resized, and a line on stderr says how many. Raises
    `NormlabError` for a run that does not exist or is not trained, a path that does not exist, a
    file that is no image, and a folder that holds none.
    """
    import torch

    model, spec, _ = checkpoint.load(weights(run))
    found = [file for path in paths for file in expand(path)]
    pictures, resized = zip(*map(read, found), strict=True)
    if any(resized):
        print(f"resized to {SIZE}x{SIZE}: {sum(resized)} of {len(found)} images", file=sys.stderr)
    classify = Classifier(model, spec, make_runtime("float32", False, 0))
    best = classify(torch.from_numpy(np.stack(pictures))).softmax(1).max(1)
    labels = [spec.classes[index] for index in best.indices.tolist()]
    return list(map(Prediction, found, labels, best.values.tolist()))


def weights(run: str) -> Path:
    """The best weights of `run`, fetched from DVC's cache or remote if they are not there."""
    names = pipeline.runs()
    if run not in names:
        raise NormlabError(f"run = {run}: must be one of {', '.join(names)}")
    path = run_files(run).weights
    if path.exists():
        return path
    command = [sys.executable, "-m", "dvc", "pull", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if not path.exists():
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = errors[0].removeprefix("ERROR: ").rstrip(":") if errors else "no reason given"
        raise NormlabError(
            f"{path}: not here, and `dvc pull` did not bring it ({reason}); "
            f"`dvc repro evaluate@{run}` trains it"
        )
    return path


def expand(path: Path) -> list[Path]:
    """`path` itself, or all image files seen below it, in the order of their names."""
    if not path.exists():
        raise NormlabError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    kinds = Image.registered_extensions()
    endings = {ending for ending, kind in kinds.items() if kind in Image.OPEN}
    found = [p for p in visible(path, "**/*") if p.suffix.lower() in endings and p.is_file()]
    if not found:
        raise NormlabError(f"{path}: holds no image files")
    return found


def read(path: Path) -> tuple[np.ndarray, bool]:
    """uint8 `[32, 32, 3]` of an image file, and whether it was resized, proportions or no."""
    picture = decode(path)
    small = picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)  # a copy if that is its size
    return np.asarray(small), picture.size != small.size


def write(path: Path, predictions: list[Prediction]) -> None:
    """Write `predictions` as CSV: file, class, probability."""
    fields = ("file", "class", "probability")
    files.write_csv(path, [dict(zip(fields, p, strict=True)) for p in predictions], fields)
