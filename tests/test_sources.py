"""Where images come from: whole and right, or one line that says what to do next."""

import functools
import gzip
import hashlib
import http.server
import io
import json
import os
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import yaml
from conftest import ARCHIVE, ROOT
from PIL import Image

import stages.download
from normlab import sources
from normlab.base import files
from normlab.base.errors import NormlabError, run_app
from normlab.data.images import Images, read, write

AGAIN = "get the archive again, or use -S dataset=digits"
NEEDED = "in train/<class>/ and in test/<class>/"
Parts = dict[str, bytes]


def refusal(load: Callable[[], object]) -> str:
    """What `load` says when it refuses: one line."""
    with pytest.raises(NormlabError) as raised:
        load()
    line = str(raised.value)
    assert line.splitlines() == [line]
    assert "object at 0x" not in line
    return line


@functools.cache
def picture(color: int = 0, size: int = 32, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """The content of an image file; `color` decides every pixel."""
    pixels = np.random.default_rng(color).integers(0, 256, (size, size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def parts() -> Parts:
    """Two classes, two training images and one test image of each."""
    return {
        f"{place}.png": picture(color)
        for color, place in enumerate(
            ("train/cat/0", "train/cat/1", "train/dog/0", "train/dog/1", "test/cat/0", "test/dog/0")
        )
    }


def fill(root: Path, content: Parts) -> Path:
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def pack(path: Path, content: Parts, *more: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    """A tar archive of `content` and of the bare headers `more`."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in content.items():
            member = tarfile.TarInfo(f"root/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in more:
            archive.addfile(member)
    return path


def header(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0
) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, size
    return member


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test forgets to replace leads to a closed port of this machine."""
    monkeypatch.delenv(sources.MIRROR, raising=False)
    monkeypatch.setattr(sources, "JPEG_URL", "http://127.0.0.1:9/jpeg.tar.gz")
    monkeypatch.setattr(sources, "TIMEOUT", (5, 5))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; the path's first part says how badly."""

    def do_GET(self) -> None:
        how = self.path.split("/")[1]
        if how == "stall":  # until the client has gone, at most some seconds
            self.connection.settimeout(5)
            self.connection.recv(1)
        elif how == "stall-midway":
            self.begin(1000)
            self.wfile.write(b"x" * 10)
            self.wfile.flush()
            self.connection.settimeout(5)
            self.connection.recv(1)
        elif how == "half":
            self.begin(1000)
            self.wfile.write(b"x" * 500)
        elif how == "odd-length":
            self.begin("many")
            self.wfile.write(b"x" * 500)
        else:
            super().do_GET()

    def begin(self, length: object) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The base URL of a server of the folder `tmp_path/served`."""
    (tmp_path / "served").mkdir()
    handler = functools.partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        served.daemon_threads = True
        thread = threading.Thread(target=served.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def check_whole(pair: sources.Pair, train: int, test: int, classes: int) -> None:
    for found, count in zip(pair, (train, test), strict=True):
        assert found.pixels.shape == (count, 32, 32, 3)
        assert found.pixels.dtype == np.uint8
        assert found.labels.dtype == np.int64
        assert set(found.labels) == set(range(classes))
        assert len(found.classes) == classes


# ------------------------------------------------------------------------------- good sources


def test_digits_are_partitioned_the_same_way_every_time() -> None:
    first, second = sources.load("digits"), sources.load("digits")
    check_whole(first, 1437, 360, 10)
    assert [part.checksum() for part in first] == [part.checksum() for part in second]


def test_digits_are_scikit_learns_in_order() -> None:
    from sklearn.datasets import load_digits

    train, test = sources.load("digits")
    digits = load_digits()
    assert test.labels.tolist() == digits.target[::5].tolist()
    assert train.labels[:4].tolist() == digits.target[1:5].tolist()
    grey = digits.images[5] / 16 * 255
    for channel in range(3):
        np.testing.assert_allclose(test.pixels[1, ::4, ::4, channel], grey, atol=0.5)


def test_a_folder_of_any_classes_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    content = parts() | {"train/emu/b.png": picture(7), "test/emu/a.png": picture(8)}
    pair = sources.load(f"folder:{fill(tmp_path, content)}")
    check_whole(pair, 5, 3, 3)
    assert pair[0].classes == pair[1].classes == ("cat", "dog", "emu")
    assert pair[0].labels.tolist() == [0, 0, 1, 1, 2]
    expected = np.asarray(Image.open(io.BytesIO(picture(7))))
    assert np.array_equal(pair[0].pixels[4], expected)


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "CMYK"])
def test_a_folder_converts_every_image_to_three_channels(mode: str, tmp_path: Path) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    content = parts() | {"train/cat/0.png": picture(3, kind=kind, mode=mode)}
    train, _ = sources.load(f"folder:{fill(tmp_path, content)}")
    if mode in ("L", "1"):
        assert np.array_equal(train.pixels[0, ..., 0], train.pixels[0, ..., 2])
    assert train.pixels.shape == (4, 32, 32, 3)


def test_a_folder_passes_over_what_is_hidden_or_elsewhere(tmp_path: Path) -> None:
    content = parts() | {
        "train/cat/.DS_Store": b"no image",
        "train/.ipynb_checkpoints/x.png": b"no image",
        ".git/train/x.png": b"no image",
        "train/README": b"no image",
        "LICENSE": b"no image",
        "drafts/cat/0.png": b"no image",
    }
    (tmp_path / "train/.empty").mkdir(parents=True)
    check_whole(sources.load(f"folder:{fill(tmp_path, content)}"), 4, 2, 2)


def test_a_folder_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    fill(tmp_path / "pictures", parts())
    check_whole(sources.load("folder:~/pictures"), 4, 2, 2)


def test_cifar10_jpeg_is_whole(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All 60,000 images of the real archive: the checksum is compared by `load` itself."""
    monkeypatch.setenv(sources.MIRROR, str(mirror))
    pair = sources.load("cifar10-jpeg")
    check_whole(pair, 50_000, 10_000, 10)
    assert set(np.bincount(pair[0].labels)) == {5000}
    assert set(np.bincount(pair[1].labels)) == {1000}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sources.Pair:
    """Lets a small archive at `tmp_path/served` count as the real cifar10-jpeg."""
    (tmp_path / "served").mkdir(exist_ok=True)
    pair = sources.read_archive(pack(tmp_path / "served" / ARCHIVE, parts()))
    checksums = tuple(part.checksum() for part in pair)
    monkeypatch.setattr(sources, "JPEG_SHA256", checksums)
    return pair


def same(one: sources.Pair, other: sources.Pair) -> bool:
    return [part.checksum() for part in one] == [part.checksum() for part in other]


def test_the_mirror_may_be_a_folder(
    tiny: sources.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_whole(tiny, 4, 2, 2)
    monkeypatch.setenv(sources.MIRROR, f"{tmp_path}/served/")
    assert same(sources.load("cifar10-jpeg"), tiny)


def test_the_mirror_may_be_a_base_url(
    server: str, tiny: sources.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(sources.MIRROR, f"{server}/")
    assert same(sources.load("cifar10-jpeg"), tiny)


def test_without_a_mirror_the_archive_comes_from_its_url(
    server: str, tiny: sources.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "JPEG_URL", f"{server}/{ARCHIVE}")
    assert same(sources.load("cifar10-jpeg"), tiny)


def test_a_mirror_that_lacks_the_archive_is_passed_over(
    server: str, tiny: sources.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(sources.MIRROR, str(tmp_path))
    monkeypatch.setattr(sources, "JPEG_URL", f"{server}/{ARCHIVE}")
    assert same(sources.load("cifar10-jpeg"), tiny)


@pytest.mark.parametrize("mode", ["w", "w:bz2", "w:xz"])
def test_an_archive_may_be_packed_otherwise(mode: str, tiny: sources.Pair, tmp_path: Path) -> None:
    assert same(sources.read_archive(pack(tmp_path / "other", parts(), mode=mode)), tiny)


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A small archive with the inner structure of the official one; its training pixels."""
    import torchvision.datasets

    def batch(count: int) -> bytes:
        data = generator.integers(0, 256, (count, 3072), np.uint8)
        rows.append(data)
        return pickle.dumps({"data": data, "labels": [i % 2 for i in range(count)]})

    generator, rows = np.random.default_rng(0), []
    content = {"data_batch_1": batch(4), "data_batch_2": batch(4), "test_batch": batch(2)}
    content["batches.meta"] = pickle.dumps({"label_names": ["cat", "dog"]})
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in content.items()}
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in content.items():
            member = header(f"cifar-10-batches-py/{name}", size=len(data))
            archive.addfile(member, io.BytesIO(data))
    dataset = torchvision.datasets.CIFAR10
    monkeypatch.setattr(dataset, "url", "http://127.0.0.1:9/python.tar.gz")
    monkeypatch.setattr(dataset, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setattr(dataset, "train_list", [[n, md5[n]] for n in md5 if n[:4] == "data"])
    monkeypatch.setattr(dataset, "test_list", [["test_batch", md5["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5["batches.meta"]}
    monkeypatch.setattr(dataset, "meta", meta)
    monkeypatch.setenv(sources.MIRROR, str(tmp_path))
    return np.concatenate(rows[:2])


def test_the_official_archive_is_read_with_channels_last(
    official: np.ndarray, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    pair = sources.load("cifar10")
    check_whole(pair, 8, 2, 2)
    assert pair[0].classes == ("cat", "dog")
    assert np.array_equal(pair[0].pixels, official.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    assert sorted(tmp_path.rglob("*")) == before


def test_an_official_archive_with_another_md5_is_refused_unread(
    official: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(path.read_bytes() + b"\0")
    line = refusal(lambda: sources.load("cifar10"))
    assert line.startswith(f"{path}: wrong md5, not ")
    assert line.endswith("or use -S dataset=cifar10-jpeg")


# -------------------------------------------------------------------------------- bad archives


def damaged_gzip(path: Path) -> Path:
    """As a disk error leaves it: some bytes in the middle are others."""
    content = bytearray(pack(path, parts()).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    return path


def cut(path: Path, share: float, mode: str = "w:gz") -> Path:
    content = pack(path, parts(), mode=mode).read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def text(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def bomb(path: Path, kind: bytes) -> Path:
    """A header of `kind` that claims a gigabyte of zeros, and some of them, well compressed."""
    member = header("root/train/cat/0.png", kind, size=1 << 30)
    with gzip.open(path, "wb", 1) as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        for _ in range(8):
            file.write(bytes(1 << 20))
    return path


def hidden_size(path: Path) -> Path:
    """An extended header gives its member another, huge size."""
    member = header("root/train/cat/0.png")
    member.pax_headers = {"size": str(1 << 30)}
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member)
    return path


def many(path: Path) -> Path:
    return pack(path, {}, *(header(f"root/notes/{i}") for i in range(30)))


NO_TAR = "is truncated, damaged or no tar archive"
BAD_ARCHIVES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "truncated gzip": (lambda p: cut(p, 0.5), NO_TAR),
    "truncated gzip header": (lambda p: cut(p, 0.001), NO_TAR),
    "truncated tar": (lambda p: cut(p, 0.35, "w"), NO_TAR),
    # tarfile takes an end of the file between two members for the end of the archive
    "truncated between members": (lambda p: cut(p, 0.4, "w"), "class test/cat is empty"),
    "truncated xz": (lambda p: cut(p, 0.5, "w:xz"), NO_TAR),
    "damaged gzip": (damaged_gzip, "is a damaged image ("),
    "no archive": (lambda p: text(p, b"<html>Not found</html>" * 100), NO_TAR),
    "empty file": (lambda p: text(p, b""), NO_TAR),
    "gzip of no archive": (lambda p: text(p, gzip.compress(b"x" * 9000)), NO_TAR),
    "missing file": (lambda p: p, NO_TAR),
    "folder": (lambda p: p.parent, NO_TAR),
    "nothing but zeros": (lambda p: text(p, gzip.compress(bytes(1 << 24))), "holds 0 classes"),
    "zip archive": (lambda p: text(p, b"PK\x03\x04" + bytes(2000)), NO_TAR),
    "path traversal": (lambda p: pack(p, parts(), header("../x")), "'../x' lies outside"),
    "traversal midway": (lambda p: pack(p, {}, header("a/../../x")), "lies outside the folder"),
    "absolute path": (lambda p: pack(p, parts(), header("/etc/x")), "'/etc/x' lies outside"),
    "symbolic link": (
        lambda p: pack(p, parts(), header("root/train/cat/9", tarfile.SYMTYPE, "/etc/passwd")),
        "'root/train/cat/9' is a link or a device",
    ),
    "hard link": (
        lambda p: pack(p, parts(), header("root/train/cat/9", tarfile.LNKTYPE, "../../x")),
        "is a link or a device",
    ),
    "fifo": (lambda p: pack(p, {}, header("root/f", tarfile.FIFOTYPE)), "is a link or a device"),
    "device": (lambda p: pack(p, {}, header("root/d", tarfile.CHRTYPE)), "is a link or a device"),
    "huge member": (lambda p: bomb(p, tarfile.REGTYPE), "has 1073741824 bytes, more than"),
    "huge name": (lambda p: bomb(p, tarfile.GNUTYPE_LONGNAME), "has 1073741824 bytes, more than"),
    "huge header": (lambda p: bomb(p, tarfile.XHDTYPE), "has 1073741824 bytes, more than"),
    "huge global header": (lambda p: bomb(p, tarfile.XGLTYPE), "has 1073741824 bytes, more"),
    "size in a header": (hidden_size, "has 1073741824 bytes, more than"),
    "many members": (many, "holds more than 20 members"),
    "another file format": (
        lambda p: pack(p, parts() | {"train/cat/0.png": b"GIF89z" + bytes(100)}),
        "train/cat/0.png is no image",
    ),
    "empty image": (lambda p: pack(p, parts() | {"train/cat/0.png": b""}), "is no image"),
    "truncated JPEG": (
        lambda p: pack(p, parts() | {"train/cat/0.jpg": picture(1, kind="JPEG")[:700]}),
        "train/cat/0.jpg is a damaged image (",
    ),
    "truncated PNG": (
        lambda p: pack(p, parts() | {"train/cat/0.png": picture(0)[:1000]}),
        "train/cat/0.png is a damaged image (",
    ),
    "wrong size": (
        lambda p: pack(p, parts() | {"test/dog/0.png": picture(0, size=31)}),
        "test/dog/0.png has 31x31 pixels, not 32x32",
    ),
    "empty class": (
        lambda p: pack(p, parts(), header("root/train/emu", tarfile.DIRTYPE)),
        "class train/emu is empty",
    ),
    "class missing in test": (
        lambda p: pack(p, parts() | {"train/emu/0.png": picture(0)}),
        "class test/emu is empty",
    ),
    "one class": (
        lambda p: pack(p, {name: data for name, data in parts().items() if "cat" in name}),
        "holds 1 classes",
    ),
    "no images": (lambda p: pack(p, {"README": b"read me"}), "holds 0 classes"),
}


@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_a_bad_archive_is_refused_and_nothing_is_written(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_IMAGES", 20)
    monkeypatch.chdir(tmp_path)
    make, named = BAD_ARCHIVES[case]
    path = make(tmp_path / "bad.tar.gz")
    before = sorted(tmp_path.rglob("*"))
    line = refusal(lambda: sources.read_archive(path))
    assert line.startswith(f"{path}: ")
    assert named in line
    assert line.endswith(f"; {AGAIN}")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_sound_archive_of_other_images_has_the_wrong_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(tmp_path / ARCHIVE, parts())
    monkeypatch.setenv(sources.MIRROR, str(tmp_path))
    line = refusal(lambda: sources.load("cifar10-jpeg"))
    assert line.startswith(f"{ARCHIVE}: wrong checksum: ")
    assert line.endswith("or use -S dataset=digits")


# --------------------------------------------------------------------------------- bad folders

BAD_FOLDERS: dict[str, tuple[Parts, str]] = {
    "no image": (parts() | {"train/cat/notes.txt": b"hello"}, "train/cat/notes.txt is no image"),
    "truncated JPEG": (
        parts() | {"test/cat/1.jpg": picture(1, kind="JPEG")[:700]},
        "test/cat/1.jpg is a damaged image (",
    ),
    "wrong size": (
        parts() | {"train/dog/2.png": picture(0, size=64)},
        "train/dog/2.png has 64x64 pixels, not 32x32",
    ),
    "class of hidden files": (parts() | {"test/emu/.keep": b""}, "class train/emu is empty"),
    "class missing in test": (
        parts() | {"train/emu/0.png": picture(0)},
        "class test/emu is empty",
    ),
    "no test images": (
        {name: data for name, data in parts().items() if name.startswith("train")},
        "class test/cat is empty",
    ),
    "images one level up": ({"cat/0.png": picture(0)}, "holds 0 classes"),
    "nothing": ({}, "holds 0 classes"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_a_bad_folder_is_refused(case: str, tmp_path: Path) -> None:
    content, named = BAD_FOLDERS[case]
    fill(tmp_path, content)
    line = refusal(lambda: sources.load(f"folder:{tmp_path}"))
    assert line.startswith(f"dataset = folder:{tmp_path}: {named}")
    assert line.endswith(NEEDED)


def test_an_empty_class_is_refused(tmp_path: Path) -> None:
    (fill(tmp_path, parts()) / "train/emu").mkdir()
    line = refusal(lambda: sources.load(f"folder:{tmp_path}"))
    assert f"{tmp_path}: class train/emu is empty; needed are at least 2 classes" in line


@pytest.mark.parametrize("name", ["missing", "train/cat/0.png"])
def test_a_missing_folder_is_named(name: str, tmp_path: Path) -> None:
    root = fill(tmp_path, parts()) / name
    assert refusal(lambda: sources.load(f"folder:{root}")) == (
        f"dataset = folder:{root}: no such folder; "
        "name one that holds train/<class>/* and test/<class>/*"
    )


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fill(tmp_path, parts()) / "train/dog/1.png"
    path.chmod(0)
    if os.geteuid() == 0:  # root reads everything
        read = Path.read_bytes

        def deny(self: Path) -> bytes:
            if self == path:
                raise PermissionError(13, "Permission denied", str(self))
            return read(self)

        monkeypatch.setattr(Path, "read_bytes", deny)
    assert refusal(lambda: sources.load(f"folder:{tmp_path}")) == (
        f"{path}: cannot be read (Permission denied); make it readable, or remove it"
    )


# ----------------------------------------------------------------------------------- networks


@pytest.mark.parametrize(
    ("dataset", "name"), [("cifar10-jpeg", ARCHIVE), ("cifar10", "cifar-10-python.tar.gz")]
)
def test_without_network_the_mirror_and_digits_are_named(
    dataset: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dataset == "cifar10":
        monkeypatch.setattr("torchvision.datasets.CIFAR10.url", "http://127.0.0.1:9/python.tar.gz")
    line = refusal(lambda: sources.load(dataset))
    assert line.startswith(f"dataset = {dataset}: cannot be had: http://127.0.0.1:9/")
    assert "Connection refused" in line
    assert line.endswith(
        f"Set NORMLAB_MIRROR to a folder or base URL that holds {name}, or use -S dataset=digits"
    )


def test_a_mirror_that_fails_is_named_beside_the_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(sources.MIRROR, str(tmp_path))
    line = refusal(lambda: sources.load("cifar10-jpeg"))
    assert f"{tmp_path}/{ARCHIVE}: no such file; http://127.0.0.1:9/" in line


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("stall", "timed out"),
        ("stall-midway", "timed out"),
        ("half", "IncompleteRead"),
        ("missing", "404"),
    ],
)
def test_a_server_that_fails_leaves_nothing(
    how: str, reason: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "TIMEOUT", (1, 0.3))
    monkeypatch.setenv(sources.MIRROR, f"{server}/{how}")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    line = refusal(lambda: sources.load("cifar10-jpeg"))
    assert f"{server}/{how}/{ARCHIVE}: " in line
    assert reason in line
    assert line.endswith("or use -S dataset=digits")
    assert not list(temporary.iterdir())

    target = tmp_path / "target" / ARCHIVE
    assert reason in refusal(lambda: sources.download(f"{server}/{how}/x", target))
    assert not list(tmp_path.glob("target/*"))
    assert not list(tmp_path.glob("target/.*"))


def test_an_odd_length_of_a_server_is_no_matter(server: str, tmp_path: Path) -> None:
    sources.download(f"{server}/odd-length/x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"x" * 500


@pytest.mark.parametrize("mirror_url", ["http://", "ftp://127.0.0.1", "http://[::1", "://x"])
def test_a_mirror_that_is_no_address_is_refused(
    mirror_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(sources.MIRROR, mirror_url)
    assert refusal(lambda: sources.load("cifar10-jpeg")).endswith("or use -S dataset=digits")


# --------------------------------------------------------------------------- files of the stages


def test_what_is_written_is_read_the_same(images: Callable[[int], Images], tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, images(10))
    assert read(tmp_path / "one").checksum() == images(10).checksum()
    assert files.sha256(tmp_path / "one") == files.sha256(tmp_path / "two")


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_a_damaged_images_file_is_refused(
    share: float, images: Callable[[int], Images], tmp_path: Path
) -> None:
    path = tmp_path / "train.safetensors"
    write(path, images(10))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    line = refusal(lambda: read(path))
    assert line.startswith(f"{path}: is no images file (")
    assert line.endswith("`dvc repro -f download`")


PIXELS = np.zeros((2, 32, 32, 3), np.uint8)
LABELS = np.zeros(2, np.int64)
OTHER_CONTENT: dict[str, tuple[np.ndarray, np.ndarray, object, str]] = {
    "size": (PIXELS[:, :28, :28], LABELS, ["a"], "pixels are uint8 (2, 28, 28, 3), not uint8 [N, "),
    "grey": (PIXELS[..., 0], LABELS, ["a"], "pixels are uint8 (2, 32, 32), not uint8 [N, 32, 32"),
    "float pixels": (PIXELS / 255, LABELS, ["a"], "pixels are float64 (2, 32, 32, 3), not uint8"),
    "fewer labels": (PIXELS, LABELS[:1], ["a"], "labels are int64 (1,), not int64 [2]"),
    "scalar label": (PIXELS, LABELS[0], ["a"], "labels are int64 (), not int64 [2]"),
    "float labels": (PIXELS, LABELS / 2, ["a"], "labels are float64 (2,), not int64 [2]"),
    "no images": (PIXELS[:0], LABELS[:0], ["a"], "labels are int64 (0,), not int64 [0]"),
    "no classes": (PIXELS, LABELS, [], "classes are (), not names"),
    "numbered classes": (PIXELS, LABELS, [7], "classes are (7,), not names"),
    "a number for classes": (PIXELS, LABELS, 7, "is no images file ("),
    "label too large": (PIXELS, LABELS + 1, ["a"], "labels are 1 to 1, of 1 classes"),
    "label below zero": (PIXELS, LABELS - 1, ["a"], "labels are -1 to -1, of 1 classes"),
}


@pytest.mark.parametrize(
    ("pixels", "labels", "classes", "reason"), OTHER_CONTENT.values(), ids=OTHER_CONTENT
)
def test_an_images_file_with_other_content_is_refused(
    pixels: np.ndarray, labels: np.ndarray, classes: object, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "train.safetensors"
    tensors = {"pixels": np.ascontiguousarray(pixels), "labels": np.asarray(labels)}
    path.write_bytes(safetensors.numpy.save(tensors, {"classes": json.dumps(classes)}))
    line = refusal(lambda: read(path))
    assert line.startswith(f"{path}: {reason}")
    assert line.endswith("; `dvc repro -f download`")


def test_a_missing_images_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "train.safetensors"
    assert refusal(lambda: read(path)) == f"{path}: no such file; `dvc repro` makes it"


def test_the_stage_says_why_it_cannot_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`data` is a file, so that no folder can be made there: a read-only place, for root too."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"dataset": "digits"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "data").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        run_app(stages.download.main)
    assert left.value.code == 1
    line = capsys.readouterr().err
    assert line.startswith("error: data")
    assert line.endswith("; check that path, its permissions and the space left on its disk\n")
    assert line.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "params.yaml"]
