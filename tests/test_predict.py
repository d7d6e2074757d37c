"""Image files classified by a trained run: right class, any size, clear errors."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Workspace
from PIL import Image

from normlab.base.errors import NormlabError
from normlab.base.files import read_csv
from normlab.cli import predict
from normlab.data import images


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
