"""Normalization layers, each as its paper's equation, a module each.

All of them normalize `x` of shape `[N, C, H, W]` to `(x - mean) / sqrt(var + eps)`, then apply a
learned scale `weight` and shift `bias` per channel. They differ in *whose* mean and variance:

    bn   every channel, over the batch and the image      N, H, W
    in   every channel of every sample                    H, W
    bin  a learned mixture of BN and IN
    ln   every sample                                     C, H, W
    gn   every group of channels of every sample          C/G, H, W
    torch_bn is PyTorch's own batch normalization, nn is none.

A new norm is a module here, called as params.yaml shall call it, that sets `Norm` to its class,
and a line in `normlab.norms.names`. A module a norm, because DVC tracks code by file: a run
depends on its own norm's file alone, so that a new norm or a change in one retrains no other.
"""
