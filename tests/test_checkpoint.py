"""A model as a file: read as it was written, and refused in one line if it is something else."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import refused

from normlab.nets import checkpoint
from normlab.nets.checkpoint import Spec

SPEC = Spec("run", "gn", 16, 1, 8, ("cat", "dog"), (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.safetensors"


def test_what_is_written_is_read(path: Path) -> None:
    model = SPEC.build().eval()
    checkpoint.save(path, model.state_dict(), SPEC, 7)
    read, spec, epoch = checkpoint.load(path)
    assert (spec, epoch, read.training) == (SPEC, 7, False)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(read(x), model(x))


def test_a_missing_file_names_the_commands_that_get_it(path: Path) -> None:
    line = refused(lambda: checkpoint.load(path))
    assert line == f"{path}: no such file; `dvc pull` or `dvc repro` gets it"


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"normlab": "no JSON"},
        {"normlab": '"text"'},
        {"normlab": "[1]"},
        {"normlab": "{}"},
        {"norm": "batchnorm"},
        {"n": 0},
        {"n": 2},
        {"groups": 5},
        {"classes": 3},
        {"unknown": 1},
    ],
    ids=str,
)
def test_what_is_no_model_is_refused(metadata: dict[str, Any] | None, path: Path) -> None:
    checkpoint.save(path, SPEC.build().state_dict(), SPEC, 7)
    with safetensors.safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["normlab"])
    if metadata and "normlab" not in metadata:
        metadata = {"normlab": json.dumps({**content, **metadata})}
    safetensors.torch.save_file(SPEC.build().state_dict(), path, metadata)
    assert refused(lambda: checkpoint.load(path)).startswith(
        f"{path}: is not a model of this project: "
    )


@pytest.mark.parametrize("kept", [0, 100, -100])
def test_a_damaged_file_is_refused(kept: int, path: Path) -> None:
    checkpoint.save(path, SPEC.build().state_dict(), SPEC, 7)
    path.write_bytes(path.read_bytes()[:kept])
    assert "is not a model of this project: " in refused(lambda: checkpoint.load(path))
