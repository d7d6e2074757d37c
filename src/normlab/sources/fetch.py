"""Downloads: complete or not at all, with a progress bar, never hanging."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from normlab.utils import files
from normlab.utils.errors import NormlabError
from normlab.utils.progress import track

START = 10  #: seconds for the name lookup, to connect and for the first byte
STALL = 20  #: seconds without a byte after which a download is given up


def download(url: str, path: Path) -> Path:
    """Download `url` to `path`, and return that.

    Raises `NormlabError` with the reason when the server cannot be reached, refuses, stalls or
    sends only a part.
    """
    import requests
    import urllib3

    try:
        with _response(url) as response:
            response.raise_for_status()
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            with files.atomic(path) as temporary, temporary.open("wb") as file:
                # As they come: some servers call an archive's own compression an encoding.
                pieces = response.raw.stream(1 << 16, decode_content=False)
                for piece in track(pieces, f"downloading {path.name}", total, len):
                    file.write(piece)
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        cause: BaseException = error  # which requests wraps several times
        while cause.__context__:
            cause = cause.__context__
        raise NormlabError(f"{type(cause).__name__}: {cause}") from None
    return path


def _response(url: str) -> Any:
    """The response of the server, asked in a thread: no timeout bounds the lookup of its name."""
    import requests

    response: Future[Any] = Future()

    def ask() -> None:
        try:
            headers = {"Accept-Encoding": "identity"}
            times = (START / 2, STALL)
            response.set_result(requests.get(url, headers=headers, stream=True, timeout=times))
        except Exception as error:
            response.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return response.result(timeout=START)
    except TimeoutError:
        raise NormlabError(f"no response in {START} s") from None


def npm_pack(package: str, folder: Path, size: int) -> Path:
    """The archive, of `size` bytes, of an npm package `name@version`, put into `folder`.

    The `npm` client uses the registry it is configured for. Raises `NormlabError` with the
    reason when there is no client, or when it fails or stalls.
    """
    client = shutil.which("npm")
    if client is None:
        raise NormlabError("npm is not installed")
    cache, said = folder / "npm-cache", folder / "npm.json"
    command = [client, "pack", package, f"--cache={cache}", "--json", "--loglevel=silent",
               "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]  # fmt: skip
    with said.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file)
        try:
            for _ in track(_growth(cache, process, said), f"npm pack {package}", size, int):
                pass
        finally:
            process.kill()
            process.wait()
    return folder / f"{package.replace('@', '-')}.tgz"


def _growth(cache: Path, process: subprocess.Popen, said: Path) -> Iterator[int]:
    """Bytes by which npm's `cache` grew since the last time, until `process` has succeeded."""
    known, last = 0, time.monotonic()
    while process.poll() is None:
        time.sleep(0.1)
        with suppress(FileNotFoundError):  # npm moves its files
            size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
            if size > known:
                yield size - known
                known, last = size, time.monotonic()
        if time.monotonic() - last > STALL:
            raise NormlabError(f"npm received nothing for {STALL} s")
    if process.returncode:
        reason = f"npm ended with exit code {process.returncode}"
        with suppress(ValueError, KeyError, TypeError):
            reason = json.loads(said.read_bytes())["error"]["summary"]
        raise NormlabError(reason)
