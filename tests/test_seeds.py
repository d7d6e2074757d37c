"""Means and deviations over seeds, out of what DVC shows of its experiments."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Workspace

from normlab.config import params
from normlab.report import seeds
from normlab.utils import files
from normlab.utils.errors import NormlabError


def setup(seed: int, **changes: Any) -> dict[str, Any]:
    """The record of the params that a revision's results are of."""
    content = params.load(ROOT / "params.yaml").model_dump()
    names = ("dataset", "split", "model", "train")
    return {name: content[name] for name in names} | {"seed": seed} | changes


def extract(config: Any, accuracies: dict[tuple[str, int], float]) -> list[dict[str, Any]]:
    """What is extracted of a revision with these results."""
    runs = {f"{norm}-{size}": value for (norm, size), value in accuracies.items()}
    summary = [",".join(("run", "norm", "batch_size", *seeds.COLUMNS))]
    summary += [
        ",".join((f"{norm}-{size}", norm, str(size), *[str(value)] * len(seeds.COLUMNS)))
        for (norm, size), value in accuracies.items()
    ]
    curves = ["run,label,epoch,train_error,val_error"]
    curves += [f'{run},"x, 1",{e},{1 - v},0.{e}' for run, v in runs.items() for e in (1, 2)]
    return seeds.extract(json.dumps(config), "\n".join(summary), "\n".join(curves))


FIRST = {("bn", 128): 0.8, ("gn", 8): 0.7}


def test_trainings_of_one_recipe_are_grouped_by_norm_and_batch_size() -> None:
    rows = [
        *extract(setup(1), FIRST),
        *extract(setup(2), {("bn", 128): 0.9, ("gn", 8): 0.7}),
        *extract(setup(3, dataset="digits"), {("bn", 128): 0.5}),
    ]
    wanted = seeds.recipe(setup(1))
    found = seeds.group(row for row in rows if row["recipe"] == wanted)
    assert list(found) == [("bn", 128), ("gn", 8)]
    bn = found["bn", 128]
    assert [training.scores["val_accuracy"] for training in bn] == [0.8, 0.9]
    assert [training.curves for training in bn] == [
        {"train_error": [error, error], "val_error": [0.1, 0.2]} for error in (0.2, 0.1)
    ]
    assert "| Batch (BN) | 128 | 2 | 85.00 | 7.07 |" in seeds.table(rows)


@pytest.mark.parametrize("config", [None, {"seed": 2}, []])
def test_a_revision_without_a_record_of_its_params_is_passed_over(config: Any) -> None:
    assert extract(config, FIRST) == []
    assert seeds.extract("", "", "") == []


def test_how_a_result_is_computed_is_not_part_of_the_recipe() -> None:
    train = setup(1)["train"]
    assert seeds.recipe(setup(1)) == seeds.recipe(setup(2, train=train | {"devices": 2}))
    assert seeds.recipe(setup(1)) != seeds.recipe(setup(1, train=train | {"lr": 0.2}))


def test_what_is_written_is_read_for_the_wanted_recipe_alone(tmp_path: Path) -> None:
    rows = [*extract(setup(1), FIRST), *extract(setup(2), {("bn", 128): 0.9})]
    files.write_csv(tmp_path / "seeds.csv", rows, seeds.FIELDS)
    found = seeds.read(tmp_path / "seeds.csv", rows[0]["recipe"])
    assert list(found) == [("bn", 128)]  # gn has a single seed
    assert seeds.read(tmp_path / "seeds.csv", "another") == {}


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
        assert "each with 2 seeds" in (finished.path / "results/report.html").read_text()
        summary = (finished.path / "results/summary.md").read_text()
        assert summary.count("±") == 12  # six scores of two runs
    finally:
        finished.run("dvc", "exp", "remove", "second", "third", check=False)
        finished.run("git", "checkout", "--quiet", ".")
        finished.run("dvc", "checkout", "--quiet", check=False)
