"""What the pages of benchmarks/ say follows from what was measured."""

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from benchmarks import cost, jpeg
from normlab.compute import distributed
from normlab.nets.checkpoint import Spec
from normlab.nets.resnet import ResNet
from normlab.norms.base import norm_class


@pytest.fixture
def rates() -> dict[str, Any]:
    return json.loads(cost.RATES.read_text())


def test_the_page_is_computed_from_the_rates(rates: dict[str, Any]) -> None:
    assert (ROOT / "benchmarks/COST.md").read_text() == cost.text(rates)
    slower = copy.deepcopy(rates)
    slower["depth"]["2"]["8"] /= 10
    assert cost.text(slower) != cost.text(rates)


def test_cpu_hours_add_up(rates: dict[str, Any]) -> None:
    rates["depth"]["2"] = {"128": 1000.0, "8": 500.0, "forward": 4000.0}
    steps, forward = 40_000 * 100, 2 * 10_000 * 100 + 60_000
    expected = 7 * steps / 1000 + 2 * steps / 500 + 9 * forward / 4000
    assert cost.cpu_hours(cost.STUDIES[0], rates) == pytest.approx(expected / 3600)
    many = cost.Study("", 2, runs=900)
    assert cost.cpu_hours(many, rates) == pytest.approx(expected / 36)
    large = cost.Study("", 2, side=64)
    assert cost.cpu_hours(large, rates) == pytest.approx(4 * expected / 3600)


def test_sizes_are_those_of_the_network_and_its_data() -> None:
    study = cost.STUDIES[0]
    assert study.parameters == sum(p.numel() for p in ResNet(2, 10, "gn", 8).parameters())
    images, weights = study.cache_bytes
    assert images == 60_000 * 3072
    assert weights == 9 * 101 * 4 * study.parameters
    assert cost.activations(2) == 5 * 16 * 1024 + 4 * 32 * 256 + 4 * 64 * 64


def test_gpus_help_until_the_longest_run_is_left() -> None:
    study = cost.STUDIES[0]
    times = [cost.gpu_hours(study, gpus)[0] for gpus in (1, 2, 4, 9, 18)]
    assert times[0] > times[1] >= times[2] >= times[3] == times[4]
    assert cost.gpu_hours(study, 9)[1] == "the longest run"
    assert cost.gpu_hours(cost.Study("", 2, runs=900), 8)[1] == "the number of GPUs"


def test_sharing_a_batch_ends_where_the_sums_cost_more(rates: dict[str, Any]) -> None:
    assert cost.sharing(128, 1, rates) == 1
    rates["all_reduce_s"] = {"sums": 0.0, "gradients": 0.0}
    slower = rates["depth"]["2"]["128"] / rates["eager"]["128"]  # one machine alone compiles
    assert cost.sharing(128, 16, rates) == pytest.approx(16 / slower)
    rates["all_reduce_s"]["sums"] = 1.0
    assert cost.sharing(128, 16, rates) < 1


def test_a_bn_makes_as_many_all_reduces_as_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed.dist, "all_reduce", calls.append)
    norm_class("bn")(4)(torch.randn(2, 4, 3, 3, requires_grad=True)).sum().backward()
    assert len(calls) == cost.SUMS


def test_a_second_loss_by_jpeg_is_about_as_large_as_the_first() -> None:
    """Only on a shifted grid: on its own JPEG finds its own values again."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (20, 8, 8, 3), np.uint8)
    original = np.stack(
        [np.asarray(Image.fromarray(c).resize((32, 32), Image.Resampling.BICUBIC)) for c in coarse]
    )
    once = np.stack([jpeg.compress(image) for image in original])
    twice = np.stack([jpeg.compress(np.roll(image, (3, 5), (0, 1))) for image in once])
    again = np.stack([jpeg.compress(image) for image in once])
    first = jpeg.psnr(original, once)
    assert 20 < first < 40
    assert jpeg.psnr(np.roll(once, (3, 5), (1, 2)), twice) == pytest.approx(first, abs=4)
    assert jpeg.psnr(once, again) > first + 4


def test_the_error_of_a_difference_is_that_of_pairs() -> None:
    spec = Spec("run", "bn", 8, 2, 8, ("a", "b"), (0.5,) * 3, (0.25,) * 3)
    one = np.repeat([1, 0], [8000, 2000])
    assert jpeg.row(spec, "once", 3, one, one)["standard_error"] == 0
    two = np.roll(one, 1000)  # a thousand images lost, a thousand won
    row = jpeg.row(spec, "once", 3, one, two)
    assert row["difference"] == 0
    assert row["standard_error"] == pytest.approx(np.sqrt(0.2 / 10_000), abs=5e-5)
