"""A model as one self-describing safetensors file, read with no pickle."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from normlab.nets.resnet import ResNet
from normlab.utils import files
from normlab.utils.errors import NormlabError


@dataclass(frozen=True)
class Spec:
    """All that is needed to build a run's model and to feed it."""

    run: str
    norm: str
    batch_size: int
    n: int
    groups: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def build(self) -> ResNet:
        return ResNet(self.n, len(self.classes), self.norm, self.groups)


def save(path: Path | str, state: dict[str, torch.Tensor], spec: Spec, epoch: int) -> None:
    """Write the weights and buffers `state` of a model of `spec` after `epoch`."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    # One metadata key: safetensors does not keep the order of several, and bytes must repeat.
    metadata = {"normlab": json.dumps({**asdict(spec), "epoch": epoch})}
    files.write_bytes(path, safetensors.torch.save(tensors, metadata))


def load(path: Path | str) -> tuple[ResNet, Spec, int]:
    """The model in `path`, in evaluation mode, its spec and the epoch it was saved after.

    Raises `NormlabError` for a file that is missing, damaged, or no model of this project.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            content = json.loads((file.metadata() or {})["normlab"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        epoch = content.pop("epoch")
        lists = {key: tuple(content[key]) for key in ("classes", "mean", "std")}
        spec = Spec(**{**content, **lists})
        model = spec.build()
        model.load_state_dict(state)
    except FileNotFoundError:
        raise NormlabError(f"{path}: no such file; `dvc pull` or `dvc repro` gets it") from None
    except (safetensors.SafetensorError, ImportError, AttributeError, KeyError, ValueError,
            TypeError, RuntimeError, OSError) as error:  # fmt: skip
        raise NormlabError(f"{path}: is not a model of this project: {error}") from None
    return model.eval(), spec, epoch
