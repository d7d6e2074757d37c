"""The loss of a training step together with its gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor


# A custom operator is opaque to torch.compile, which would compute exp in its own way: the bytes of
# a training would depend on compilation.
@torch.library.custom_op("normlab::cross_entropy", mutates_args=())
def cross_entropy(
    logits: Tensor, labels: Tensor, smoothing: float, scale: float
) -> tuple[Tensor, Tensor]:
    """Sum of the cross entropies of `logits` `[N, C]`, and `scale` times its gradient `[N, C]`.

    Of one image the loss is -sum_c q_c log p_c and its gradient p - q, where p = softmax(logits)
    and q is the label, smoothed: 1 - smoothing for its class, and smoothing / C for every class
    (Szegedy et al. 2016, section 7).
    """
    loss = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
    classes = torch.arange(logits.shape[1], device=logits.device)
    right = (labels[:, None] == classes).to(logits.dtype)
    q = (1 - smoothing) * right + smoothing / len(classes)
    # The kernel autograd would use: p sum(q) - q, p = exp(log_p)
    log_p = F.log_softmax(logits, 1)
    gradient = torch.ops.aten._log_softmax_backward_data(-scale * q, log_p, 1, logits.dtype)
    return loss, gradient


@cross_entropy.register_fake
def _(logits: Tensor, labels: Tensor, smoothing: float, scale: float) -> tuple[Tensor, Tensor]:
    return logits.new_empty(()), torch.empty_like(logits)
