"""Where a training keeps its state, so that one that was killed resumes.

DVC deletes a stage's outputs before it runs the stage, so the state is outside every output:
in `.scratch/` of the repository, or where the environment variable NORMLAB_SCRATCH says. It is
keyed by a fingerprint of everything that determines the training: with changed parameters, data
or code it looks elsewhere and finds nothing.
"""

import fcntl
import hashlib
import io
import itertools
import json
import os
import pickle
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch

from normlab.config.paths import SCRATCH, scratch_root
from normlab.utils import files
from normlab.utils.errors import NormlabError


def fingerprint(determinants: Any) -> str:
    """A digest of `determinants`, plain values, and of torch's version."""
    content = json.dumps([determinants, torch.__version__], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


class Scratch:
    """The folder of one training; use as a context manager, which locks it."""

    def __init__(self, run: str, key: str) -> None:
        self._base = scratch_root() / f"{run}-{key[:16]}"
        self.path = self._base
        self._lock: IO[str] | None = None

    def __enter__(self) -> "Scratch":
        # Two experiments may train the very same run at once: the second uses another folder.
        for count in itertools.count(1):
            self.path = self._base if count == 1 else Path(f"{self._base}-{count}")
            with suppress(BlockingIOError):
                self._lock = lock(self.path)
                break
        return self

    def __exit__(self, *exception: object) -> None:
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
            line = f"warning: {self.path}: damaged ({error}); restarting from scratch"
            print(line, file=sys.stderr)
            return None
        return state

    def remove(self) -> None:
        """Remove the folder: the training is finished and its outputs are written."""
        (self.path / "state").unlink(missing_ok=True)  # first: what is left is then no state
        # A network file system keeps the locked file, as a hidden one, until it is closed.
        shutil.rmtree(self.path, ignore_errors=True)


def lock(folder: Path) -> IO[str]:
    """The folder's lock, which lasts until the file that is returned is closed.

    Raises `BlockingIOError` while another process has it, and `NormlabError` where the file
    system has no locks.
    """
    path = folder / "lock"
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("w")
        except FileNotFoundError:  # the last holder has just removed the folder
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The lock is stale if its last holder has removed the file, or another has replaced it.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BlockingIOError:
            file.close()
            raise
        except OSError as error:
            file.close()
            raise NormlabError(
                f"{path}: cannot be locked ({error.strerror}), as on some network file systems; "
                f"set {SCRATCH} to a folder on a local disk"
            ) from None
        file.close()
