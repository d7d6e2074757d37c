"""params.yaml: every wrong value is named in one line, and costs nothing."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from normlab.config import params
from normlab.norms.names import NORMS
from normlab.utils.errors import NormlabError

INTEGER = "must be a valid integer"
NUMBER = "must be a number, such as 0.001 or 1.0e-3"
NORM = f"must be one of {', '.join(NORMS)}"
DATASET = "must be one of cifar10, digits, folder:<absolute path>"
GROUPS = "must divide the channels (16, 32, 64): one of 1, 2, 4, 8, 16"
VAL_SIZE = "must be a fraction between 0 and 1, or a number of images from 1"
MILESTONES = "must be increasing fractions of the training, between 0 and 1"
QUANTILES = "must be increasing numbers between 0 and 1, at least one"
COMPILE = "must be auto, true or false"
BOOLEAN = "must be a valid boolean"
TOP = "dataset, seed, norm, batch_size, comparison, split, model, train, features, plots"

#: what is written into params.yaml, as YAML; what the error says of key and value; what is allowed
WRONG_VALUES = [
    ({"norm": "batchnorm"}, "norm = 'batchnorm'", NORM),
    ({"norm": "BN"}, "norm = 'BN'", NORM),
    ({"norm": "null"}, "norm = None", NORM),
    ({"norm": "true"}, "norm = True", NORM),
    ({"norm": "[bn]"}, "norm = ['bn']", NORM),
    ({"dataset": "mnist"}, "dataset = 'mnist'", DATASET),
    ({"dataset": "'folder:'"}, "dataset = 'folder:'", DATASET),
    ({"dataset": "folder:pics"}, "dataset = 'folder:pics'", DATASET),
    ({"dataset": "folder:./pics"}, "dataset = 'folder:./pics'", DATASET),
    ({"dataset": "3"}, "dataset = 3", DATASET),
    ({"dataset": "cifar10-jpeg"}, "dataset = 'cifar10-jpeg'", DATASET),
    ({"batch_size": "0"}, "batch_size = 0", "must be greater than or equal to 1"),
    ({"batch_size": "-8"}, "batch_size = -8", "must be greater than or equal to 1"),
    ({"batch_size": "65537"}, "batch_size = 65537", "must be less than or equal to 65536"),
    ({"batch_size": "'128'"}, "batch_size = '128'", INTEGER),
    ({"batch_size": "1.5"}, "batch_size = 1.5", INTEGER),
    ({"batch_size": "true"}, "batch_size = True", INTEGER),
    ({"batch_size": "null"}, "batch_size = None", INTEGER),
    (
        {"comparison.small_batch_size": "128"},
        "comparison.small_batch_size = 128",
        "must be less than comparison.batch_size = 128",
    ),
    (
        {"comparison.batch_size": "8"},
        "comparison.small_batch_size = 8",
        "must be less than comparison.batch_size = 8",
    ),
    (
        {"comparison.batch_size": "0"},
        "comparison.batch_size = 0",
        "must be greater than or equal to 1",
    ),
    ({"comparison": "8"}, "comparison = 8", "must hold the keys batch_size, small_batch_size"),
    ({"seed": "-1"}, "seed = -1", "must be greater than or equal to 0"),
    ({"seed": "2147483648"}, "seed = 2147483648", "must be less than 2147483648"),
    ({"seed": "0.5"}, "seed = 0.5", INTEGER),
    ({"split.val_size": "0"}, "split.val_size = 0", VAL_SIZE),
    ({"split.val_size": "1.5"}, "split.val_size = 1.5", VAL_SIZE),
    ({"split.val_size": "true"}, "split.val_size = True", VAL_SIZE),
    ({"split.val_size": "-0.2"}, "split.val_size = -0.2", VAL_SIZE),
    ({"split.val_size": "'0.2'"}, "split.val_size = '0.2'", VAL_SIZE),
    ({"split.val_size": "null"}, "split.val_size = None", VAL_SIZE),
    ({"split.val_size": ".inf"}, "split.val_size = inf", VAL_SIZE),
    ({"split.val_size": ".nan"}, "split.val_size = nan", VAL_SIZE),
    ({"model.n": "0"}, "model.n = 0", "must be greater than or equal to 1"),
    ({"model.n": "'2'"}, "model.n = '2'", INTEGER),
    ({"model.groups": "3"}, "model.groups = 3", GROUPS),
    ({"model.groups": "0"}, "model.groups = 0", GROUPS),
    ({"model.groups": "32"}, "model.groups = 32", GROUPS),
    ({"train.epochs": "0"}, "train.epochs = 0", "must be greater than or equal to 1"),
    ({"train.optimizer": "adam"}, "train.optimizer = 'adam'", "'sgd', 'adamw' or 'adagrad'"),
    ({"train.lr": "0"}, "train.lr = 0", "must be greater than 0"),
    ({"train.lr": "-0.1"}, "train.lr = -0.1", "must be greater than 0"),
    ({"train.lr": ".nan"}, "train.lr = nan", "must be a finite number"),
    ({"train.lr": ".inf"}, "train.lr = inf", "must be a finite number"),
    ({"train.lr": "1e-3"}, "train.lr = '1e-3'", NUMBER),  # a text, by the rules of YAML 1.1
    ({"train.lr": "true"}, "train.lr = True", NUMBER),
    ({"train.momentum": "1"}, "train.momentum = 1", "must be less than 1"),
    ({"train.momentum": "-0.1"}, "train.momentum = -0.1", "must be greater than or equal to 0"),
    ({"train.momentum": ".nan"}, "train.momentum = nan", "must be less than 1"),
    ({"train.weight_decay": "-1"}, "train.weight_decay = -1", "greater than or equal to 0"),
    ({"train.weight_decay": ".inf"}, "train.weight_decay = inf", "must be a finite number"),
    ({"train.label_smoothing": "1"}, "train.label_smoothing = 1", "must be less than 1"),
    ({"train.schedule": "linear"}, "train.schedule = 'linear'", "'cosine', 'step' or 'constant'"),
    (
        {"train.epochs": "3", "train.warmup_epochs": "3"},
        "train.warmup_epochs = 3",
        "must be less than train.epochs = 3",
    ),
    ({"train.warmup_epochs": "-1"}, "train.warmup_epochs = -1", "greater than or equal to 0"),
    ({"train.milestones": "[0.75, 0.5]"}, "train.milestones = [0.75, 0.5]", MILESTONES),
    ({"train.milestones": "[0.5, 0.5]"}, "train.milestones = [0.5, 0.5]", MILESTONES),
    ({"train.milestones": "[0.5, 1.0]"}, "train.milestones = [0.5, 1.0]", MILESTONES),
    ({"train.milestones": "0.5"}, "train.milestones = 0.5", "must be a valid list"),
    ({"train.milestones": "[a]"}, "train.milestones.0 = 'a'", NUMBER),
    ({"train.gamma": "0"}, "train.gamma = 0", "must be greater than 0"),
    ({"train.patience": "0"}, "train.patience = 0", "must be greater than or equal to 1"),
    ({"train.crop_padding": "17"}, "train.crop_padding = 17", "less than or equal to 16"),
    ({"train.flip": "1"}, "train.flip = 1", BOOLEAN),
    ({"train.precision": "float16"}, "train.precision = 'float16'", "'float32' or 'bfloat16'"),
    ({"train.compile": "'yes'"}, "train.compile = 'yes'", COMPILE),
    ({"train.compile": "1"}, "train.compile = 1", COMPILE),
    ({"train.compile": "null"}, "train.compile = None", COMPILE),
    (
        {"train.compile": "true", "train.devices": "2"},
        "train.compile = True",
        "must be auto or false with train.devices > 1",
    ),
    ({"train.devices": "0"}, "train.devices = 0", "must be greater than or equal to 1"),
    ({"train.on_divergence": "go"}, "train.on_divergence = 'go'", "'stop' or 'record'"),
    ({"features.quantiles": "[]"}, "features.quantiles = []", QUANTILES),
    ({"features.quantiles": "[0.5, 1.5]"}, "features.quantiles = [0.5, 1.5]", QUANTILES),
    ({"features.quantiles": "[0.8, 0.2]"}, "features.quantiles = [0.8, 0.2]", QUANTILES),
    ({"features.quantiles": "[.nan]"}, "features.quantiles = [nan]", QUANTILES),
    ({"features.quantiles": "[0.1, true]"}, "features.quantiles.1 = True", NUMBER),
    ({"plots.dpi": "0"}, "plots.dpi = 0", "must be greater than or equal to 30"),
    ({"plots.dpi": "150.0"}, "plots.dpi = 150.0", INTEGER),
    ({"plots.format": "jpg"}, "plots.format = 'jpg'", "must be 'png', 'svg' or 'pdf'"),
    ({"learning_rate": "0.1"}, "learning_rate = 0.1", f"is no key; allowed are {TOP}"),
    ({"train.learning_rate": "0.1"}, "train.learning_rate = 0.1", "is no key; allowed are epochs,"),
    ({"plots.a[0]": "1"}, "plots.a[0] = 1", "is no key; allowed are dpi, format"),
    ({'"two\\nlines"': "1"}, "two lines = 1", f"is no key; allowed are {TOP}"),
    ({"7": "1"}, "7", f"is no key; allowed are {TOP}"),
    ({"split": "null"}, "split = None", "must hold the keys val_size"),
    ({"split": "[0.2]"}, "split = [0.2]", "must hold the keys val_size"),
    ({"plots": "png"}, "plots = 'png'", "must hold the keys dpi, format"),
]

#: the whole file; what the error says
WRONG_FILES = [
    (b"", "the file = None", f"must hold the keys {TOP}"),
    (b"# nothing\n", "the file = None", f"must hold the keys {TOP}"),
    (b"- norm\n", "the file = ['norm']", f"must hold the keys {TOP}"),
    (b"bn\n", "the file = 'bn'", f"must hold the keys {TOP}"),
    (b"train: [0.5\n", "is not YAML", "line 2, column 1"),
    (b"norm: bn: ln\n", "is not YAML", "line 1, column 9"),
    (b"train:\n\tlr: 0.1\n", "is not YAML", "line 2, column 1"),
    (b"norm: !!python/name:os.system\n", "is not YAML", "python/name:os.system"),
    (b"seed: 2026-13-01\n", "is not YAML", "month must be in 1..12"),
    (b"[" * 2000, "is not YAML", "recursion"),
    (b"norm: \xff\xfe\n", "is not UTF-8 text", "0xff in position 6"),
    (b"norm: \x00\n", "is not YAML", "#x0000"),
    (b"norm: bn\nseed: 1\nnorm: ln\n", "is not YAML", "key norm is given twice in"),
    (b"norm: bn\n'norm': bn\n", "is not YAML", "line 2, column 1"),
    (b"train:\n  lr: 0.1\n  lr: 0.2\n", "is not YAML", "key lr is given twice in"),
]

MISSING = ["dataset", "seed", "comparison", "split.val_size", "train.lr", "plots.format"]

GOOD_VALUES = [
    ({"split.val_size": "0.2"}, 0.2),
    ({"split.val_size": "1000"}, 1000),
    ({"split.val_size": "1"}, 1),
    ({"train.compile": "auto"}, "auto"),
    ({"train.compile": "true", "train.devices": "1"}, True),
    ({"train.compile": "false", "train.devices": "2"}, False),
    ({"dataset": "folder:/x"}, "folder:/x"),
    ({"dataset": "folder:~/x"}, "folder:~/x"),
    ({"dataset": "digits"}, "digits"),
    ({"train.lr": "1"}, 1.0),
    ({"train.milestones": "[]"}, []),
    ({"features.quantiles": "[0, 1]"}, [0.0, 1.0]),
    ({"seed": "2147483647"}, 2147483647),
    ({"comparison.small_batch_size": "127"}, 127),
    *(({"norm": norm}, norm) for norm in NORMS),
]


def place(content: Any, key: str) -> tuple[Any, Any]:
    """The section of `key` and its last part: `train.lr` is `lr` of the section `train`."""
    *sections, last = key.split(".")
    for section in sections:
        content = content[section]
    return content, last


def edited(edits: dict[str, str]) -> str:
    """This repository's params.yaml with `edits`, YAML for YAML."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in edits.items():
        section, last = place(content, key)
        section[yaml.safe_load(last)] = yaml.safe_load(value)
    return yaml.safe_dump(content)


def refusal(path: Path) -> str:
    """What `load` says of the file `path`: one line that begins with its name."""
    with pytest.raises(NormlabError) as raised:
        params.load(path)
    line = str(raised.value)
    assert line.startswith(f"{path}: ")
    assert line.splitlines() == [line]
    return line.removeprefix(f"{path}: ")


def name_of(value: object) -> str | None:
    return " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None


def test_this_repository_has_allowed_values() -> None:
    assert params.load(ROOT / "params.yaml").seed >= 0


@pytest.mark.parametrize(("edits", "named", "allowed"), WRONG_VALUES, ids=name_of)
def test_a_wrong_value_is_named_with_what_is_allowed(
    edits: dict[str, str], named: str, allowed: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(edited(edits))
    line = refusal(path)
    assert line.startswith(f"{named}: ")
    assert allowed in line


@pytest.mark.parametrize(("content", "named", "allowed"), WRONG_FILES)
def test_a_file_that_holds_something_else_is_refused(
    content: bytes, named: str, allowed: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    line = refusal(path)
    assert line.startswith(f"{named}: ")
    assert allowed in line


@pytest.mark.parametrize("key", MISSING)
def test_a_missing_key_is_named(key: str, tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    section, last = place(content, key)
    del section[last]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    assert refusal(path) == f"{key}: is missing; every key must be given"


def test_one_key_in_two_sections_is_no_key_given_twice(tmp_path: Path) -> None:
    """As batch_size is; nor is one that overrides what `<<` merges."""
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text()
    path.write_text(text.replace("\nplots:\n", "\nplots:\n  <<: {dpi: 99, format: svg}\n"))
    assert "<<" in path.read_text()
    assert params.load(path) == params.load(ROOT / "params.yaml")


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.yaml") == "no such file; run from the repository's root"


def test_a_long_value_is_shortened(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(edited({"norm": "x" * 5000}))
    assert len(refusal(path)) < 200


@pytest.mark.parametrize(("edits", "expected"), GOOD_VALUES, ids=name_of)
def test_a_good_value_is_taken_as_it_is(
    edits: dict[str, str], expected: object, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(edited(edits))
    section, last = place(params.load(path).model_dump(), next(iter(edits)))
    assert section[last] == expected
    assert type(section[last]) is type(expected)


@pytest.mark.parametrize(
    ("run", "named"),
    [
        (("main", "xn", 128, 8), "run main: norm = 'xn': must be one of"),
        (("main", "bn", 0, 8), "run main: batch_size = 0: must be greater"),
        (("main", "gn", 128, 5), "run main: groups = 5: must divide"),
        (("../x", "gn", 128, 8), "run ../x: name = '../x': "),
    ],
)
def test_a_wrong_run_of_dvc_yaml_is_named(run: tuple[str, str, int, int], named: str) -> None:
    with pytest.raises(NormlabError) as raised:
        params.check_run(*run)
    line = str(raised.value)
    assert line.startswith(f"dvc.yaml: {named}")
    assert line.splitlines() == [line]


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code alone: all that the stages `check` and `split` need."""
    root = tmp_path_factory.mktemp("code")
    for folder in ("src", "stages"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def listing(root: Path) -> dict[str, str]:
    """Every path below `root`, with the checksum of each file."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in root.rglob("*")
    }


def run_stage(root: Path, stage: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=root, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "content", "named"),
    [
        ("check", edited({"norm": "batchnorm"}), "norm = 'batchnorm'"),
        ("check", edited({"train.lr": ".nan"}), "train.lr = nan"),
        ("check", "train: [0.5\n", "is not YAML"),
        ("split", edited({"model.groups": "3"}), "model.groups = 3"),
    ],
)
def test_a_stage_refuses_in_one_line_and_changes_nothing(
    stage: str, content: str, named: str, code: Path
) -> None:
    (code / "params.yaml").write_text(content)
    before = listing(code)
    done = run_stage(code, stage)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: params.yaml: {named}: ")
    assert listing(code) == before
