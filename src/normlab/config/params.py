"""params.yaml: its schema, and the one place where it is read and checked.

Every stage reads the whole file through `load`, so a wrong value anywhere stops every stage
before it touches anything.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)

from normlab.nets.architecture import WIDTHS
from normlab.norms.names import NORMS
from normlab.utils import files
from normlab.utils.errors import NormlabError

DATASETS = ("cifar10", "digits")


def _must(rule: str, holds: Callable[[Any], bool]) -> Callable[[Any], Any]:
    """A check that says what a value must be."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError(f"must be {rule}")
        return value

    return check


def _is_dataset(value: Any) -> bool:
    # An experiment may run in another folder, where a relative path would lead elsewhere.
    return isinstance(value, str) and (
        value in DATASETS or value.startswith(("folder:/", "folder:~"))
    )


def _is_size(value: Any) -> bool:
    number = type(value) in (int, float)  # which a bool is not
    return number and (0 < value < 1 or (value >= 1 and value % 1 == 0))


BatchSize = Annotated[int, Field(ge=1, le=65536)]
Fraction = Annotated[float, Field(ge=0, le=1)]
InnerFraction = Annotated[float, Field(gt=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Increasing = AfterValidator(_must("increasing numbers", lambda v: sorted(set(v)) == v))
Distinct = AfterValidator(_must("different numbers", lambda v: len(set(v)) == len(v)))
Groups = AfterValidator(
    _must(f"a common divisor of {WIDTHS}", lambda v: v > 0 and not any(w % v for w in WIDTHS))
)
# These come before pydantic's own, so that type errors also list the allowed values.
Norm = Annotated[str, BeforeValidator(_must(f"one of {', '.join(NORMS)}", [*NORMS].__contains__))]
Dataset = BeforeValidator(
    _must(f"one of {', '.join(DATASETS)}, folder:<absolute path>", _is_dataset)
)
Size = BeforeValidator(_must("a fraction between 0 and 1, or a number of images from 1", _is_size))
Compile = BeforeValidator(  # 1 == True, and is not meant
    _must("auto, true or false", lambda v: v == "auto" or isinstance(v, bool))
)


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Comparison(_Section):
    batch_size: BatchSize
    small_batch_size: BatchSize


class Split(_Section):
    val_size: Annotated[int | float, Size]


class Model(_Section):
    n: int = Field(ge=1, le=200)


class GroupOptions(_Section):
    groups: Annotated[int, Groups]


#: options of norms that have any
OPTIONS: dict[str, type[_Section]] = {"gn": GroupOptions}
sections: dict[str, Any] = {norm: (OPTIONS.get(norm, _Section), ...) for norm in NORMS}


class Norms(create_model("Sections", __base__=_Section, **sections)):  # type: ignore[misc]
    """Options of each norm."""

    def groups(self, norm: str) -> int:
        """Groups of channels of `norm`; 1 for norms without groups."""
        return getattr(getattr(self, norm), "groups", 1)


class Train(_Section):
    epochs: int = Field(ge=1, le=99_999)
    optimizer: Literal["sgd", "adamw", "adagrad"]
    lr: Positive
    lr_batch_size: BatchSize
    momentum: float = Field(ge=0, lt=1)
    weight_decay: NonNegative
    label_smoothing: float = Field(ge=0, lt=1)
    schedule: Literal["cosine", "step", "constant"]
    warmup_epochs: NonNegative
    milestones: Annotated[list[InnerFraction], Increasing]
    gamma: float = Field(gt=0, le=1)
    patience: int = Field(ge=1)
    crop_padding: int = Field(ge=0, le=16)
    flip: bool
    precision: Literal["float32", "tf32", "bfloat16"]


class Compute(_Section):
    compile: Annotated[Literal["auto", True, False], Compile]
    devices: int = Field(ge=1, le=4096)
    on_divergence: Literal["stop", "record"]


class Repeat(_Section):
    seeds: Annotated[list[Seed], Distinct]
    batch_sizes: Annotated[list[BatchSize], Distinct]


class Features(_Section):
    quantiles: Annotated[list[Fraction], Field(min_length=1), Increasing]


class Plots(_Section):
    dpi: int = Field(ge=30, le=1200)


class Params(_Section):
    """The whole of params.yaml. What each key means is said in the file itself."""

    dataset: Annotated[str, Dataset]
    seed: Seed
    norm: Norm
    batch_size: BatchSize
    comparison: Comparison
    split: Split
    model: Model
    norms: Norms
    train: Train
    compute: Compute
    repeat: Repeat
    features: Features
    plots: Plots

    @model_validator(mode="after")
    def _agree(self) -> "Params":
        for less, more in (
            ("comparison.small_batch_size", "comparison.batch_size"),
            ("train.warmup_epochs", "train.epochs"),
        ):
            small, large = attrgetter(less, more)(self)
            if small >= large:
                raise ValueError(f"{less} = {small:g}: must be less than {more} = {large}")
        if self.seed in self.repeat.seeds:
            raise ValueError(
                f"repeat.seeds = {self.repeat.seeds}: must not contain seed = {self.seed}"
            )
        if self.compute.compile is True and self.compute.devices > 1:
            raise ValueError(
                "compute.compile = True: must be auto or false with compute.devices > 1"
            )
        return self


class Run(_Section):
    """A run as dvc.yaml's map of runs gives it to the stage train."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    norm: Norm
    batch_size: BatchSize


def check_run(name: str, norm: str, batch_size: int) -> None:
    """Raise `NormlabError`, naming the first wrong value, for a run that cannot be trained."""
    try:
        Run(name=name, norm=norm, batch_size=batch_size)
    except ValidationError as error:
        raise NormlabError(f"dvc.yaml: run {name}: {_first_wrong(error, Run)}") from None


def load(path: Path | str = "params.yaml") -> Params:
    """Read and check params.yaml.

    Raises `NormlabError` with one line that names the first wrong key, its value, and what is
    allowed there.
    """
    try:
        return Params.model_validate(files.read_yaml(path))
    except ValidationError as error:
        raise NormlabError(f"{path}: {_first_wrong(error, Params)}") from None


def _first_wrong(error: ValidationError, model: type[_Section]) -> str:
    """One line for the first thing wrong in a `model`: key, value, what is allowed."""
    first = error.errors(include_url=False)[0]
    location, kind = first["loc"], first["type"]
    key = ".".join(str(part) for part in location)
    value = repr(first["input"])
    if len(value) > 60:
        value = f"{value[:57]}..."
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if kind == "missing":
        return f"{key}: is missing; every key is required"
    if kind in ("extra_forbidden", "invalid_key"):
        named = f"{key} = {value}" if kind == "extra_forbidden" else key  # which is the input
        return f"{named}: is not a key; allowed keys are {_keys(model, location[:-1])}"
    if kind == "model_type":
        return f"{key or 'the file'} = {value}: must have the keys {_keys(model, location)}"
    if kind == "value_error" and not location:
        return message  # a rule over several keys names them itself
    if kind == "float_type":
        message = "must be a number"
    if kind == "bool_type":  # no, off and the like are strings
        message = "must be true or false"
    return f"{key} = {value}: {message.replace('should', 'must', 1)}"


def _keys(model: Any, location: Sequence[int | str]) -> str:
    """The keys of the section of `model` at `location`."""
    for name in location:
        model = model.model_fields[name].annotation
    return ", ".join(model.model_fields) or "none"
