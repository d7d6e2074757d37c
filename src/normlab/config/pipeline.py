"""What dvc.yaml says: its runs, and what a stage depends on."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import wraps
from itertools import product
from pathlib import Path
from typing import Any

from normlab.config import params
from normlab.config.paths import RunFiles
from normlab.utils import files
from normlab.utils.errors import NormlabError, run_command


def runs(path: Path | str = "dvc.yaml") -> dict[str, dict[str, Any]]:
    """All runs by name, as dvc.yaml's one map has them and in its order.

    Raises `NormlabError` when the stage `plots` does not depend on what it reads of each: DVC
    would then neither rerun it for that run nor fetch the run's files.
    """
    stages = definitions(path)
    found = {str(name): run for name, run in stages["train"]["foreach"].items()}  # 8: is a number
    for name in found:
        made = RunFiles(name)
        for file in map(str, (made.log, made.scores, made.predictions, made.quantiles)):
            if file not in stages["plots"]["deps"]:
                raise NormlabError(
                    f"{path}: run {name}: {file} is missing from the deps of the stage plots; "
                    "add it there as for the other runs"
                )
    return found


def repetitions(
    values: Mapping[str, Any], path: Path | str = "dvc.yaml"
) -> dict[tuple[str, int, int], str]:
    """Norm, batch size and seed of each training that dvc.yaml repeats, and its stage.

    `values` has what the matrices of these stages name: params.yaml's `seed` and sections
    `comparison` and `repeat`.
    """
    found = {}
    for name, stage in definitions(path).items():
        if "matrix" in stage:
            matrix = resolve(stage["matrix"], values)
            for norm, size, seed in product(matrix["norm"], matrix["batch_size"], matrix["seed"]):
                found[norm, size, seed] = f"{name}@{norm}-{size}-{seed}"
    return found


def resolve(content: Any, values: Mapping[str, Any]) -> Any:
    """`content` of dvc.yaml with what each `${train.lr}` stands for in the nested `values`."""
    from dvc.parsing.context import Context

    context = Context(values)
    while "${" in str(content):
        content = context.resolve(content)
    return content


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

    DVC hashes them when a stage has ended: an edit during a training would be recorded as what it
    was trained with. Raises `NormlabError` after the block, which makes DVC record nothing.
    """
    place = parse(stage)
    before = inputs(*place)
    yield
    try:
        after = inputs(*place)
        changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    except (NormlabError, OSError) as error:  # params.yaml is wrong now, or a file is gone
        changed = [f"{error}; this"]
    if changed:
        raise NormlabError(
            f"{changed[0]} changed while {stage} ran, so its outputs are not recorded; "
            f"to keep them, undo that change, then `dvc commit --force {stage}`"
        )


def parse(stage: str) -> tuple[str, dict[str, Any], str]:
    """Name in dvc.yaml, `item` and `key` of `stage`.

    `stage` is named as DVC does: train@bn, repeat@bn-128-2, ../dvc.yaml:train@bn.
    """
    name, _, key = stage.rpartition(":")[2].partition("@")
    definition = definitions()[name]
    if "foreach" in definition:
        return name, {str(run): item for run, item in definition["foreach"].items()}[key], key
    return name, dict(zip(definition.get("matrix", ()), key.split("-"), strict=False)), key


def inputs(
    stage: str, item: Mapping[str, Any], key: str = "", data: bool = False
) -> dict[str, Any]:
    """Digests of the code files, and values of the params, that `stage` of dvc.yaml depends on.

    `item` is one of those it is for: a run, whose name is `key`, or an entry of a matrix. With
    `data`, also digests of the files below data/, which DVC itself guards.
    """
    from pathspec import PathSpec

    definition = definitions()[stage]
    definition = definition.get("do", definition)
    ignored = PathSpec.from_lines("gitignore", Path(".dvcignore").read_text().splitlines())
    context = {**params.load().model_dump(), "item": item, "key": key}
    names, paths = resolve([definition.get("params", []), definition["deps"]], context)
    found = {f"params.yaml: {name}": resolve("${" + name + "}", context) for name in names}
    for path in map(Path, paths):
        if path.parts[0] != "data" or data:
            code = filter(Path.is_file, sorted(path.rglob("*"))) if path.is_dir() else [path]
            found.update({str(f): files.sha256(f) for f in code if not ignored.match_file(f)})
    return found


def definitions(path: Path | str = "dvc.yaml") -> dict[str, Any]:
    """The stages as dvc.yaml has them."""
    return files.read_yaml(path)["stages"]
