"""Image files classified by a trained run."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from normlab.base import files, pipeline
from normlab.base.errors import NormlabError
from normlab.base.layout import run_files
from normlab.compute import runtime
from normlab.data.images import SIZE
from normlab.evaluation.scores import Classifier
from normlab.nets import checkpoint
from normlab.sources.pictures import decode, visible

FIELDS = ("file", "class", "probability")


@dataclass(frozen=True)
class Prediction:
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
    pictures, resized = [], 0
    for file in found:
        picture, changed = read(file)
        pictures.append(picture)
        resized += changed
    if resized:
        print(f"resized to {SIZE}x{SIZE}: {resized} of {len(found)} images", file=sys.stderr)
    classify = Classifier(model, spec, runtime.make("float32", False, 0))
    probabilities = classify(torch.from_numpy(np.stack(pictures))).softmax(1)
    best = probabilities.max(1)
    return [
        Prediction(file, spec.classes[label], probability)
        for file, label, probability in zip(
            found, best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]


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
    found = [
        place
        for place in visible(path, "**/*")
        if place.suffix.lower() in endings and place.is_file()
    ]
    if not found:
        raise NormlabError(f"{path}: holds no image files")
    return found


def read(path: Path) -> tuple[np.ndarray, bool]:
    """uint8 `[32, 32, 3]` of an image file, and whether it was resized, proportions or no."""
    picture = decode(path)
    if picture.size == (SIZE, SIZE):
        return np.asarray(picture), False
    small = picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return np.asarray(small), True


def write(path: Path, predictions: list[Prediction]) -> None:
    rows = [dict(zip(FIELDS, (p.file, p.label, p.probability), strict=True)) for p in predictions]
    files.write_csv(path, rows, FIELDS)
