"""Each norm from scratch against PyTorch's own layer, in float64, forward and backward."""

import re

import pytest
import torch
from conftest import ROOT
from torch import Tensor, nn

from benchmarks.references import TORCH_LAYERS
from normlab.norms.base import make_norm
from normlab.norms.gn import GroupNorm2d
from normlab.norms.names import NORMS

SHAPES = [(1, 8, 5, 7), (2, 8, 4, 4), (8, 16, 3, 5), (128, 8, 2, 2)]
LEARNED = tuple(name for name in NORMS if name not in ("torch_bn", "nn"))


def pair(name: str, channels: int) -> tuple[nn.Module, nn.Module]:
    """Our norm and PyTorch's, in float64, with the same random scale and shift."""
    torch.manual_seed(channels)
    ours, theirs = make_norm(name, channels, 4).double(), TORCH_LAYERS[name](channels, 4).double()
    with torch.no_grad():
        theirs.weight.normal_()
        theirs.bias.normal_()
        ours.weight.copy_(theirs.weight)
        ours.bias.copy_(theirs.bias)
    if name == "gn":  # its averaging matrix is no state; PyTorch's layer has no such buffer
        ours.average = ours._buffers.pop("average")
    return ours, theirs


def random_input(shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (3 * x + 2).requires_grad_()


def outcome(norm: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, gradients of the input and of all parameters, and buffers after."""
    x = x.detach().clone().requires_grad_()
    norm.zero_grad()
    y = norm(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    assert x.grad is not None
    gradients = [p.grad for p in norm.parameters() if p.grad is not None]
    return [y.detach(), x.grad, *gradients, *(b.double() for b in norm.buffers())]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["bn", "in", "ln", "gn"])
@pytest.mark.parametrize("training", [True, False])
def test_a_norm_equals_pytorchs(name: str, shape: tuple[int, ...], training: bool) -> None:
    ours, theirs = pair(name, shape[1])
    for norm in (ours, theirs):
        norm(random_input((8, shape[1], 4, 4)))
        norm.train(training)
    x = random_input(shape)
    for _ in range(3):  # running statistics accumulate
        torch.testing.assert_close(outcome(ours, x), outcome(theirs, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("training", [True, False])
def test_bin_with_gate_one_is_bn_and_with_gate_zero_is_in(training: bool) -> None:
    x = random_input((4, 8, 5, 3))
    for gate, name in ((1.0, "bn"), (0.0, "in")):
        bin_, reference = make_norm("bin", 8, 1).double(), make_norm(name, 8, 1).double()
        torch.nn.init.constant_(bin_.gate, gate)
        for norm in (bin_, reference):
            norm(x)
            norm.train(training)
        torch.testing.assert_close(bin_(x), reference(x))


def test_bin_between_follows_the_equation() -> None:
    x, bin_ = random_input((4, 8, 5, 3)), make_norm("bin", 8, 1).double()
    with torch.no_grad():
        for parameter in bin_.parameters():
            parameter.uniform_(0.1, 0.9)

    def standardized(dims: tuple[int, ...]) -> Tensor:
        mean, var = x.mean(dims, keepdim=True), x.var(dims, correction=0, keepdim=True)
        return (x - mean) / (var + bin_.eps).sqrt()

    gate, weight, bias = (p[:, None, None] for p in (bin_.gate, bin_.weight, bin_.bias))
    expected = (gate * standardized((0, 2, 3)) + (1 - gate) * standardized((2, 3))) * weight + bias
    torch.testing.assert_close(bin_(x), expected)


def test_bin_clamps_its_gate() -> None:
    norm = make_norm("bin", 3, 1)
    assert torch.equal(norm.gate, torch.ones(3))
    with torch.no_grad():
        norm.gate.copy_(torch.tensor([-0.5, 0.4, 1.7]))
    norm.project()
    assert torch.equal(norm.gate, torch.tensor([0.0, 0.4, 1.0]))


def test_gradient_of_bin_is_that_of_the_forward() -> None:
    norm = make_norm("bin", 4, 1).double()
    torch.nn.init.constant_(norm.gate, 0.6)
    parameters = dict(norm.named_parameters())

    def function(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(norm, dict(zip(parameters, values, strict=True)), x)

    x = random_input((3, 4, 2, 3))
    assert torch.autograd.gradcheck(function, (x, *parameters.values()))


@pytest.mark.parametrize("name", LEARNED)
def test_state_dict_round_trip(name: str) -> None:
    first, second = make_norm(name, 8, 4), make_norm(name, 8, 4)
    for parameter in first.parameters():
        torch.nn.init.uniform_(parameter, 0, 1)
    first(torch.randn(4, 8, 3, 3))
    second.load_state_dict(first.state_dict())
    x = torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(first.eval()(x), second.eval()(x), rtol=0, atol=0)


def test_bn_exchanges_state_with_pytorch() -> None:
    ours, theirs = pair("bn", 8)
    ours(random_input((4, 8, 3, 3)))
    theirs.load_state_dict(ours.state_dict())
    x = random_input((2, 8, 3, 3))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("name", ["bn", "bin", "torch_bn"])
def test_a_single_value_per_channel_is_refused_in_training(name: str) -> None:
    norm = make_norm(name, 4, 1)
    with pytest.raises(ValueError, match=r"[Ee]xpected more than 1 value per channel"):
        norm(torch.randn(1, 4, 1, 1))
    assert norm.eval()(torch.randn(1, 4, 1, 1)).shape == (1, 4, 1, 1)


def test_groups_must_divide_channels() -> None:
    with pytest.raises(ValueError, match="3 groups do not divide 16 channels"):
        make_norm("gn", 16, 3)


@pytest.mark.parametrize("name", LEARNED)
def test_bfloat16_input_has_float32_statistics(name: str) -> None:
    """A mean of 301 is rounded to 300 or 302 in bfloat16's 8 bits, unless kept in float32."""
    norm = make_norm(name, 4, 2)
    x = (301 + torch.randn(8, 4, 16, 16)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), norm(x.float()), rtol=0.02, atol=0.02)


def test_every_registered_norm_has_its_module_and_no_other_module_exists() -> None:
    source = ROOT / "src/normlab/norms"
    modules = {path.stem for path in source.glob("*.py")} - {"__init__", "base", "names"}
    assert modules == set(NORMS)


@pytest.mark.parametrize("name", [name for name in NORMS if name != "torch_bn"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 15, 4, 4), (16, 4, 4)])
def test_another_shape_is_refused_in_every_mode(
    name: str, training: bool, shape: tuple[int, ...]
) -> None:
    line = f"expected [N, 16, H, W], got {[*shape]}"
    with pytest.raises(ValueError, match=re.escape(line)):
        make_norm(name, 16, 4).train(training)(torch.zeros(shape))


def test_both_ways_to_pool_groups_agree() -> None:
    norm = make_norm("gn", 16, 4).double()
    assert isinstance(norm, GroupNorm2d)
    var, mean = torch.rand(3, 16).double(), torch.randn(3, 16).double()
    torch.testing.assert_close(norm.pool_by_product(var, mean), norm.pool_by_view(var, mean))
