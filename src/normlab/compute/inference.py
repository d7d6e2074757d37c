"""A model over many images, in batches, with no gradients."""

from collections.abc import Callable

import torch
from torch import Tensor

from normlab.compute.runtime import Runtime

BATCH_SIZE = 500  #: images at a time; its activations stay below 200 MB


@torch.no_grad()
def over_images(
    function: Callable[[Tensor], Tensor],
    pixels: Tensor,
    mean: Tensor,
    std: Tensor,
    runtime: Runtime,
) -> Tensor:
    """`function` of normalized batches of uint8 `pixels` `[N, 32, 32, 3]`: float32 `[N, ...]`."""
    outputs = []
    for start in range(0, len(pixels), BATCH_SIZE):
        batch = pixels[start : start + BATCH_SIZE].to(mean.device).permute(0, 3, 1, 2)
        with runtime.autocast():
            output = function(normalize(batch, mean, std))
        # A copy: of CUDA graphs the next batch's output overwrites this one's memory.
        outputs.append(output.to(torch.float32, copy=True))
    return torch.cat(outputs)


def normalize(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 pixels `[N, 3, H, W]` as floats with mean 0, standard deviation 1 per channel `[3]`.

    `mean` and `std` are of pixels scaled to [0, 1].
    """
    scale = 1 / (255 * std)
    return pixels * scale[:, None, None] - (mean / std)[:, None, None]
