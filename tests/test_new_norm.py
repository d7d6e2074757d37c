"""Adding a norm takes a module with a class, a line in names.py and one in params.yaml."""

import pytest
from conftest import Workspace

MODULE = '''"""Scale alone."""

from torch import Tensor

from normlab.norms.base import Norm2d, affine


class Scale2d(Norm2d):
    """Multiplies by `weight`, adds `bias`."""

    def forward(self, x: Tensor) -> Tensor:
        return affine(self.check(x), self.weight[None], self.bias[None])


Norm = Scale2d
'''


@pytest.mark.slow
def test_a_new_norm_takes_a_module_its_name_and_its_options(workspace: Workspace) -> None:
    (workspace.path / "src/normlab/norms/scale.py").write_text(MODULE)
    registry = workspace.path / "src/normlab/norms/names.py"
    line = '    "nn": "None (NN)",\n'
    text = registry.read_text()
    assert line in text
    registry.write_text(text.replace(line, line + '    "scale": "Scale",\n'))
    workspace.keep_runs("main")
    workspace.set(
        norm="scale", norms__scale={}, train__epochs=1, train__warmup_epochs=0, train__lr=0.01
    )
    workspace.run("dvc", "repro")
    assert "| main | Scale | 128 |" in (workspace.path / "results/summary.md").read_text()
