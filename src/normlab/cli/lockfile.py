"""Git merges of dvc.lock, stage by stage.

Machines that train different runs add or change different stages of one dvc.lock. Git compares
lines, and reports a conflict where two machines added entries at one place. This compares
stages. `make install` registers it with Git for the file that .gitattributes names; where it fails,
or there is no .venv, `git merge-file` marks what `ours` and `theirs` do not share.
"""

from pathlib import Path
from typing import Any

from normlab.utils import files
from normlab.utils.errors import NormlabError


def merge(base: Path, ours: Path, theirs: Path) -> None:
    """Write into `ours`, and `theirs`, what the two changed since `base`.

    Raises `NormlabError` when both changed some stages in different ways: then the files differ in
    these stages alone. A file that is no dvc.lock raises it, too, and nothing is written.
    """
    from dvc.utils.serialize import dumps_yaml  # slow to import

    was, mine, other = (_read(path) for path in (base, ours, theirs))
    merged: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for name in dict.fromkeys((*mine, *other)):
        before, one, two = (stages.get(name) for stages in (was, mine, other))
        chosen = (two, two) if one == before else (one, one) if two == before else (one, two)
        for stages, stage in zip(merged, chosen, strict=True):
            if stage is not None:
                stages[name] = stage
    for path, stages in zip((ours, theirs), merged, strict=True):
        files.write_text(path, dumps_yaml({"schema": "2.0", "stages": stages}))
    if conflicts := [n for n in {**merged[0], **merged[1]} if merged[0].get(n) != merged[1].get(n)]:
        raise NormlabError(
            f"dvc.lock: both sides changed {', '.join(conflicts)}; choose between the sides that "
            "Git marks there, `git add dvc.lock`, then `dvc repro`"
        )


def _read(path: Path) -> dict[str, Any]:
    """The stages of a dvc.lock; none if it is empty, as where both sides added the file."""
    content = files.read_yaml(path) or {"schema": "2.0"}
    try:
        if content["schema"] != "2.0":
            raise ValueError(f"schema {content['schema']}")
        return dict(content.get("stages") or {})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NormlabError(f"{path}: is not a dvc.lock: {error}") from None
