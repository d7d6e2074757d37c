"""A model over many images, in batches, with no gradients."""

from collections.abc import Callable

import torch
from torch import Tensor

from normlab.compute.runtime import Runtime

BATCH_SIZE = 500  #: images at a time; its activations stay below 200 MB


class Inference:
    """`function` of many images, in batches.

    Args:
        function: of normalized images `[N, 3, 32, 32]`, giving `[N, ...]`.
        mean: per channel `[3]`, of pixels scaled to [0, 1].
        std: likewise, the standard deviation.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], mean: Tensor, std: Tensor, runtime: Runtime
    ) -> None:
        self._function, self._runtime = function, runtime
        self._mean, self._std = mean, std
        self._whole_batch: Callable[[Tensor], Tensor] | None = None

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Outputs, float32 `[N, ...]` on the device, of uint8 `pixels` `[N, 32, 32, 3]`."""
        outputs = []
        for start in range(0, max(len(pixels), 1), BATCH_SIZE):  # of no images: an empty batch
            batch = pixels[start : start + BATCH_SIZE].to(self._mean.device)
            # A copy: the next batch's output overwrites this one's memory.
            outputs.append(self._batch(batch).to(torch.float32, copy=True))
        return torch.cat(outputs)

    def _batch(self, pixels: Tensor) -> Tensor:
        # A last, smaller batch is computed without compiling: a second compilation for one batch
        # would not pay.
        if len(pixels) < BATCH_SIZE:
            return self._forward(self._function, pixels)
        if self._whole_batch is None:
            self._whole_batch = self._prepare(pixels)
        return self._whole_batch(pixels)

    def _forward(self, function: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
        pixels = pixels.permute(0, 3, 1, 2).contiguous(memory_format=self._runtime.memory_format)
        with self._runtime.autocast():
            return function(normalize(pixels, self._mean, self._std))

    def _prepare(self, example: Tensor) -> Callable[[Tensor], Tensor]:
        """The forward pass of batches as `example`, on a GPU one launch."""
        function = self._runtime.compile(self._function)
        if not self._runtime.is_cuda:
            return lambda pixels: self._forward(function, pixels)
        inputs = example.clone()
        outputs: list[Tensor] = []

        def step() -> None:
            outputs[:] = [self._forward(function, inputs)]

        replay = self._runtime.capture(step, lambda: ())

        def forward(pixels: Tensor) -> Tensor:
            inputs.copy_(pixels)
            replay()
            return outputs[0]

        return forward


def normalize(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 pixels `[N, 3, H, W]` as floats with mean 0, standard deviation 1 per channel `[3]`.

    `mean` and `std` are of pixels scaled to [0, 1].
    """
    scale = 1 / (255 * std)
    return pixels * scale[:, None, None] - (mean / std)[:, None, None]
