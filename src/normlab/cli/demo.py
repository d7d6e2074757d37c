"""The whole pipeline on small images, in a copy apart from the user's work; it needs no Git."""

import shutil
from pathlib import Path

from normlab.cli import study
from normlab.config.paths import RESULTS, SCRATCH, scratch_root
from normlab.utils import files
from normlab.utils.errors import NormlabError

FOLDER = Path("demo-results")  #: where the results are put for looking at
#: what a pipeline needs of the repository
COPIED = (".dvc/config", ".dvc/page.html", ".dvc/plots", ".dvcignore", "data/repeats",
          "dvc.yaml", "params.yaml", "src", "stages")  # fmt: skip
#: as `dvc exp run -S` takes them
OVERRIDES = [
    "dataset=digits",
    "batch_size=8",
    "comparison.batch_size=8",
    "comparison.small_batch_size=4",
    "split.val_size=0.2",
    "model.n=1",
    "repeat.seeds=[]",
    "repeat.batch_sizes=[]",
    "train.epochs=8",
    "train.warmup_epochs=3",
    "train.optimizer=adamw",  # learns in fewer steps than sgd
    "train.lr_batch_size=128",
    "train.lr=0.03",  # with 0.05 or more, the run without norm fails for some seeds
    "train.crop_padding=0",  # an 8x8 digit, enlarged: moved, it would need more epochs
    "train.flip=false",  # a mirrored digit is another or none
    "compute.devices=1",
]


def run(jobs: int | None) -> None:
    """Run the pipeline with OVERRIDES, `jobs` runs at a time, and put its results into FOLDER.

    It runs in a copy of the workspace that is kept, with the workspace's DVC cache: what is done is
    not done again. Raises `NormlabError` as `study.run` does, while another demo runs there, and if
    the folder is not a demo's.
    """
    from dvc.utils.hydra import apply_overrides

    from normlab.training.resume import lock

    copy = scratch_root() / "demo"
    if copy.exists() and any(copy.iterdir()) and not (copy / "lock").exists():
        raise NormlabError(f"{copy}: contains other files; set {SCRATCH} to another folder")
    try:
        running = lock(copy)
    except BlockingIOError:
        raise NormlabError(f"another demo is running in {copy}; wait until it has ended") from None
    with running, files.atomic_folder(FOLDER / RESULTS) as folder:
        copy_pipeline(copy)
        apply_overrides(copy / "params.yaml", OVERRIDES)
        study.run(jobs, copy)
        shutil.copytree(copy / RESULTS, folder, dirs_exist_ok=True)
    print(
        f"\nNow look at {FOLDER / RESULTS / 'report.html'}, and try\n"
        "    make install && source .venv/bin/activate\n"
        "    dvc exp run -S norm=ln    # another norm for the run main, on CIFAR-10\n"
        "    make study                # the whole study, on CIFAR-10"
    )


def copy_pipeline(target: Path) -> None:
    """Copy COPIED into `target`, over what is there; its DVC uses this workspace's cache."""
    from dvc.config import Config

    for name in COPIED:
        source, copy = Path(name), target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    cache = Config(".dvc")["cache"].get("dir", ".dvc/cache")
    with Config(str(target / ".dvc")).edit("local") as settings:
        settings["core"]["no_scm"] = True
        settings["cache"]["dir"] = cache  # relative where it can be: DVC writes ASCII only
