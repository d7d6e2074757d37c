"""The normalization layers a run can name: one line each.

The key is the module in `normlab.norms` and the value of `norm` in params.yaml; the text is what
figures and tables call it. Nothing heavy is imported, so that parameters and figures know the
names without torch.
"""

NORMS: dict[str, str] = {
    "torch_bn": "PyTorch BN",
    "bn": "Batch (BN)",
    "in": "Instance (IN)",
    "bin": "Batch-Instance (BIN)",
    "ln": "Layer (LN)",
    "gn": "Group (GN)",
    "nn": "None (NN)",
}
