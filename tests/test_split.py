"""The validation set: of the wanted size, disjoint from the rest, and fixed by the seed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import refused

from normlab.compute.inference import normalize
from normlab.data import split
from normlab.data.images import Images

Maker = Callable[[int], Images]


@pytest.mark.parametrize(
    ("val_size", "count"), [(0.2, 20), (0.014, 1), (0.99, 99), (1, 1), (30.0, 30)]
)
def test_both_parts_have_their_size_and_share_nothing(
    val_size: float, count: int, images: Maker
) -> None:
    drawn = split.draw(images(100), val_size, 1)
    assert len(drawn.val) == count
    assert sorted(drawn.train + drawn.val) == list(range(100))
    assert drawn.train == sorted(drawn.train)
    assert drawn.val == sorted(drawn.val)


def test_the_draw_of_a_seed_never_changes(images: Maker) -> None:
    """The committed results follow from it: a change would be a change of theirs."""
    assert split.draw(images(10), 3, 1).val == [4, 7, 8]
    assert split.draw(images(10), 3, 2).val != [4, 7, 8]


def test_mean_and_std_are_numpys_over_the_training_pixels_alone(images: Maker) -> None:
    data = images(100)
    drawn = split.draw(data, 0.3, 1)
    pixels = data.pixels[drawn.train] / 255
    np.testing.assert_allclose(drawn.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(drawn.std, pixels.std(axis=(0, 1, 2)), rtol=1e-12)
    data.pixels[drawn.val] = 0
    assert split.draw(data, 0.3, 1) == drawn


def test_a_channel_of_equal_pixels_is_normalized_to_zero(images: Maker) -> None:
    data = images(10)
    data.pixels[..., 2] = 7
    drawn = split.draw(data, 0.3, 1)
    assert drawn.std[2] == 1
    pixels = torch.from_numpy(data.pixels).permute(0, 3, 1, 2)
    normal = normalize(pixels, torch.tensor(drawn.mean), torch.tensor(drawn.std))
    assert normal[:, 2].abs().max() < 1e-6


def test_mean_and_std_have_the_same_bits_on_every_processor() -> None:
    """Or a clone elsewhere would train all runs again. A dot product does not have these bits."""
    pixels = np.random.default_rng(31).integers(0, 256, (51, 32, 32, 3), np.uint8)
    drawn = split.draw(Images(pixels, np.zeros(51, np.int64), ("one",)), 1, 1)
    assert drawn.mean == [0.5012676930147059, 0.500077818627451, 0.497863893995098]
    assert drawn.std == [0.2898839962982791, 0.28956033481750315, 0.29000607905207854]


@pytest.mark.parametrize(
    ("val_size", "made"), [(10, 10), (11, 11), (1000, 1000), (0.96, 10), (0.01, 0)]
)
def test_a_size_that_leaves_nothing_is_refused(val_size: float, made: int, images: Maker) -> None:
    assert refused(lambda: split.draw(images(10), val_size, 1)) == (
        f"split.val_size = {val_size}: selects {made} of 10 training images; must select 1 to 9"
    )


def test_what_is_written_is_read_the_same(images: Maker, tmp_path: Path) -> None:
    drawn = split.draw(images(50), 0.2, 1)
    split.write(tmp_path / "split.json", drawn)
    assert split.read(tmp_path / "split.json", 50) == drawn


WHOLE = {"train": [0, 2], "val": [1], "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
#: in place of parts of that
CHANGES: list[dict[str, object]] = [
    {"train": 3}, {"train": [0.5]}, {"train": ["0", "2"]}, {"val": {"1": 1}}, {"mean": [0.5]},
    {"std": ["wide"] * 3},
]  # fmt: skip
#: in place of all
OTHERS = ["", '{"train": [1, 2', "[]", "{}", '{"other": 1}', "null", b"\xff\xfe"]


@pytest.mark.parametrize("content", [*OTHERS, *(json.dumps(WHOLE | change) for change in CHANGES)])
def test_a_damaged_file_is_refused(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    line = refused(lambda: split.read(path, 3))
    assert line.startswith(f"{path}: is not a valid split (")
    assert line.endswith("; `dvc repro --force split`")


@pytest.mark.parametrize(
    ("change", "total"),
    [
        ({}, 4),
        ({}, 2),
        ({"train": [0]}, 3),
        ({"train": [0, 1, 2]}, 3),
        ({"train": [-1, 0]}, 3),
        ({"train": [0, 3]}, 3),
        ({"train": [0, 1, 2], "val": []}, 3),
    ],
)
def test_a_split_of_other_images_is_refused(
    change: dict[str, list[int]], total: int, tmp_path: Path
) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps(WHOLE | change))
    assert refused(lambda: split.read(path, total)) == (
        f"{path}: does not divide the {total} training images; `dvc repro --force split`"
    )


def test_a_missing_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    line = refused(lambda: split.read(path, 3))
    assert line == f"{path}: no such file; `dvc repro split` makes it"
