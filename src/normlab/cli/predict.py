"""Image files classified by a trained run."""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from mimetypes import MimeTypes
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from normlab.compute.runtime import make_runtime
from normlab.config import pipeline
from normlab.config.paths import RunFiles
from normlab.data.images import SIZE
from normlab.evaluation.scores import classifier
from normlab.nets import checkpoint
from normlab.sources.pictures import below, decode
from normlab.utils import files
from normlab.utils.errors import NormlabError, one_line


class Failures:
    """Counts what cannot be classified, and says why: one line each, on stderr."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, error: NormlabError | OSError) -> None:
        self.count += 1
        print(one_line(error), file=sys.stderr)


def run(run: str, paths: Sequence[Path], csv: Path | None) -> None:
    """Classify the images `paths` by the best weights of `run`; print the predictions.

    With `csv` they are also written there; in place of the print if that is the output itself.
    Raises `NormlabError` before any work for a `csv` that cannot be written, and at the end, when
    all others are classified and written, if any image could not be.
    """
    failures = Failures()
    found = [file for path in paths for file in expand(path, failures)]
    is_output = csv and csv.exists() and os.path.samestat(csv.stat(), os.fstat(1))  # /dev/stdout
    with files.atomic(named(csv, found)) if csv and not is_output else nullcontext() as target:
        predictions = predict(run, found, failures)
        if target:
            target.write_bytes(files.csv_bytes(predictions))
    if is_output:
        sys.stdout.buffer.write(files.csv_bytes(predictions))
    else:  # once the file is there: a reader of the output may leave early
        width = max(len(row["class"]) for row in predictions)
        for row in predictions:
            print(f"{row['class']:{width}}  {row['probability']:7.2%}  {row['file']}")
    if failures.count:
        raise NormlabError(f"could not classify {failures.count} of the files (see above)")


def predict(run: str, images: Sequence[Path], failures: Failures) -> list[dict[str, Any]]:
    """Classify the files `images`; those that cannot be read go to `failures`.

    Returns rows of file, class and probability (softmax, from 0 to 1). Images of another size than
    32x32 are resized, and a line on stderr says how many. Raises `NormlabError` for a run that does
    not exist or is not trained, and if no image is left.
    """
    import torch

    model, spec, _ = checkpoint.load(weights(run))
    readable, pixels, resized = [], [], 0
    for image in images:
        try:
            small, was_resized = read(image)
        except (NormlabError, OSError) as error:
            failures.add(error)
        else:
            readable.append(image)
            pixels.append(small)
            resized += was_resized
    if not readable:
        raise NormlabError("no image could be read, so nothing is classified")
    if resized:
        print(f"resized to {SIZE}x{SIZE}: {resized} of {len(readable)} images", file=sys.stderr)
    logits = classifier(model, spec, make_runtime("float32", False, 0))
    best = logits(torch.from_numpy(np.stack(pixels))).cpu().softmax(1).max(1)
    labels = [spec.classes[index] for index in best.indices.tolist()]
    return [
        {"file": file, "class": label, "probability": probability}
        for file, label, probability in zip(readable, labels, best.values.tolist(), strict=True)
    ]


def weights(run: str) -> Path:
    """The best weights of `run`, fetched from DVC's cache or remote if they are not there."""
    names = pipeline.runs()
    if run not in names:
        raise NormlabError(f"run = {run}: must be one of {', '.join(names)}")
    path = RunFiles(run).weights
    if path.exists():
        return path
    command = [sys.executable, "-m", "dvc", "pull", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if not path.exists():
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = errors[0].removeprefix("ERROR: ").rstrip(":") if errors else "no reason given"
        raise NormlabError(
            f"{path}: not found, and `dvc pull` did not fetch it ({reason}); "
            f"`dvc repro evaluate@{run}` trains it"
        )
    return path


def expand(path: Path, failures: Failures) -> list[Path]:
    """`path` itself, or all image files seen below it, in the order of their names.

    Of a folder, a line on stderr names each file that is skipped because of its extension.
    """
    if not path.is_dir():
        return [path]
    found = []
    for file in below(path, failures.add):
        if file.suffix.lower() in endings():
            found.append(file)
        else:
            print(f"{file}: skipped, its extension is not that of an image", file=sys.stderr)
    if not found:
        failures.add(NormlabError(f"{path}: contains no image files"))
    return found


@cache
def endings() -> set[str]:
    """The extensions of image files, in lower case, whether or not Pillow reads that kind."""
    readable = {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    tables = MimeTypes().types_map  # Python's own, without the system's: the same everywhere
    images = {end for table in tables for end, kind in table.items() if kind.startswith("image/")}
    return readable | images


def named(csv: Path, images: Sequence[Path]) -> Path:
    """The file that is written for `csv`: links are followed, so that they are kept.

    Raises `NormlabError` if it cannot be that, or is one of `images` or another picture.
    """
    target = Path(os.path.realpath(csv))
    is_image = csv.is_file() and (
        csv.suffix.lower() in endings() or any(map(csv.samefile, filter(os.path.exists, images)))
    )
    for wrong, reason in (
        (target.is_dir(), "is a folder; name a file"),
        (not target.parent.is_dir(), f"there is no folder {target.parent}"),
        (csv.exists() and not os.access(csv, os.W_OK), "is write-protected"),
        (is_image, "would overwrite an image; name another file"),
    ):
        if wrong:
            raise NormlabError(f"--csv {csv}: {reason}")
    return csv if csv.exists() and not csv.is_file() else target  # pipes have no other path


def read(path: Path) -> tuple[np.ndarray, bool]:
    """uint8 `[32, 32, 3]` of an image file, and whether it was resized, ignoring proportions."""
    picture = decode(path)
    small = picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)  # a copy if that is its size
    return np.asarray(small), picture.size != small.size
