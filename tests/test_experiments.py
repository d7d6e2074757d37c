"""DVC's experiments on this pipeline: a grid from the queue, and what is taken from it."""

import json
import re
import time
from collections.abc import Iterator

import pytest
import yaml
from conftest import Workspace

pytestmark = pytest.mark.xdist_group("experiments")  # the grid runs once
BN, NN = GRID = ("grid-1", "grid-2")
WAIT_S = 600


@pytest.fixture(scope="module")
def grid(finished: Workspace) -> Iterator[Workspace]:
    """`finished` with the experiments BN and NN, which DVC's queue ran at once."""
    finished.run("dvc", "exp", "run", "--queue", "--name", "grid", "-S", "norm=bn,nn")
    try:
        # Its workers hold the pipe to its output to their end: what follows asks once or twice.
        finished.run("dvc", "queue", "start", "-j", "2")
        begin = time.monotonic()
        while re.search(r"\b(Running|Queued)\b", finished.run("dvc", "queue", "status").stdout):
            assert time.monotonic() - begin < WAIT_S
            time.sleep(1)
        yield finished
    finally:
        finished.run("dvc", "queue", "stop", "--kill", check=False)
        finished.run("dvc", "exp", "remove", *GRID, check=False)


@pytest.mark.slow
def test_a_queued_grid_trains_each_norm_once_and_downloads_nothing(grid: Workspace) -> None:
    for name, norm in (BN, "bn"), (NN, "nn"):
        log = grid.run("dvc", "queue", "logs", name).stdout
        assert re.findall(r"> python -m stages\.(.+)", log) == [
            f"train main {norm} 128", "evaluate main", "features main", "plots"
        ], log  # fmt: skip


@pytest.mark.slow
def test_experiments_are_compared_and_applied(grid: Workspace) -> None:
    params = json.loads(grid.run("dvc", "params", "diff", *GRID, "--json").stdout)
    assert params == {"params.yaml": {"norm": {"old": "bn", "new": "nn"}}}
    table = grid.run("dvc", "metrics", "diff", "--all", *GRID, "--json").stdout
    metrics = json.loads(table)
    page = grid.path / "compared"
    grid.run("dvc", "plots", "diff", *GRID, "--out", str(page))
    content = (page / "index.html").read_text()
    assert BN in content
    assert NN in content
    try:
        grid.run("dvc", "exp", "apply", NN)
        assert yaml.safe_load((grid.path / "params.yaml").read_text())["norm"] == "nn"
        assert "up to date" in grid.run("dvc", "status").stdout
        file = "data/runs/main/metrics.json"
        scores = json.loads((grid.path / file).read_text())
        assert set(scores) == {"val", "test", "f1"}
        assert {name: values["new"] for name, values in metrics[file].items()} == scores
        grid.run("dvc", "exp", "branch", BN, "batch-norm")
        params_there = grid.run("git", "show", "batch-norm:params.yaml").stdout
        assert yaml.safe_load(params_there)["norm"] == "bn"
    finally:
        grid.run("git", "checkout", "--quiet", ".")
        grid.run("dvc", "checkout", "--quiet", check=False)
        grid.run("git", "branch", "-D", "batch-norm", check=False)
