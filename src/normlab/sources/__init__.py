"""Where images come from. A source is a module here whose `load` gives (train, test)."""

from pathlib import Path

from normlab.data.images import Images
from normlab.sources import cifar10, digits, folder


def load(dataset: str) -> tuple[Images, Images]:
    """Training and test images of `dataset`, a value of params.yaml's key of that name.

    Raises `NormlabError`, with what to do next, when they cannot be had whole.
    """
    if dataset.startswith("folder:"):
        return folder.load(Path(dataset.removeprefix("folder:")).expanduser())
    return {"cifar10": cifar10.load, "digits": digits.load}[dataset]()
