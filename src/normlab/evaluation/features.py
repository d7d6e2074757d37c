"""How the penultimate features spread on the validation images, epoch by epoch."""

from pathlib import Path

import numpy as np
import torch

from normlab.base import files
from normlab.base.architecture import flops_per_image
from normlab.base.errors import NormlabError
from normlab.base.layout import run_files
from normlab.compute import runtime
from normlab.compute.inference import BATCH_SIZE, over_images
from normlab.data.images import Images
from normlab.nets import checkpoint


def name(quantile: float) -> str:
    """The column of a quantile: 0.01 is `q1`, 0.999 is `q99.9`, in percent."""
    return f"q{round(quantile * 100, 6):g}"


def quantiles(history: Path, val: Images, wanted: list[float]) -> list[dict[str, int | float]]:
    """The `wanted` quantiles of all 64 features of all images `val`, after every epoch.

    `history` is the folder of weights that a training leaves. Returns a row an epoch: `epoch`
    and a column for each quantile (`name`). An infinite or undefined feature, as of a run that
    diverged, makes the quantiles of its epoch undefined (nan).
    """
    paths = sorted(history.glob("epoch-*.safetensors"))
    if not paths:
        raise NormlabError(f"{history}: holds no weights; `dvc repro` makes them")
    model, spec, _ = checkpoint.load(paths[0])
    work = flops_per_image(spec.n) * len(val) * len(paths)
    device = runtime.make("float32", "auto", work)
    model = runtime.channels_last(model, device)  # type: ignore[assignment]
    compute = device.compile(model.features, BATCH_SIZE)
    pixels = torch.from_numpy(val.pixels).to(device.device)
    mean, std = (torch.tensor(values, device=device.device) for values in (spec.mean, spec.std))

    rows = []
    for path in paths:
        weights, _, epoch = checkpoint.load(path)
        model.load_state_dict(weights.state_dict())
        values = over_images(compute, pixels, mean, std, device).double().cpu().numpy()
        if np.isfinite(values).all():
            found = np.quantile(values, wanted).tolist()
        else:
            found = [float("nan")] * len(wanted)
        rows.append({"epoch": epoch, **dict(zip(map(name, wanted), found, strict=True))})
    return rows


def write(run: str, rows: list[dict[str, int | float]]) -> None:
    files.write_csv(run_files(run).quantiles, rows, tuple(rows[0]))
