"""The stages of dvc.yaml. Each reads params, calls `normlab`, writes outputs.

They run the code beside them, not an installed package: a DVC experiment works in a copy of the
repository, and must not import the original's.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
