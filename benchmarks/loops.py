"""What is measured: our training, loops as they are usually written, the convolutions alone."""

from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.references import TORCH_LAYERS, PlainNorm
from benchmarks.turns import Loop
from normlab.compute.runtime import Runtime, make_runtime
from normlab.config import params
from normlab.data.images import Images
from normlab.nets.checkpoint import Spec
from normlab.nets.resnet import ResNet
from normlab.training.augmentation import draw
from normlab.training.loop import Job, Trainer

IMAGES = 2048  #: random images to train on; their content does not matter
MEAN, STD = (0.5,) * 3, (0.25,) * 3


def random_images(count: int) -> Images:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, 32, 32, 3), np.uint8)
    return Images(pixels, generator.integers(0, 10, count), tuple("0123456789"))


def make_trainer(
    norm: str,
    batch_size: int,
    runtime: Runtime,
    images: Images,
    val: Images | None = None,
    **changes: object,
) -> Trainer:
    """A trainer of `norm`; `torch:gn` is PyTorch's layer in its place.

    `changes` are of params.yaml's `train`.
    """
    torch_layer, _, name = norm.rpartition(":")
    config = params.load()
    groups = config.norms.groups("gn")
    spec = Spec("benchmark", name, batch_size, 2, groups, images.classes, MEAN, STD)
    train = config.train.model_copy(update={"lr": 0.01, **changes})
    torch.manual_seed(1)
    model = spec.build()
    if torch_layer:
        replace_norms(model, lambda channels: TORCH_LAYERS[name](channels, groups))
    trainer = Trainer(Job(spec, train, 1), images, val or images[np.arange(8)], runtime, model)
    trainer.model.train()
    return trainer


def replace_norms(model: nn.Module, make: Callable[[int], nn.Module]) -> None:
    for name, child in model.named_children():
        if hasattr(child, "num_channels"):
            setattr(model, name, make(int(child.num_channels)))  # type: ignore[arg-type]
        else:
            replace_norms(child, make)


def training(norm: str, batch_size: int, precision: str = "float32", compiled: bool = True) -> Loop:
    """What a training of `norm` does, on random images, but for its smaller last batch."""
    runtime = make_runtime(precision, compiled, 0)
    images = random_images(max(1, IMAGES // batch_size) * batch_size)
    steps = make_trainer(norm, batch_size, runtime, images).steps
    generator = torch.Generator().manual_seed(0)
    while True:
        steps.start_epoch(draw(steps.count, 4, True, generator), [0.01] * steps.per_epoch)
        for _ in range(steps.per_epoch):
            steps.next()
            yield


def eager(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Loop:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    for pixels, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(pixels), labels).backward()
        optimizer.step()
        yield


def naive_loop(batch_size: int) -> Loop:
    """What a plain script does once its batches are on the GPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.randn(batch_size, 3, 32, 32, device=device)
    labels = torch.randint(10, (batch_size,), device=device)
    return eager(ResNet(2, 10, "torch_bn").to(device), repeat((images, labels)))


def plain_loop(norm: str, batch_size: int) -> Loop:
    """What a plain script does: DataLoader, torchvision's transforms per image, eager float32."""
    from PIL import Image
    from torchvision import transforms

    images = random_images(IMAGES)
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )

    def collate(indices: list[int]) -> tuple[Tensor, Tensor]:
        pixels = [transform(Image.fromarray(images.pixels[index])) for index in indices]
        return torch.stack(pixels), torch.from_numpy(images.labels[indices])

    model = ResNet(2, 10, "bn")
    groups = params.load().norms.groups("gn")
    replace_norms(model, lambda channels: PlainNorm(norm, channels, groups))
    if norm == "nn":
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.bias = nn.Parameter(torch.zeros(module.out_channels))
    indices: Any = range(IMAGES)
    loader = torch.utils.data.DataLoader(
        indices, batch_size, shuffle=True, drop_last=True, collate_fn=collate
    )
    return eager(model, (batch for _ in repeat(None) for batch in loader))


def convolutions_alone(batch_size: int, precision: str) -> Loop:
    """The model's convolutions, forward and backward, each on an input of its shape."""
    runtime = make_runtime(precision, False, 0)
    model = runtime.place(ResNet(2, 10, "nn"))
    dtype = torch.bfloat16 if runtime.bfloat16 else torch.float32
    calls = []

    def record(module: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        x, y, weight = (
            tensor.detach().to(dtype).contiguous(memory_format=runtime.memory_format)
            for tensor in (torch.randn_like(inputs[0]), torch.randn_like(output), module.weight)
        )
        needs_gradient = module.in_channels > 3  # the images need none
        calls.append((x, y, weight, module.stride, needs_gradient))

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(record)
    model(torch.randn(batch_size, 3, 32, 32, device=runtime.device))

    def once() -> None:
        for x, y, weight, stride, needs_gradient in calls:
            F.conv2d(x, weight, None, stride, 1)
            torch.ops.aten.convolution_backward(
                y, x, weight, None, stride, (1, 1), (1, 1), False, (0, 0), 1,
                (needs_gradient, True, False),
            )  # fmt: skip

    # Launched one by one, small ones would only wait for the CPU.
    launch = runtime.capture(once, tuple)
    while True:
        launch()
        yield
