"""Where images come from. A source is a module here whose `load` gives (train, test)."""

import os
from pathlib import Path

from normlab.data.images import Images
from normlab.sources import cifar10, digits, folder


def load(dataset: str) -> tuple[Images, Images]:
    """Training and test images of `dataset`, a value of params.yaml's key of that name.

    Raises `NormlabError`, with what to do next, when they cannot be had whole.
    """
    if dataset.startswith("folder:"):
        # A `~` that leads nowhere stays, to be named; that of `Path` raises a RuntimeError.
        path = os.path.expanduser(dataset.removeprefix("folder:"))  # noqa: PTH111
        return folder.load(Path(path))
    return {"cifar10": cifar10.load, "digits": digits.load}[dataset]()
