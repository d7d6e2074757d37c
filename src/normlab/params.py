"""params.yaml: its schema, and the one place where it is read and checked.

Every stage reads the whole file through `load`, so a wrong value anywhere stops every stage
before it touches anything.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from normlab.errors import NormlabError
from normlab.registry import NORMS

WIDTHS = (16, 32, 64)  #: channels of the three stages (He et al. 2016, section 4.2)
DATASETS = ("cifar10", "cifar10-jpeg", "digits")

Fraction = Annotated[float, Field(gt=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _dataset(value: str) -> str:
    if value in DATASETS or (value.startswith("folder:") and value != "folder:"):
        return value
    raise ValueError(f"must be one of {', '.join(DATASETS)}, folder:<path>")


def check_norm(value: str) -> str:
    """Return `value` if it names a norm; raise `ValueError` with the names that exist otherwise."""
    if value in NORMS:
        return value
    raise ValueError(f"must be one of {', '.join(NORMS)}")


def _val_size(value: int | float) -> int | float:
    if isinstance(value, bool) or not (0 < value < 1 or (value >= 1 and value == int(value))):
        raise ValueError("must be a fraction between 0 and 1, or a number of images from 1")
    return value


def check_groups(value: int) -> int:
    if value < 1 or any(width % value for width in WIDTHS):
        divisors = ", ".join(str(g) for g in range(1, WIDTHS[0] + 1) if WIDTHS[0] % g == 0)
        raise ValueError(f"must divide the channels {WIDTHS}: one of {divisors}")
    return value


def _quantiles(value: list[float]) -> list[float]:
    if not value or any(not 0 <= q <= 1 for q in value) or sorted(set(value)) != value:
        raise ValueError("must be increasing numbers between 0 and 1, at least one")
    return value


def _milestones(value: list[float]) -> list[float]:
    if any(not 0 < m < 1 for m in value) or sorted(set(value)) != value:
        raise ValueError("must be increasing fractions of the training, between 0 and 1")
    return value


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Split(_Section):
    val_size: Annotated[int | float, AfterValidator(_val_size)]


class Model(_Section):
    n: int = Field(ge=1, le=200)
    groups: Annotated[int, AfterValidator(check_groups)]


class Train(_Section):
    epochs: int = Field(ge=1, le=99_999)
    optimizer: Literal["sgd", "adamw", "adagrad"]
    lr: Positive
    momentum: float = Field(ge=0, lt=1)
    weight_decay: NonNegative
    label_smoothing: float = Field(ge=0, lt=1)
    schedule: Literal["cosine", "step", "constant"]
    warmup_epochs: NonNegative
    milestones: Annotated[list[float], AfterValidator(_milestones)]
    gamma: float = Field(gt=0, le=1)
    patience: int = Field(ge=1)
    crop_padding: int = Field(ge=0, le=16)
    flip: bool
    precision: Literal["float32", "bfloat16"]
    compile: Literal["auto", True, False]
    devices: int = Field(ge=1, le=4096)
    on_divergence: Literal["stop", "record"]

    @model_validator(mode="after")
    def _compiles_alone(self) -> "Train":
        if self.compile is True and self.devices > 1:
            raise ValueError("train.compile = True: must be auto or false with train.devices > 1")
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> "Train":
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"train.warmup_epochs = {self.warmup_epochs}: "
                f"must be less than train.epochs = {self.epochs}"
            )
        return self


class Features(_Section):
    quantiles: Annotated[list[float], AfterValidator(_quantiles)]


class Plots(_Section):
    dpi: int = Field(ge=30, le=1200)
    format: Literal["png", "svg", "pdf"]


class Params(_Section):
    """The whole of params.yaml. What each key means is said in the file itself."""

    dataset: Annotated[str, AfterValidator(_dataset)]
    seed: int = Field(ge=0, lt=2**31)
    norm: Annotated[str, AfterValidator(check_norm)]
    batch_size: int = Field(ge=1, le=65536)
    split: Split
    model: Model
    train: Train
    features: Features
    plots: Plots


class Run(_Section):
    """A run as dvc.yaml's map of runs gives it to the stage train."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    norm: Annotated[str, AfterValidator(check_norm)]
    batch_size: int = Field(ge=1, le=65536)
    groups: Annotated[int, AfterValidator(check_groups)]


def check_run(name: str, norm: str, batch_size: int, groups: int) -> None:
    """Raise `NormlabError`, naming the first wrong value, for a run that cannot be trained."""
    try:
        Run(name=name, norm=norm, batch_size=batch_size, groups=groups)
    except ValidationError as error:
        raise NormlabError(f"dvc.yaml: run {name}: {describe(error)}") from None


def load(path: Path | str = "params.yaml") -> Params:
    """Read and check params.yaml.

    Raises `NormlabError` with one line that names the first wrong key, its value, and what is
    allowed there.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NormlabError(f"{path}: no such file; run from the repository's root") from None
    except yaml.YAMLError as error:
        raise NormlabError(f"{path}: is not YAML: {error}") from None
    except UnicodeDecodeError as error:
        raise NormlabError(f"{path}: is not UTF-8 text: {error}") from None
    return parse(content, str(path))


def parse(content: Any, source: str = "params.yaml") -> Params:
    """Check `content`, what params.yaml holds; see `load`."""
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise NormlabError(f"{source}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """One line for the first thing wrong: key, value, what is allowed."""
    # A union (compile, val_size) reports an error a member, and extends the key with its name.
    first = error.errors(include_url=False)[0]
    location = [part for part in first["loc"] if not _is_union_member(part)]
    key = ".".join(str(part) for part in location)
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if first["type"] == "missing":
        return f"{key}: is missing"
    if first["type"] == "extra_forbidden":
        return f"{key} = {_shorten(first['input'])}: is not a parameter"
    if first["type"] == "value_error" and message.startswith(f"{key}."):
        return message  # a rule over several keys names them itself
    return f"{key} = {_shorten(first['input'])}: {message}" if key else f"the file {message}"


def _is_union_member(part: int | str) -> bool:
    return isinstance(part, str) and (part in ("int", "float") or "[" in part)


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
