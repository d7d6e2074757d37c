"""params.yaml: every wrong value is named in one line, and costs nothing."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Workspace, refused
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import dumps_yaml, load_yaml, loads_yaml

from normlab.config import params
from normlab.norms.names import NORMS
from normlab.utils import files
from normlab.utils.errors import NormlabError

INTEGER = "must be a valid integer"
LEAST_0 = "must be greater than or equal to 0"
LEAST_1 = "must be greater than or equal to 1"
BELOW_1 = "must be less than 1"
MOST_1 = "must be less than or equal to 1"
FINITE = "must be a finite number"
NUMBER = "must be a number"
NORM = f"must be one of {', '.join(NORMS)}"
DATASET = "must be one of cifar10, digits, folder:<absolute path>"
GROUPS = "must be a common divisor of (16, 32, 64)"
VAL_SIZE = "must be a fraction between 0 and 1, or a number of images from 1"
INCREASING = "must be increasing numbers"
TOP = "dataset, seed, norm, batch_size, comparison, split, model, norms, train, compute, repeat,"

#: a key; what the error says is allowed there; values, as YAML, that are not
WRONG_VALUES = [
    ("norm", NORM, "batchnorm", "BN", "null", "true", "[bn]"),
    ("dataset", DATASET, "mnist", "cifar10-jpeg", "'folder:'", "folder:pics", "folder:./pics", "3"),
    ("batch_size", LEAST_1, "0", "-8"),
    ("batch_size", "must be less than or equal to 65536", "65537"),
    ("batch_size", INTEGER, "'128'", "1.5", "true", "null"),
    ("comparison.small_batch_size", "must be less than comparison.batch_size = 128", "128"),
    ("comparison.batch_size", LEAST_1, "0"),
    ("comparison", "must have the keys batch_size, small_batch_size", "8"),
    ("seed", LEAST_0, "-1"),
    ("seed", "must be less than 2147483648", "2147483648"),
    ("seed", INTEGER, "0.5"),
    ("split.val_size", VAL_SIZE, "0", "1.5", "true", "-0.2", "'0.2'", "null", ".inf", ".nan"),
    ("model.n", LEAST_1, "0"),
    ("model.n", INTEGER, "'2'"),
    ("norms.gn.groups", GROUPS, "3", "0", "32"),
    ("train.epochs", LEAST_1, "0"),
    ("train.optimizer", "'sgd', 'adamw' or 'adagrad'", "adam"),
    ("train.lr", "must be greater than 0", "0", "-0.1"),
    ("train.lr", FINITE, ".nan", ".inf"),
    ("train.lr", NUMBER, "'1e-3'", "true"),
    ("train.momentum", BELOW_1, "1", ".nan"),
    ("train.momentum", LEAST_0, "-0.1"),
    ("train.weight_decay", LEAST_0, "-1"),
    ("train.weight_decay", FINITE, ".inf"),
    ("train.label_smoothing", BELOW_1, "1"),
    ("train.schedule", "'cosine', 'step' or 'constant'", "linear"),
    ("train.warmup_epochs", LEAST_0, "-1"),
    ("train.milestones", INCREASING, "[0.75, 0.5]", "[0.5, 0.5]"),
    ("train.milestones", "must be a valid list", "0.5"),
    ("train.gamma", "must be greater than 0", "0"),
    ("train.patience", LEAST_1, "0"),
    ("train.crop_padding", "must be less than or equal to 16", "17"),
    ("train.flip", "must be true or false", "1", "yes"),
    ("train.precision", "'tf32' or 'bfloat16'", "float16"),
    ("repeat.seeds", "must be different numbers", "[2, 2]"),
    ("repeat.batch_sizes", "must be a valid list", "8"),
    ("compute.compile", "must be auto, true or false", "'yes'", "1", "null"),
    ("compute.devices", LEAST_1, "0"),
    ("compute.on_divergence", "'stop' or 'record'", "go"),
    ("features.quantiles", "must have at least 1 item", "[]"),
    ("features.quantiles", INCREASING, "[0.8, 0.2]"),
    ("plots.dpi", "must be greater than or equal to 30", "0"),
    ("plots.dpi", INTEGER, "150.0"),
    ("plots.format", "is not a key; allowed keys are dpi", "pdf"),
    ("plots.a[0]", "is not a key; allowed keys are dpi", "1"),
    ("train.learning_rate", "is not a key; allowed keys are epochs,", "0.1"),
    ("learning_rate", f"is not a key; allowed keys are {TOP}", "0.1"),
    ("split", "must have the keys val_size", "null", "[0.2]"),
    ("plots", "must have the keys dpi", "png"),
]

#: what is written into params.yaml, as YAML; what the error names, which is another; what it says
WRONG_KEYS: list[tuple[dict[str, str] | bytes, str, str]] = [
    ({"comparison.batch_size": "8"}, "comparison.small_batch_size = 8",
     "must be less than comparison.batch_size = 8"),
    ({"train.epochs": "3", "train.warmup_epochs": "3"}, "train.warmup_epochs = 3",
     "must be less than train.epochs = 3"),
    ({"compute.compile": "true", "compute.devices": "2"}, "compute.compile = True",
     "must be auto or false with compute.devices > 1"),
    ({"seed": "3", "repeat.seeds": "[2, 3]"}, "repeat.seeds = [2, 3]", "must not contain seed = 3"),
    ({"train.milestones": "[0.5, 1.0]"}, "train.milestones.1 = 1.0", BELOW_1),
    ({"train.milestones": "[a]"}, "train.milestones.0 = 'a'", NUMBER),
    ({"repeat.seeds": "[-1]"}, "repeat.seeds.0 = -1", LEAST_0),
    ({"features.quantiles": "[0.5, 1.5]"}, "features.quantiles.1 = 1.5", MOST_1),
    ({"features.quantiles": "[.nan]"}, "features.quantiles.0 = nan", MOST_1),
    ({"features.quantiles": "[0.1, true]"}, "features.quantiles.1 = True", NUMBER),
    ({"norms.bn": "{groups: 2}"}, "norms.bn.groups = 2", "is not a key; allowed keys are none"),
    ({'"two\\nlines"': "1"}, "two lines = 1", f"is not a key; allowed keys are {TOP}"),
    ({"7": "1"}, "7", f"is not a key; allowed keys are {TOP}"),
]  # fmt: skip

#: the whole file; what the error says
WRONG_FILES: list[tuple[dict[str, str] | bytes, str, str]] = [
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
    (b"norm: bn\nn: 1\nnorm: ln\n", "is not YAML", 'line 3, column 1: found duplicate key "norm"'),
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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "params.yaml"


def refusal(path: Path) -> str:
    """What `load` says of the file `path`, behind its name."""
    line = refused(lambda: params.load(path))
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [(key, value, allowed) for key, allowed, *values in WRONG_VALUES for value in values],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    key: str, value: str, allowed: str, path: Path
) -> None:
    path.write_text(edited({key: value}))
    line = refusal(path)
    assert line.startswith(f"{key} = {loads_yaml(value)!r}: ")
    assert allowed in line


@pytest.mark.parametrize(("content", "named", "allowed"), WRONG_KEYS + WRONG_FILES)
def test_what_else_is_wrong_is_named(
    content: dict[str, str] | bytes, named: str, allowed: str, path: Path
) -> None:
    path.write_bytes(content if isinstance(content, bytes) else edited(content).encode())
    line = refusal(path)
    assert line.startswith(f"{named}: ")
    assert allowed in line


@pytest.mark.parametrize("key", MISSING)
def test_a_missing_key_is_named(key: str, path: Path) -> None:
    content = files.read_yaml(ROOT / "params.yaml")
    section, last = place(content, key)
    del section[last]
    path.write_text(dumps_yaml(content))
    assert refusal(path) == f"{key}: is missing; every key is required"


def test_one_key_in_two_sections_is_no_key_given_twice(path: Path) -> None:
    """As batch_size is; nor is one that overrides what `<<` merges."""
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
def test_a_value_is_what_dvc_reads_or_refused(key: str, value: str, path: Path) -> None:
    # no repetitions: some spellings of `seed` may be one of their seeds
    before = re.sub(r"(?m)^( *seeds:) .*", r"\1 []", (ROOT / "params.yaml").read_text())
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
def test_a_number_that_dvc_writes_is_a_number(value: str, path: Path) -> None:
    """`-S train.weight_decay=1e-5` writes 1e-05."""
    shutil.copy(ROOT / "params.yaml", path)
    apply_overrides(path, [f"train.weight_decay={value}"])
    assert params.load(path).train.weight_decay == float(value)


def test_a_long_value_is_shortened(path: Path) -> None:
    path.write_text(edited({"norm": "x" * 5000}))
    assert len(refusal(path)) < 200


@pytest.mark.parametrize(("edits", "expected"), GOOD_VALUES, ids=str)
def test_a_good_value_is_taken_as_it_is(
    edits: dict[str, str], expected: object, path: Path
) -> None:
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
    assert refused(lambda: params.check_run(*run)).startswith(f"dvc.yaml: {named}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (edited({"norm": "batchnorm"}), "norm = 'batchnorm': must be one of "),
        (None, "No such file or directory; "),
    ],
)
def test_a_stage_refuses_in_one_line_and_changes_nothing(
    content: str | None, said: str, workspace: Workspace
) -> None:
    path = workspace.path / "params.yaml"
    path.unlink()
    if content:
        path.write_text(content)
    workspace.environment["PYTHONDONTWRITEBYTECODE"] = "1"
    before = {p: p.is_dir() or p.read_bytes() for p in workspace.path.rglob("*")}
    done = workspace.run("python", "-m", "stages.split", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: params.yaml: {said}")
    assert {p: p.is_dir() or p.read_bytes() for p in workspace.path.rglob("*")} == before
