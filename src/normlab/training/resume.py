"""Where a training keeps its state, so that one that was killed goes on where it stood.

DVC deletes a stage's outputs before it runs the stage, so the state lies outside every output:
in `.scratch/` of the repository, or where the environment variable NORMLAB_SCRATCH says. It is
keyed by a fingerprint of everything that determines the run: changed parameters, data or code
look elsewhere and find nothing.
"""

import fcntl
import hashlib
import io
import json
import pickle
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch

from normlab.config.paths import scratch_root
from normlab.utils import files


def fingerprint(determinants: dict[str, Any]) -> str:
    """A digest of `determinants`, of this project's code that is loaded, and of torch's version."""
    code = {
        name: files.sha256(module.__file__)
        for name, module in sorted(sys.modules.items())
        if name.startswith("normlab.") and module.__file__ and _decides(name)
    }
    content = json.dumps([determinants, code, torch.__version__], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _decides(module: str) -> bool:
    """Whether what a training writes can follow from `module`, as dvc.yaml has it."""
    return module == "normlab.nets.architecture" or module.split(".")[1] != "base"


class Scratch:
    """The folder of one training; use as a context manager, which locks it."""

    def __init__(self, run: str, key: str) -> None:
        self._base = scratch_root() / f"{run}-{key[:16]}"
        self.path = self._base
        self._lock: IO[str] | None = None

    def __enter__(self) -> "Scratch":
        # Two experiments may train the very same run at once: the second works beside the first.
        for count in range(1, 1000):
            self.path = self._base if count == 1 else Path(f"{self._base}-{count}")
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "lock").open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            self._lock = lock
            if (self.path / "lock").exists():  # not removed by its last holder in between
                return self
            lock.close()
        raise RuntimeError(f"{self._base}: a thousand trainings of one run at once")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock:
            self._lock.close()

    def save(self, state: dict[str, Any]) -> None:
        """Keep `state`, tensors and plain values, atomically."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        files.write_bytes(self.path / "state", hashlib.sha256(content).digest() + content)

    def load(self) -> dict[str, Any] | None:
        """The state kept last, or None if there is none; a damaged one is reported and dropped."""
        try:
            whole = (self.path / "state").read_bytes()
        except FileNotFoundError:
            return None
        digest, content = whole[:32], whole[32:]
        try:
            if hashlib.sha256(content).digest() != digest:
                raise ValueError("wrong checksum")
            state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
        except (ValueError, RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            print(f"warning: {self.path}: damaged ({error}); starting over", file=sys.stderr)
            return None
        return state

    def remove(self) -> None:
        """Remove the folder: the training is finished and its outputs are written."""
        (self.path / "state").unlink(missing_ok=True)  # first: what is left is then no state
        # A network file system keeps the locked file, as a hidden one, until it is closed.
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):  # other trainings may use it
            self.path.parent.rmdir()
