"""Git merges of dvc.lock, stage by stage.

Machines that train different runs add or change different stages of one dvc.lock. Git compares
lines, and takes entries that two machines added at one place for a conflict. This compares
stages. `make install` registers it with Git for the file that .gitattributes names.
"""

from pathlib import Path
from typing import Any

from normlab.utils import files
from normlab.utils.errors import NormlabError


def merge(base: Path, ours: Path, theirs: Path) -> None:
    """Write into `ours` what it and `theirs` changed since `base`, as Git asks of a merge driver.

    Raises `NormlabError`, and writes nothing, when both changed one stage in different ways.
    """
    from dvc.utils.serialize import dumps_yaml  # slow to import

    was, mine, other = (_read(path) for path in (base, ours, theirs))
    stages: dict[str, Any] = {}
    for name in dict.fromkeys((*mine["stages"], *other["stages"])):
        before, one, two = (lock["stages"].get(name) for lock in (was, mine, other))
        if one != before and two != before and one != two:
            raise NormlabError(
                f"dvc.lock: both sides changed the stage {name}; take one side's file "
                "(`git checkout --ours dvc.lock`), then `dvc repro`"
            )
        chosen = two if one == before else one
        if chosen is not None:
            stages[name] = chosen
    merged = {"schema": mine.get("schema", other.get("schema")), "stages": stages}
    files.write_text(ours, dumps_yaml(merged))


def _read(path: Path) -> dict[str, Any]:
    """A dvc.lock's content; no stages if it is empty, as where both sides added the file."""
    content = files.read_yaml(path) or {}
    try:
        return {**content, "stages": dict(content.get("stages") or {})}
    except (AttributeError, TypeError, ValueError) as error:
        raise NormlabError(f"{path}: is no dvc.lock: {error}") from None
