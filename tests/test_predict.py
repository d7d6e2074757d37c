"""Image files classified by a trained run: right class, any size, clear errors."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Workspace
from PIL import Image

from normlab.cli import predict
from normlab.data import images
from normlab.sources import folder
from normlab.utils.errors import NormlabError
from normlab.utils.files import read_csv


@pytest.fixture
def pictures(finished: Workspace, tmp_path: Path) -> Path:
    """Test images of the finished pipeline as files, in a folder a class."""
    data = images.read(finished.path / "data/images/test.safetensors")
    for place in range(30):
        folder = tmp_path / "pictures" / data.classes[data.labels[place]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.pixels[place]).save(folder / f"{place:02}.png")
    return tmp_path / "pictures"


@pytest.fixture
def inside(finished: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.chdir(finished.path)
    yield finished


def refusal(run: str, *paths: Path) -> str:
    with pytest.raises(NormlabError) as raised:
        predict.predict(run, paths)
    line = str(raised.value)
    assert line.splitlines() == [line]
    return line


@pytest.mark.slow
def test_predictions_are_those_of_evaluate(inside: Workspace, pictures: Path) -> None:
    known = read_csv("data/runs/gn/predictions.csv")
    found = predict.predict("gn", [pictures])
    assert len(found) == 30
    for prediction in found:
        row = known[int(prediction.file.stem)]
        assert row["actual"] == prediction.file.parent.name
        assert row["predicted"] == prediction.label
        assert 0.1 <= prediction.probability <= 1


@pytest.mark.slow
def test_the_command_prints_and_writes_what_it_found(
    finished: Workspace, pictures: Path, tmp_path: Path
) -> None:
    first = sorted(pictures.rglob("*.png"))[0]
    done = finished.run(
        "python", "-m", "normlab", "predict", "--csv", str(tmp_path / "out.csv"), str(first)
    )
    [row] = read_csv(tmp_path / "out.csv")
    assert re.fullmatch(rf"{row['class']} +\d+\.\d\d%  {first}\n", done.stdout)
    assert row["file"] == str(first)
    assert done.stderr == ""


@pytest.mark.slow
def test_other_sizes_and_modes_are_taken_with_a_notice(
    inside: Workspace, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = sorted(pictures.rglob("*.png"))[0]
    with Image.open(original) as image:
        image.resize((128, 128), Image.Resampling.BICUBIC).save(tmp_path / "large.jpg", quality=95)
        image.convert("L").save(tmp_path / "grey.png")
        image.convert("RGBA").save(tmp_path / "transparent.png")
        image.convert("P").save(tmp_path / "palette.gif")
    names = ("large.jpg", "grey.png", "transparent.png", "palette.gif")
    found = predict.predict("gn", [original, *(tmp_path / name for name in names)])
    assert capsys.readouterr().err == "resized to 32x32: 1 of 5 images\n"
    assert {prediction.label for prediction in found} == {found[0].label}


@pytest.mark.slow
def test_wrong_input_gives_one_line(inside: Workspace, tmp_path: Path) -> None:
    assert refusal("bn", tmp_path) == "run = bn: must be one of main, gn"
    missing = tmp_path / "missing.png"
    assert refusal("gn", missing) == f"{missing}: no such file or folder"
    for other in (".hidden.png", "paper.pdf"):  # Pillow writes PDF, but does not read it
        (tmp_path / other).write_text("no image")
    assert refusal("gn", tmp_path) == f"{tmp_path}: holds no image files"
    text = tmp_path / "text.png"
    text.write_text("no image")
    assert refusal("gn", text) == f"{text}: is no image"
    half = tmp_path / "half.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(half)
    half.write_bytes(half.read_bytes()[:-30])
    assert refusal("gn", half).startswith(f"{half}: ")


@pytest.mark.slow
def test_a_name_that_the_terminal_cannot_show_is_escaped(
    finished: Workspace, pictures: Path, tmp_path: Path
) -> None:
    name = "cat-\u732b-" + os.fsdecode(b"\xff") + ".png"
    shutil.copy(sorted(pictures.rglob("*.png"))[0], tmp_path / name)
    finished.environment["PYTHONIOENCODING"] = "ascii"
    try:
        done = finished.run(
            "python", "-m", "normlab", "predict", "--csv", str(tmp_path / "out.csv"),
            str(tmp_path / name),
        )  # fmt: skip
    finally:
        del finished.environment["PYTHONIOENCODING"]
    assert done.stdout.endswith(r"/cat-\u732b-\udcff.png" "\n")
    [row] = read_csv(tmp_path / "out.csv")
    assert row["file"] == str(tmp_path / name)


def test_elsewhere_it_says_where_to_run(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    done = subprocess.run(
        [sys.executable, "-m", "normlab", "predict", "x.png"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: dvc.yaml: No such file or directory; check the path, and run from the "
        "repository's root\n"
    )


def test_of_a_folder_the_image_files_that_are_seen_are_taken(tmp_path: Path) -> None:
    names = ("b.PNG", "a/c.jpg", ".hidden.png", "__MACOSX/b.png", "a/@eaDir/c.jpg", "Thumbs.db",
             ".thumbnails/b.png", "a/notes.txt")  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    assert predict.expand(tmp_path) == [tmp_path / "a/c.jpg", tmp_path / "b.PNG"]


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
    inside: Workspace, tmp_path: Path
) -> None:
    best = inside.path / "data/weights/gn.safetensors"
    kept = best.read_bytes()
    cache = inside.path / ".dvc/cache"
    try:
        best.unlink()
        predict.weights("gn")
        assert best.read_bytes() == kept  # fetched from DVC's cache
        best.unlink()
        cache.rename(tmp_path / "cache")
        line = refusal("gn", tmp_path)
        assert line.startswith(
            "data/weights/gn.safetensors: not here, and `dvc pull` did not bring it (failed"
        )
        assert line.endswith("; `dvc repro evaluate@gn` trains it")
    finally:
        if (tmp_path / "cache").exists():
            shutil.rmtree(cache, ignore_errors=True)
            (tmp_path / "cache").rename(cache)
        best.write_bytes(kept)
