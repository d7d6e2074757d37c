"""What dvc.yaml says: its runs, and what a stage depends on."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import reduce, wraps
from operator import getitem
from pathlib import Path
from typing import Any

import yaml

from normlab.config import params
from normlab.utils import files
from normlab.utils.errors import NormlabError, run_command


def runs(path: Path | str = "dvc.yaml") -> dict[str, dict[str, Any]]:
    """All runs by name, as dvc.yaml's one map has them and in its order.

    Raises `NormlabError` when the stage `plots` does not depend on each of them: DVC would then
    neither rerun it for that run nor fetch the run's files.
    """
    stages = yaml.safe_load(Path(path).read_text())["stages"]
    found: dict[str, dict[str, Any]] = stages["train"]["foreach"]
    for name in found:
        if f"data/runs/{name}/log.csv" not in stages["plots"]["deps"]:
            raise NormlabError(
                f"{path}: run {name} is missing among the deps of the stage plots; "
                "add the line there that the other runs have"
            )
    return found


def resolve(text: str, values: Any) -> str:
    """`text` of dvc.yaml with what its `${train.lr}`, if any, stand for in the nested `values`."""
    while "${" in text:
        text = re.sub(r"\$\{(.*?)\}", lambda name: str(_value(name[1], values)), text)
    return text


def _value(name: str, values: Any) -> Any:
    return reduce(getitem, name.split("."), values)


def run_stage(main: Callable[..., None]) -> None:
    """Run `main` as the command of a stage.

    When DVC runs it, it also fails if the stage's code or params change meanwhile (`unchanged`).
    """

    @wraps(main)
    def guarded(*arguments: Any, **options: Any) -> None:
        stage = os.environ.get("DVC_STAGE")
        with unchanged(stage) if stage else nullcontext():
            main(*arguments, **options)

    run_command(guarded)


@contextmanager
def unchanged(stage: str) -> Iterator[None]:
    """A block in which the code and params that `stage` depends on must stay as they are.

    DVC notes them when a stage has ended: what was edited during a training would pass for what it
    was trained with. Raises `NormlabError` after the block, which makes DVC note nothing.
    """
    before = inputs(stage)
    yield
    after = inputs(stage)
    if changed := [name for name in {**before, **after} if before.get(name) != after.get(name)]:
        raise NormlabError(
            f"{changed[0]} changed while {stage} ran, so its outputs are not recorded; "
            f"to keep them, undo that change, then `dvc commit --force {stage}`"
        )


def inputs(stage: str) -> dict[str, Any]:
    """Digests of the code files, and values of the params, that dvc.yaml says `stage` depends on.

    `stage` is named as DVC does: train@bn, or ../dvc.yaml:train@bn in another folder.
    """
    name, _, run = stage.rpartition(":")[2].partition("@")
    definition = yaml.safe_load(Path("dvc.yaml").read_text())["stages"][name]
    item = definition.get("foreach", {}).get(run)
    context = {**params.load().model_dump(), "key": run, "item": item}
    definition = definition.get("do", definition)
    names = definition.get("params", [])
    found = {f"params.yaml: {name}": _value(name, context) for name in names}
    for dependency in definition["deps"]:
        path = Path(resolve(dependency, context))
        if path.parts[0] != "data":  # which DVC itself guards
            code = sorted(path.rglob("*.*")) if path.is_dir() else [path]
            found.update({str(f): files.sha256(f) for f in code if f.suffix != ".pyc"})
    return found
