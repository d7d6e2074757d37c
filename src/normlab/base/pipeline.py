"""The runs that dvc.yaml names."""

from pathlib import Path

import yaml

from normlab.base.errors import NormlabError


def runs(path: Path | str = "dvc.yaml") -> list[str]:
    """Names of all runs, in the order of dvc.yaml's one map of them.

    Raises `NormlabError` when the stage `plots` does not depend on each of them: DVC would then
    neither rerun it for that run nor fetch the run's files.
    """
    stages = yaml.safe_load(Path(path).read_text())["stages"]
    names = list(stages["train"]["foreach"])
    dependencies = set(stages["plots"]["deps"])
    for name in names:
        if f"data/runs/{name}/log.csv" not in dependencies:
            raise NormlabError(
                f"{path}: run {name} is missing among the deps of the stage plots; "
                "add the line there that the other runs have"
            )
    return names
