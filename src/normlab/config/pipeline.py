"""What dvc.yaml says: its runs, and what a stage depends on."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import reduce, wraps
from itertools import product
from operator import getitem
from pathlib import Path
from typing import Any

import yaml

from normlab.config import params
from normlab.utils import files
from normlab.utils.errors import NormlabError, run_command


def _stages(path: Path | str) -> dict[str, dict[str, Any]]:
    """The stages as dvc.yaml has them.

    Raises `NormlabError` when `plots` does not depend on each run: DVC would then neither rerun it
    for that run nor fetch the run's files.
    """
    stages: dict[str, dict[str, Any]] = yaml.safe_load(Path(path).read_text())["stages"]
    for name in stages["train"]["foreach"]:
        if f"data/runs/{name}/log.csv" not in stages["plots"]["deps"]:
            raise NormlabError(
                f"{path}: run {name} is missing among the deps of the stage plots; "
                "add the line there that the other runs have"
            )
    return stages


def runs(path: Path | str = "dvc.yaml") -> list[str]:
    """The names of all runs, in the order of dvc.yaml's one map of them."""
    return list(_stages(path)["train"]["foreach"])


def items(values: Any, path: Path | str = "dvc.yaml") -> dict[str, dict[str, Any]]:
    """What `item` is in each stage that DVC makes of a foreach or matrix: by its name, train@bn.

    `values` are those of params.yaml.
    """
    found = {}
    for stage, definition in _stages(path).items():
        made = definition.get("foreach", {})
        if matrix := definition.get("matrix"):
            lists = [resolve(choices, values) for choices in matrix.values()]
            rows = product(*([resolve(value, values) for value in choices] for choices in lists))
            made = {"-".join(map(str, row)): dict(zip(matrix, row, strict=True)) for row in rows}
        for key, item in made.items():
            found[f"{stage}@{key}"] = {name: resolve(value, values) for name, value in item.items()}
    return found


def resolve(text: Any, values: Any) -> Any:
    """`text` of dvc.yaml with what its `${train.lr}`, if any, stand for in the nested `values`.

    What is not a text stays as it is; a text that is one `${...}` alone becomes the value itself.
    """
    while isinstance(text, str) and "${" in text:
        if alone := re.fullmatch(r"\$\{([^}]*)\}", text):
            text = _value(alone[1], values)
        else:
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
    stage = stage.rpartition(":")[2]
    name, _, key = stage.partition("@")
    definition = _stages("dvc.yaml")[name]
    definition = definition.get("do", definition)
    values = params.load().model_dump()
    context = {**values, "key": key, "item": items(values).get(stage)}
    names = [resolve(name, context) for name in definition.get("params", [])]
    found = {f"params.yaml: {name}": _value(name, context) for name in names}
    for dependency in definition["deps"]:
        path = Path(resolve(dependency, context))
        if path.parts[0] != "data":  # which DVC itself guards
            code = sorted(path.rglob("*.*")) if path.is_dir() else [path]
            found.update({str(f): files.sha256(f) for f in code if f.suffix != ".pyc"})
    return found
