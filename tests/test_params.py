"""params.yaml: every wrong value is named in one line, and costs nothing."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, refused
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import dumps_yaml, load_yaml, loads_yaml

from normlab.config import params
from normlab.norms.names import NORMS
from normlab.utils import files
from normlab.utils.errors import NormlabError

INTEGER = "must be a valid integer"
NUMBER = "must be a number"
NORM = f"must be one of {', '.join(NORMS)}"
DATASET = "must be one of cifar10, digits, folder:<absolute path>"
GROUPS = "must be a number that divides (16, 32, 64)"
VAL_SIZE = "must be a fraction between 0 and 1, or a number of images from 1"
INCREASING = "must be increasing numbers"
COMPILE = "must be auto, true or false"
BOOLEAN = "must be true or false"
TOP = "dataset, seed, norm, batch_size, comparison, split, model, norms, train, compute, repeat,"

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
    ({"comparison": "8"}, "comparison = 8", "must have the keys batch_size, small_batch_size"),
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
    ({"norms.gn.groups": "3"}, "norms.gn.groups = 3", GROUPS),
    ({"norms.gn.groups": "0"}, "norms.gn.groups = 0", GROUPS),
    ({"norms.gn.groups": "32"}, "norms.gn.groups = 32", GROUPS),
    ({"train.epochs": "0"}, "train.epochs = 0", "must be greater than or equal to 1"),
    ({"train.optimizer": "adam"}, "train.optimizer = 'adam'", "'sgd', 'adamw' or 'adagrad'"),
    ({"train.lr": "0"}, "train.lr = 0", "must be greater than 0"),
    ({"train.lr": "-0.1"}, "train.lr = -0.1", "must be greater than 0"),
    ({"train.lr": ".nan"}, "train.lr = nan", "must be a finite number"),
    ({"train.lr": ".inf"}, "train.lr = inf", "must be a finite number"),
    ({"train.lr": "'1e-3'"}, "train.lr = '1e-3'", NUMBER),
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
    ({"train.milestones": "[0.75, 0.5]"}, "train.milestones = [0.75, 0.5]", INCREASING),
    ({"train.milestones": "[0.5, 0.5]"}, "train.milestones = [0.5, 0.5]", INCREASING),
    ({"train.milestones": "[0.5, 1.0]"}, "train.milestones.1 = 1.0", "must be less than 1"),
    ({"train.milestones": "0.5"}, "train.milestones = 0.5", "must be a valid list"),
    ({"train.milestones": "[a]"}, "train.milestones.0 = 'a'", NUMBER),
    ({"train.gamma": "0"}, "train.gamma = 0", "must be greater than 0"),
    ({"train.patience": "0"}, "train.patience = 0", "must be greater than or equal to 1"),
    ({"train.crop_padding": "17"}, "train.crop_padding = 17", "less than or equal to 16"),
    ({"train.flip": "1"}, "train.flip = 1", BOOLEAN),
    ({"train.flip": "yes"}, "train.flip = 'yes'", BOOLEAN),
    ({"norms.bn": "{groups: 2}"}, "norms.bn.groups = 2", "is not a key; allowed keys are none"),
    ({"repeat.seeds": "[2, 2]"}, "repeat.seeds = [2, 2]", "must be different numbers"),
    ({"repeat.seeds": "[-1]"}, "repeat.seeds.0 = -1", "greater than or equal to 0"),
    ({"repeat.batch_sizes": "8"}, "repeat.batch_sizes = 8", "must be a valid list"),
    ({"train.precision": "float16"}, "train.precision = 'float16'", "'tf32' or 'bfloat16'"),
    ({"compute.compile": "'yes'"}, "compute.compile = 'yes'", COMPILE),
    ({"compute.compile": "1"}, "compute.compile = 1", COMPILE),
    ({"compute.compile": "null"}, "compute.compile = None", COMPILE),
    (
        {"compute.compile": "true", "compute.devices": "2"},
        "compute.compile = True",
        "must be auto or false with compute.devices > 1",
    ),
    ({"compute.devices": "0"}, "compute.devices = 0", "must be greater than or equal to 1"),
    ({"compute.on_divergence": "go"}, "compute.on_divergence = 'go'", "'stop' or 'record'"),
    ({"features.quantiles": "[]"}, "features.quantiles = []", "must have at least 1 item"),
    ({"features.quantiles": "[0.5, 1.5]"}, "features.quantiles.1 = 1.5", "less than or equal to 1"),
    ({"features.quantiles": "[0.8, 0.2]"}, "features.quantiles = [0.8, 0.2]", INCREASING),
    ({"features.quantiles": "[.nan]"}, "features.quantiles.0 = nan", "less than or equal to 1"),
    ({"features.quantiles": "[0.1, true]"}, "features.quantiles.1 = True", NUMBER),
    ({"plots.dpi": "0"}, "plots.dpi = 0", "must be greater than or equal to 30"),
    ({"plots.dpi": "150.0"}, "plots.dpi = 150.0", INTEGER),
    ({"plots.format": "pdf"}, "plots.format = 'pdf'", "is not a key; allowed keys are dpi"),
    ({"learning_rate": "0.1"}, "learning_rate = 0.1", f"is not a key; allowed keys are {TOP}"),
    (
        {"train.learning_rate": "0.1"},
        "train.learning_rate = 0.1",
        "is not a key; allowed keys are epochs,",
    ),
    ({"plots.a[0]": "1"}, "plots.a[0] = 1", "is not a key; allowed keys are dpi"),
    ({'"two\\nlines"': "1"}, "two lines = 1", f"is not a key; allowed keys are {TOP}"),
    ({"7": "1"}, "7", f"is not a key; allowed keys are {TOP}"),
    ({"split": "null"}, "split = None", "must have the keys val_size"),
    ({"split": "[0.2]"}, "split = [0.2]", "must have the keys val_size"),
    ({"plots": "png"}, "plots = 'png'", "must have the keys dpi"),
]

#: the whole file; what the error says
WRONG_FILES = [
    (b"", "the file = None", f"must have the keys {TOP}"),
    (b"# nothing\n", "the file = None", f"must have the keys {TOP}"),
    (b"- norm\n", "the file = ['norm']", f"must have the keys {TOP}"),
    (b"bn\n", "the file = 'bn'", f"must have the keys {TOP}"),
    (b"train: [0.5\n", "is not YAML", "line 2, column 1"),
    (b"norm: bn: ln\n", "is not YAML", "line 1, column 9"),
    (b"train:\n\tlr: 0.1\n", "is not YAML", "line 2, column 1"),
    (b"norm: !!python/name:os.system\n", "is not YAML", "python/name:os.system"),
    (b"seed: 2026-13-01\n", "is not YAML", "month must be in 1..12"),
    (b"[" * 2000, "is not YAML", "recursion"),
    (b"norm: \xff\xfe\n", "is not YAML", "0xff in position 6"),
    (b"seed: !!int\n", "is not YAML", "out of range"),
    (b"norm: \x00\n", "is not YAML", "#x0000"),
    (
        b"norm: bn\nseed: 1\nnorm: ln\n",
        "is not YAML",
        'line 3, column 1: found duplicate key "norm"',
    ),
    (b"norm: bn\n'norm': bn\n", "is not YAML", "line 2, column 1"),
    (b"train:\n  lr: 0.1\n  lr: 0.2\n", "is not YAML", 'found duplicate key "lr"'),
    (b"seed: 1\n---\nseed: 2\n", "is not YAML", "found another document"),
    (b"train: *large\n", "is not YAML", "undefined alias 'large'"),
]

MISSING = ["dataset", "seed", "comparison", "split.val_size", "train.lr", "plots.dpi"]

GOOD_VALUES = [
    ({"split.val_size": "0.2"}, 0.2),
    ({"split.val_size": "1000"}, 1000),
    ({"split.val_size": "1"}, 1),
    ({"compute.compile": "auto"}, "auto"),
    ({"compute.compile": "true", "compute.devices": "1"}, True),
    ({"compute.compile": "false", "compute.devices": "2"}, False),
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
    content = files.read_yaml(ROOT / "params.yaml")
    for key, value in edits.items():
        section, last = place(content, key)
        section[loads_yaml(last)] = loads_yaml(value)
    return dumps_yaml(content)


def refusal(path: Path) -> str:
    """What `load` says of the file `path`, behind its name."""
    line = refused(lambda: params.load(path))
    assert line.startswith(f"{path}: ")
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
    content = files.read_yaml(ROOT / "params.yaml")
    section, last = place(content, key)
    del section[last]
    path = tmp_path / "params.yaml"
    path.write_text(dumps_yaml(content))
    assert refusal(path) == f"{key}: is missing; every key is required"


def test_one_key_in_two_sections_is_no_key_given_twice(tmp_path: Path) -> None:
    """As batch_size is; nor is one that overrides what `<<` merges."""
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text()
    path.write_text(text.replace("\nplots:\n", "\nplots:\n  <<: {dpi: 99}\n"))
    assert "<<" in path.read_text()
    assert params.load(path) == params.load(ROOT / "params.yaml")


#: spellings that YAML 1.1 and 1.2 read differently, or one of them alone allows
SPELLINGS = [
    "010", "0o10", "0x10", "0b11", "08", "1_000", "1:04", "+7", "1e2", "1e-05", "1.5e+3", ".5",
    "0.1_0", "1E3", "yes", "No", "on", "OFF", "~", "null", "true", "FALSE", ".inf", "-.INF", ".nan",
    "2026-01-02", "'8'", "!!int '8'", "&a 8", "",
]  # fmt: skip


@pytest.mark.parametrize("value", SPELLINGS)
@pytest.mark.parametrize("key", ["seed", "batch_size", "weight_decay", "flip"])
def test_a_value_is_what_dvc_reads_or_refused(key: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    before = (ROOT / "params.yaml").read_text()
    path.write_text(re.sub(rf"(?m)^( *{key}:) [\w.]+", rf"\1 {value}", before, count=1))
    assert f"{key}: {value}" in path.read_text()
    there = load_yaml(path)
    expected = {**there, **there["train"]}[key]
    try:
        found = params.load(path)
    except NormlabError as error:
        assert f"{key} = {expected!r}: must be " in str(error)
    else:
        assert {**found.model_dump(), **found.train.model_dump()}[key] == expected
        assert type(expected) is not str


@pytest.mark.parametrize("value", ["1e-5", "0.00001", "1e-20", "1e16"])
def test_a_number_that_dvc_writes_is_a_number(value: str, tmp_path: Path) -> None:
    """`-S train.weight_decay=1e-5` writes 1e-05."""
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    apply_overrides(path, [f"train.weight_decay={value}"])
    assert params.load(path).train.weight_decay == float(value)


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
        (("main", "xn", 128), "run main: norm = 'xn': must be one of"),
        (("main", "bn", 0), "run main: batch_size = 0: must be greater"),
        (("../x", "gn", 128), "run ../x: name = '../x': "),
    ],
)
def test_a_wrong_run_of_dvc_yaml_is_named(run: tuple[str, str, int], named: str) -> None:
    with pytest.raises(NormlabError) as raised:
        params.check_run(*run)
    line = str(raised.value)
    assert line.startswith(f"dvc.yaml: {named}")
    assert line.splitlines() == [line]


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code alone: all that the stage `split` needs to read params.yaml."""
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
    ("content", "named"),
    [
        (edited({"norm": "batchnorm"}), "norm = 'batchnorm'"),
        (edited({"train.lr": ".nan"}), "train.lr = nan"),
        ("train: [0.5\n", "is not YAML"),
        (edited({"norms.gn.groups": "3"}), "norms.gn.groups = 3"),
        (None, "No such file or directory"),
    ],
)
def test_a_stage_refuses_in_one_line_and_changes_nothing(
    content: str | None, named: str, code: Path
) -> None:
    path = code / "params.yaml"
    path.unlink(missing_ok=True)
    if content:
        path.write_text(content)
    before = listing(code)
    done = run_stage(code, "split")
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert re.match(f"error: params.yaml: {named}[:;] ", done.stderr)
    assert listing(code) == before
