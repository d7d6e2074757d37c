"""Image files classified by a trained run: right class, any size, clear errors."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Workspace, refused
from PIL import Image

from normlab.cli import predict
from normlab.data import images
from normlab.nets import checkpoint
from normlab.sources import folder
from normlab.utils.files import read_csv


@pytest.fixture
def untrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A folder with no more than random weights of the run `main`; it is the working folder."""
    made = Workspace(tmp_path / "repository")
    made.environment["PYTHONPATH"] = str(ROOT / "src")
    made.path.mkdir()
    shutil.copy(ROOT / "dvc.yaml", made.path)
    spec = checkpoint.Spec(
        run="main", norm="bn", batch_size=8, n=1, groups=1, classes=("cat", "dog"),
        mean=(0.5,) * 3, std=(0.2,) * 3,
    )  # fmt: skip
    state = spec.build().state_dict()
    checkpoint.save(made.path / "data/weights/main.safetensors", state, spec, 1)
    monkeypatch.chdir(made.path)
    return made


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of two images, and of other files with a content."""

    def make(**others: bytes) -> Path:
        root = tmp_path / "holiday"
        root.mkdir()
        for name in ("a.png", "z.PNG"):
            Image.new("RGB", (32, 32)).save(root / name)
        for name, content in others.items():
            (root / name.replace("_", ".")).write_bytes(content)
        return root

    return make


def refusal(run: str, *paths: Path, csv: Path | None = None) -> str:
    return refused(lambda: predict.run(run, paths, csv))


@pytest.mark.slow
def test_predictions_are_those_of_evaluate(
    finished: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.path)
    data = images.read("data/images/test.safetensors")
    for place in range(30):
        folder = tmp_path / "pictures" / data.classes[data.labels[place]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.pixels[place]).save(folder / f"{place:02}.png")
    known = read_csv("data/runs/gn/predictions.csv")
    failures = predict.Failures()
    found = predict.predict("gn", predict.expand(tmp_path / "pictures", failures), failures)
    assert (len(found), failures.count) == (30, 0)
    others = 0  # of a class as probable as that of evaluate, whose batch is rounded otherwise
    for prediction in found:
        row = known[int(prediction["file"].stem)]
        assert row["actual"] == prediction["file"].parent.name
        others += row["predicted"] != prediction["class"]
        assert 0.1 <= prediction["probability"] <= 1
    assert others <= 1


def test_the_command_prints_and_writes_what_it_found(untrained: Workspace, tmp_path: Path) -> None:
    """Here of a file whose name the terminal cannot show, and only CSV can hold."""
    image = tmp_path / ("cat-\u732b-" + os.fsdecode(b"\xff") + ".png")
    Image.new("RGB", (32, 32)).save(image)
    untrained.environment["PYTHONIOENCODING"] = "ascii"
    command = ("python", "-m", "normlab", "predict", "--csv", str(tmp_path / "out.csv"))
    done = untrained.run(*command, str(image))
    [row] = read_csv(tmp_path / "out.csv")
    assert row["file"] == str(image)
    shown = re.escape(rf"{tmp_path}/cat-\u732b-\udcff.png")
    assert re.fullmatch(rf"{row['class']} +\d+\.\d\d%  {shown}\n", done.stdout)
    assert done.stderr == ""


def test_other_sizes_are_taken_with_a_notice(
    untrained: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    image = Image.fromarray(grey).convert("RGB")
    small, large = tmp_path / "1.png", tmp_path / "2.tiff"
    image.save(small)
    image.resize((128, 128), Image.Resampling.NEAREST).save(large)
    found = predict.predict("main", [small, large], predict.Failures())
    assert [prediction["file"] for prediction in found] == [small, large]
    assert capsys.readouterr().err == "resized to 32x32: 1 of 2 images\n"
    assert np.array_equal(predict.read(small)[0], np.asarray(image))
    blurred, _ = predict.read(large)
    assert np.corrcoef(blurred[..., 0].ravel(), grey.ravel())[0, 1] > 0.9


NOTHING = "no image could be read, so nothing is classified"


def test_wrong_input_gives_one_line(
    untrained: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert refusal("vgg", tmp_path).startswith("run = vgg: must be one of main, bn, ")
    capsys.readouterr()
    missing = tmp_path / "missing.png"
    assert refusal("main", missing) == NOTHING
    assert capsys.readouterr().err.startswith(f"{missing}: No such file or directory; ")
    (folder / ".hidden.png").touch()
    assert refusal("main", folder) == NOTHING
    assert capsys.readouterr().err == f"{folder}: contains no image files\n"


def test_what_cannot_be_classified_is_told_and_the_others_are_classified(
    untrained: Workspace, folder_of: Callable[..., Path], tmp_path: Path
) -> None:
    half = tmp_path / "half.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(half)
    folder = folder_of(
        b_heic=b"heic", c_mpg=b"\0\0\1\xb3\x20\2\0\0", d_png=half.read_bytes()[:-30],
        e_txt=b"text", f_pdf=b"%PDF",
    )  # fmt: skip
    out = tmp_path / "out.csv"
    done = untrained.run(
        "python", "-m", "normlab", "predict", "--csv", str(out), str(folder), check=False
    )
    named = [folder / "a.png", folder / "z.PNG"]
    assert done.returncode == 1
    assert [line.split()[-1] for line in done.stdout.splitlines()] == list(map(str, named))
    assert [row["file"] for row in read_csv(out)] == list(map(str, named))
    *lines, last = done.stderr.splitlines()
    told = dict(line.split(": ", 1) for line in lines)
    assert list(told) == [str(folder / name) for name in ("e.txt", "f.pdf", "b.heic", "c.mpg",
                                                          "d.png")]  # fmt: skip
    assert told[str(folder / "e.txt")] == "skipped, its extension is not that of an image"
    assert "has a format that Pillow cannot read" in told[str(folder / "b.heic")]
    assert told[str(folder / "c.mpg")].startswith("cannot be decoded as MPEG (")
    assert told[str(folder / "d.png")].startswith("cannot be decoded as PNG (")
    assert last == "error: could not classify 3 of the files (see above)"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("work", "is a folder; name a file"),
        ("to-work", "is a folder; name a file"),
        ("missing/out.csv", "there is no folder "),
        ("holiday/a.png", "would overwrite an image; name another file"),
        ("holiday/b", "would overwrite an image; name another file"),
        ("other.JPG", "would overwrite an image; name another file"),
    ],
)
def test_a_csv_that_would_cost_more_than_a_csv_is_refused_before_the_work(
    name: str, reason: str, folder_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = folder_of(b=b"image", y_png=b"image")
    (tmp_path / "work").mkdir()
    (tmp_path / "work/thesis").touch()
    (tmp_path / "to-work").symlink_to("work")
    (tmp_path / "other.JPG").touch()
    before = {p: p.is_dir() or p.read_bytes() for p in tmp_path.rglob("*")}
    path = tmp_path / name
    line = refusal("a run is not asked for", folder, folder / "b", csv=path)
    assert line.startswith(f"--csv {path}: {reason}")
    assert {p: p.is_dir() or p.read_bytes() for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("target", ["exists", "is new"])
def test_the_csv_goes_where_a_link_leads(
    target: str, untrained: Workspace, folder_of: Callable[..., Path], tmp_path: Path
) -> None:
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    if target == "exists":
        real.touch()
    link.symlink_to(real)
    predict.run("main", [folder_of()], link)
    assert link.is_symlink()
    assert len(read_csv(real)) == 2


def test_where_nothing_is_classified_the_csv_stays_as_it_was(
    untrained: Workspace, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("old")
    assert refusal("main", tmp_path / "missing.png", csv=out) == NOTHING
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.glob("*.*")] == ["out.csv"]


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("--csv /dev/stdout", "CSV"),
        ("--csv /dev/stdout >$OUT; cat $OUT", "CSV"),
        ("--csv >(cat >$OUT) >/dev/null; wait $!; cat $OUT", "CSV"),
        ("--csv $OUT | true; cat $OUT", "CSV"),  # whose reader leaves before all is printed
        ("--csv /dev/null", "table"),
    ],
)
def test_the_csv_goes_whole_through_pipes_and_devices(
    end: str, expected: str, untrained: Workspace, folder_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = folder_of()
    untrained.environment["OUT"] = str(tmp_path / "out")
    done = untrained.run("bash", "-c", f"python -m normlab predict {folder} {end}")
    first, *others = done.stdout.splitlines()
    assert (first == "file,class,probability") == (expected == "CSV")
    assert len(others) == (2 if expected == "CSV" else 1)
    assert (done.stderr, Path("/dev/stdout").is_symlink()) == ("", True)


def test_elsewhere_it_says_where_to_run(tmp_path: Path) -> None:
    elsewhere = Workspace(tmp_path)
    elsewhere.environment["PYTHONPATH"] = str(ROOT / "src")
    (tmp_path / "x.png").touch()
    done = elsewhere.run("python", "-m", "normlab", "predict", "x.png", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    advice = "check the path, and run from the repository's root"
    assert done.stderr == f"error: dvc.yaml: No such file or directory; {advice}\n"


def test_a_file_is_read_as_training_reads_it(tmp_path: Path) -> None:
    """Turned, wide, transparent: the same pixels as in a data set `folder:`."""
    generator = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.fromarray(generator.integers(0, 1 << 16, (32, 32)).astype(np.uint16))
    clear = Image.fromarray(generator.integers(0, 256, (32, 32, 4), np.uint8))
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / name).mkdir(parents=True)
        wide.save(tmp_path / name / "wide.png", exif=exif)
        clear.save(tmp_path / name / "clear.png")
    train, _ = folder.load(tmp_path)
    for place, name in enumerate(("clear.png", "wide.png")):
        pixels, resized = predict.read(tmp_path / "train/a" / name)
        assert np.array_equal(pixels, train.pixels[place])
        assert not resized


@pytest.mark.slow
def test_weights_that_are_nowhere_name_the_command_that_trains_them(
    finished: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.copy(tmp_path / "repository").path)
    best = Path("data/weights/gn.safetensors")
    kept = best.read_bytes()
    best.unlink()
    predict.weights("gn")
    assert best.read_bytes() == kept  # fetched from DVC's cache
    best.unlink()
    shutil.rmtree(".dvc/cache")
    line = refusal("gn", tmp_path)
    assert line.startswith(f"{best}: not found, and `dvc pull` did not fetch it (failed")
    assert line.endswith("; `dvc repro evaluate@gn` trains it")
