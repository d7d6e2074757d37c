"""DVC's experiments on this pipeline: a grid from the queue, and what is taken from it."""

import json
import re
import time
from collections.abc import Iterator

import pytest
import yaml
from conftest import Workspace

pytestmark = pytest.mark.xdist_group("experiments")  # the grid runs once
GRID = {"norm": ("bn", "nn")}
WAIT_S = 600


@pytest.fixture(scope="module")
def grid(finished: Workspace) -> Iterator[dict[str, str]]:
    """The names of two experiments that DVC's queue ran at once, by their norm."""
    values = ",".join(GRID["norm"])
    finished.run("dvc", "exp", "run", "--queue", "-S", f"norm={values}")
    finished.run("dvc", "queue", "start", "-j", "2")
    begin = time.monotonic()
    while re.search(r"\b(Running|Queued)\b", finished.run("dvc", "queue", "status").stdout):
        assert time.monotonic() - begin < WAIT_S
        time.sleep(4)  # asking takes DVC a second of a core
    names = {}
    for revision in shown(finished):
        if revision["name"]:
            names[revision["data"]["params"]["params.yaml"]["data"]["norm"]] = revision["name"]
    yield names
    finished.run("dvc", "exp", "remove", *names.values())
    finished.run("dvc", "queue", "stop", "--kill", check=False)


def shown(workspace: Workspace) -> list[dict]:
    """The newest revision of each experiment, as `dvc exp show` has it."""
    content = json.loads(workspace.run("dvc", "exp", "show", "--json").stdout)
    experiments = [e for baseline in content for e in baseline["experiments"] or []]
    return [{"name": e["name"], **e["revs"][0]} for e in experiments if e["revs"]]


@pytest.mark.slow
def test_a_queued_grid_trains_each_norm_once_and_downloads_nothing(
    finished: Workspace, grid: dict[str, str]
) -> None:
    assert tuple(sorted(grid)) == GRID["norm"]
    for name in grid.values():
        log = finished.run("dvc", "queue", "logs", name).stdout
        run = re.findall(r"> python -m stages\.(\S+)(?: (\S+))?", log)
        assert ("train", "main") in run
        assert {stage for stage, _ in run} <= {"check", "train", "evaluate", "features", "plots"}
        assert {target for _, target in run} <= {"main", ""}


@pytest.mark.slow
def test_experiments_are_compared_and_applied(finished: Workspace, grid: dict[str, str]) -> None:
    bn, nn = (grid[norm] for norm in GRID["norm"])
    params = json.loads(finished.run("dvc", "params", "diff", bn, nn, "--json").stdout)
    assert params == {"params.yaml": {"norm": {"old": "bn", "new": "nn"}}}
    metrics = json.loads(finished.run("dvc", "metrics", "diff", bn, nn, "--json").stdout)
    assert set(metrics["results/metrics.json"]) == {
        f"main.{name}" for name in ("val", "test", "f1")
    }
    page = finished.path / "compared"
    finished.run("dvc", "plots", "diff", bn, nn, "--out", str(page))
    content = (page / "index.html").read_text()
    assert bn in content
    assert nn in content
    try:
        finished.run("dvc", "exp", "apply", nn)
        assert yaml.safe_load((finished.path / "params.yaml").read_text())["norm"] == "nn"
        assert "up to date" in finished.run("dvc", "status").stdout
        finished.run("dvc", "exp", "branch", bn, "batch-norm")
        params_there = finished.run("git", "show", "batch-norm:params.yaml").stdout
        assert yaml.safe_load(params_there)["norm"] == "bn"
    finally:
        finished.run("git", "checkout", "--quiet", ".")
        finished.run("dvc", "checkout", "--quiet", check=False)
        finished.run("git", "branch", "-D", "batch-norm", check=False)
