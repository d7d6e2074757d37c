"""Means and deviations over seeds, out of what DVC shows of its experiments."""

from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
import yaml
from conftest import ROOT, Workspace

from normlab import files, params, seeds
from normlab.errors import NormlabError


def revision(seed: int, accuracies: dict[tuple[str, int], float], **changes: Any) -> dict[str, Any]:
    """What `dvc exp show --json` says of one commit or experiment."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"seed": seed} | changes
    metrics = {
        f"results/metrics/{norm}-{size}.json": {
            "data": {
                "norm": norm,
                "batch_size": size,
                "test": {"accuracy": value, "f1_micro": value, "f1_macro": value},
            }
        }
        for (norm, size), value in accuracies.items()
    }
    return {"rev": f"{seed}", "data": {"params": {"params.yaml": {"data": content}},
                                       "metrics": metrics}}  # fmt: skip


def shown(*experiments: dict[str, Any]) -> list[dict[str, Any]]:
    workspace = {**revision(9, {("bn", 128): 0.1}), "rev": "workspace", "experiments": None}
    base = {**revision(1, {("bn", 128): 0.8, ("gn", 8): 0.7}), "experiments": []}
    return [workspace, base | {"experiments": [{"name": "x", "revs": list(experiments)}]}]


def test_mean_and_deviation_are_over_seeds_of_one_recipe() -> None:
    rows = list(
        seeds.extract(
            shown(
                revision(2, {("bn", 128): 0.9, ("gn", 8): 0.7}),
                revision(3, {("bn", 128): 0.5}, dataset="digits"),
            )
        )
    )
    current = params.load(ROOT / "params.yaml").model_dump()
    bn, gn = seeds.summarize(row for row in rows if row["recipe"] == seeds.recipe(current))
    assert (bn.norm, bn.batch_size, bn.accuracies) == ("bn", 128, (0.8, 0.9))
    assert bn.mean == pytest.approx(0.85)
    assert bn.deviation == pytest.approx(stdev([0.8, 0.9]))
    assert (gn.norm, gn.deviation) == ("gn", 0.0)


def test_one_training_counts_once() -> None:
    again = revision(1, {("bn", 128): 0.8, ("gn", 8): 0.7})
    assert len(list(seeds.extract(shown(again, again)))) == 2


def test_other_versions_and_unfinished_experiments_are_passed_over() -> None:
    other = revision(2, {("bn", 128): 0.9}, new_key=1)
    failed = {"rev": "3", "data": None}
    assert len(list(seeds.extract(shown(other, failed)))) == 2


def test_what_is_written_is_read_for_the_wanted_recipe_alone(tmp_path: Path) -> None:
    rows = list(seeds.extract(shown(revision(2, {("bn", 128): 0.9}))))
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
        done = finished.run("python", "-m", "normlab", "seeds")
        assert "| Group (GN) | 128 | 2 | " in done.stdout
        assert {row["seed"] for row in files.read_csv(finished.path / seeds.PATH)} == {"1", "2"}
        ran = finished.run("dvc", "repro").stdout
        assert "Running stage 'plots'" in ran
        assert "Running stage 'train" not in ran
        assert "With several seeds" in (finished.path / "results/report.html").read_text()
    finally:
        finished.run("dvc", "exp", "remove", "second", check=False)
        finished.run("git", "checkout", "--quiet", ".")
        finished.run("dvc", "checkout", "--quiet", check=False)
