"""Where images come from. A source is a module here whose `load` gives (train, test)."""

import os
from importlib import import_module
from pathlib import Path

from normlab.data.images import Images
from normlab.sources import folder


def load(dataset: str) -> tuple[Images, Images]:
    """Training and test images of `dataset`, a value of params.yaml's key of that name.

    Raises `NormlabError`, with what to do next, when they are not all available.
    """
    kind, _, path = dataset.partition(":")
    if kind == "folder":
        # A `~` that leads nowhere stays, to be named; that of `Path` raises a RuntimeError.
        return folder.load(Path(os.path.expanduser(path)))  # noqa: PTH111
    return import_module(f"normlab.sources.{kind}").load()
