"""The quantile function that a training keeps of its features: numpy's, in a small file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from normlab.data import distribution
from normlab.evaluation import features
from normlab.utils.errors import NormlabError


@pytest.fixture
def values() -> np.ndarray:
    """As many as 500 images have features, skewed as they are behind a ReLU."""
    return np.random.default_rng(0).exponential(2, (500, 64)).astype(np.float32)


def quantile_function(values: np.ndarray) -> np.ndarray:
    return distribution.quantile_function(torch.from_numpy(values)).numpy()


@pytest.mark.parametrize("count", [1, 2, 33, 64, 32_000])
def test_the_quantile_function_is_that_of_numpy_to_the_byte(values: np.ndarray, count: int) -> None:
    some = values.ravel()[:count] - 1  # several of them equal: 0
    some[some < 0] = 0
    expected = np.quantile(some.astype(float), distribution.LEVELS).astype(np.float32)
    assert quantile_function(some).tobytes() == expected.tobytes()


@pytest.mark.parametrize("quantile", [0, 0.01, 0.2, 0.5, 0.8, 0.99, 0.9995, 1])
def test_on_the_grid_a_quantile_is_that_of_the_values(values: np.ndarray, quantile: float) -> None:
    [found] = distribution.quantiles(quantile_function(values), [quantile])
    assert found == pytest.approx(np.quantile(values.astype(float), quantile), rel=1e-7)


def test_between_its_levels_it_is_linear(values: np.ndarray) -> None:
    function = quantile_function(values)
    wanted = [0.50025, 0.9, 0.33333]
    expected = np.quantile(values, wanted)
    np.testing.assert_allclose(distribution.quantiles(function, wanted), expected, rtol=1e-3)
    middle = distribution.quantiles(function, [0.50025])[0]
    assert middle == pytest.approx((float(function[1000]) + float(function[1001])) / 2)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_makes_all_undefined(values: np.ndarray, wrong: float) -> None:
    values[3, 5] = wrong
    assert np.isnan(quantile_function(values)).all()


def test_the_table_has_a_row_an_epoch_and_a_column_a_quantile(values: np.ndarray) -> None:
    functions = np.stack([quantile_function(values * s) for s in (1, 2)])
    rows = features.table(functions, [0.01, 0.07, 0.999, 0.9999999, 1])
    names = ["q1", "q7", "q99.9", "q99.99999", "q100"]
    assert [list(row) for row in rows] == [["epoch", *names]] * 2
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["q1"] == pytest.approx(2 * rows[0]["q1"])


def test_what_is_written_is_read(values: np.ndarray, tmp_path: Path) -> None:
    functions = quantile_function(values)[None]
    path = tmp_path / "features.safetensors"
    distribution.write(path, functions)
    np.testing.assert_array_equal(distribution.read(path), functions)
    assert path.stat().st_size < 9000


def test_another_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    with pytest.raises(NormlabError, match="no such file; `dvc pull` or `dvc repro`"):
        distribution.read(path)
    path.write_bytes(b"nothing")
    with pytest.raises(NormlabError, match=r"is damaged \(.*\); `dvc checkout --force`"):
        distribution.read(path)
    distribution.write(path, np.zeros((2, 3)))
    with pytest.raises(NormlabError, match=r"is \[2, 3\], not \[epochs, 2001\]"):
        distribution.read(path)
