"""The stages of dvc.yaml. Each reads params, calls `normlab`, writes outputs.

They run this repository's code, not an installed package: a DVC experiment works in a copy of the
repository, and must not import the original's.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
# A notebook's terminal names a backend that may not be installed here: matplotlib would not start.
os.environ["MPLBACKEND"] = "agg"

if find_spec("torch") is None or find_spec("typer") is None:
    # DVC runs the `python` of PATH, which is another where .venv is not activated. A copy that DVC
    # makes for an experiment is below the repository, whose .venv it uses.
    places = [place / ".venv" for place in (ROOT, *ROOT.parents)]
    found = [place for place in places if (place / "bin/python").exists()]
    if found and found[0].resolve() != Path(sys.prefix).resolve() and sys.version_info >= (3, 10):
        python = str(found[0] / "bin/python")
        os.execv(python, [python, *sys.orig_argv[1:]])
    sys.exit(
        f"error: {sys.executable} lacks packages that normlab needs; "
        "`make install && source .venv/bin/activate`, then the same command"
    )
