"""The whole pipeline on small images, as a DVC experiment beside the user's own work."""

import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import yaml

from normlab.base.errors import NormlabError
from normlab.base.layout import scratch_root
from normlab.cli import study

EXPERIMENT = "demo"
FOLDER = Path("demo-results")  #: where the experiment's results are put for looking at
OVERRIDES: dict[str, Any] = {
    "dataset": "digits",
    "train.epochs": 8,
    "train.warmup_epochs": 1,
    "train.flip": False,  # a mirrored digit is another or none
}


def run(jobs: int) -> None:
    """Run the pipeline with OVERRIDES, `jobs` runs at a time; the workspace stays as it is.

    An experiment of DVC's runs its stages one after the other. So a copy of the workspace, which
    shares DVC's cache, runs them side by side first; the experiment then finds all in the cache.
    """
    copy = scratch_root() / "demo"
    copy_workspace(copy)
    override(copy / "params.yaml", OVERRIDES)
    study.run(jobs, copy)
    shutil.rmtree(copy)

    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "exp", "remove", EXPERIMENT], capture_output=True)
    settings = [f"--set-param={key}={_text(value)}" for key, value in OVERRIDES.items()]
    _succeed([*dvc, "exp", "run", "--temp", f"--name={EXPERIMENT}", *settings])
    archive = _succeed(["git", "archive", _revision(), "results"])
    shutil.rmtree(FOLDER, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(FOLDER, filter="data")
    print(f"\nThe summary, also in {FOLDER}/results/summary.md:\n")
    print((FOLDER / "results/summary.md").read_text())
    print(f"Pictures: {FOLDER}/results/figures/")
    print(f"As a DVC experiment: dvc exp show, dvc metrics diff HEAD {EXPERIMENT}")


def copy_workspace(target: Path) -> None:
    """Copy the workspace, as it is now; the copy uses its DVC cache."""
    shutil.rmtree(target, ignore_errors=True)
    copy_files(Path(), target)
    cache = _succeed([sys.executable, "-m", "dvc", "cache", "dir"]).decode().strip()
    (target / ".dvc/config.local").write_text(f"[cache]\n    dir = {cache}\n")


def copy_files(source: Path, target: Path) -> None:
    """Copy what Git tracks in `source`, or would, into a new Git repository `target`."""
    listed = _succeed(["git", "-C", str(source), "ls-files", "-co", "--exclude-standard", "-z"])
    for name in filter(None, listed.decode().split("\0")):
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, target / name)
    _succeed(["git", "init", "--quiet", "--initial-branch=main", str(target)])


def override(path: Path, values: dict[str, Any]) -> None:
    """Set dotted keys in a YAML file."""
    content = yaml.safe_load(path.read_text())
    for key, value in values.items():
        *sections, last = key.split(".")
        place = content
        for section in sections:
            place = place[section]
        place[last] = value
    path.write_text(yaml.safe_dump(content))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _revision() -> str:
    listed = _succeed([sys.executable, "-m", "dvc", "exp", "list", "--sha-only", "--all"])
    for sha in listed.decode().split():
        names = _succeed(["git", "for-each-ref", "--points-at", sha, "refs/exps"]).decode()
        if names.strip().endswith(f"/{EXPERIMENT}"):
            return sha
    raise NormlabError("the experiment is not among those of `dvc exp list --all`")


def _succeed(command: list[str]) -> bytes:
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        output = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()
        own = [line for line in output if line.startswith(("error: ", "ERROR: "))]
        raise NormlabError(f"{' '.join(command[:5])}: {(own or output or ['failed'])[-1]}")
    return done.stdout
