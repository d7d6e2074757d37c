"""Means and deviations over seeds, out of what DVC shows of its experiments."""

import json
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
from conftest import ROOT, Workspace

from normlab.base import files, params
from normlab.base.errors import NormlabError
from normlab.report import seeds


def setup(seed: int, **changes: Any) -> dict[str, Any]:
    """The record of the params that a revision's results are of."""
    content = params.load(ROOT / "params.yaml").model_dump()
    names = ("dataset", "split", "model", "train")
    return {name: content[name] for name in names} | {"seed": seed} | changes


def extract(config: Any, accuracies: dict[tuple[str, int], float]) -> list[dict[str, Any]]:
    """What is extracted of a revision with these results."""
    lines = ["run,norm,batch_size,test_accuracy,test_f1_micro,test_f1_macro"]
    lines += [f"{n}-{s},{n},{s},{value},{value},{value}" for (n, s), value in accuracies.items()]
    return seeds.extract(json.dumps(config), "\n".join(lines))


FIRST = {("bn", 128): 0.8, ("gn", 8): 0.7}


def test_mean_and_deviation_are_over_seeds_of_one_recipe() -> None:
    rows = [
        *extract(setup(1), FIRST),
        *extract(setup(2), {("bn", 128): 0.9, ("gn", 8): 0.7}),
        *extract(setup(3, dataset="digits"), {("bn", 128): 0.5}),
    ]
    wanted = seeds.recipe(setup(1))
    bn, gn = seeds.summarize(row for row in rows if row["recipe"] == wanted)
    assert (bn.norm, bn.batch_size, bn.accuracies) == ("bn", 128, (0.8, 0.9))
    assert bn.mean == pytest.approx(0.85)
    assert bn.deviation == pytest.approx(stdev([0.8, 0.9]))
    assert (gn.norm, gn.deviation) == ("gn", 0.0)


@pytest.mark.parametrize("config", [None, {"seed": 2}, []])
def test_a_revision_without_a_record_of_its_params_is_passed_over(config: Any) -> None:
    assert extract(config, FIRST) == []
    assert seeds.extract("", "") == []


def test_how_a_result_is_computed_is_not_part_of_the_recipe() -> None:
    train = setup(1)["train"]
    assert seeds.recipe(setup(1)) == seeds.recipe(setup(2, train=train | {"devices": 2}))
    assert seeds.recipe(setup(1)) != seeds.recipe(setup(1, train=train | {"lr": 0.2}))


def test_what_is_written_is_read_for_the_wanted_recipe_alone(tmp_path: Path) -> None:
    rows = [*extract(setup(1), FIRST), *extract(setup(2), {("bn", 128): 0.9})]
    files.write_csv(tmp_path / "seeds.csv", rows, seeds.FIELDS)
    [entry] = seeds.read(tmp_path / "seeds.csv", rows[0]["recipe"])  # gn has a single seed
    assert entry.accuracies == (0.8, 0.9)
    assert seeds.read(tmp_path / "seeds.csv", "another") == []


@pytest.mark.parametrize("content", ["recipe,norm\nx,bn\n", "nothing\nx\n"])
def test_a_damaged_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "seeds.csv"
    path.write_text(content)
    with pytest.raises(NormlabError, match=r"damaged .*; `python -m normlab seeds`"):
        seeds.read(path, "x")
    with pytest.raises(NormlabError, match="no such file"):
        seeds.read(tmp_path / "other.csv", "x")


@pytest.mark.slow
def test_experiments_with_other_seeds_reach_the_report(finished: Workspace) -> None:
    try:
        finished.run("dvc", "exp", "run", "--temp", "--name", "second", "-S", "seed=2")
        # Its results stay those of seed 1: it does not go on to the stage plots.
        finished.run("dvc", "exp", "run", "--temp", "-n", "third", "-S", "seed=3", "split")
        done = finished.run("python", "-m", "normlab", "seeds")
        assert "| Group (GN) | 128 | 2 | " in done.stdout
        assert {row["seed"] for row in files.read_csv(finished.path / seeds.PATH)} == {"1", "2"}
        ran = finished.run("dvc", "repro").stdout
        assert "Running stage 'plots'" in ran
        assert "Running stage 'train" not in ran
        assert "With several seeds" in (finished.path / "results/report.html").read_text()
    finally:
        finished.run("dvc", "exp", "remove", "second", "third", check=False)
        finished.run("git", "checkout", "--quiet", ".")
        finished.run("dvc", "checkout", "--quiet", check=False)
