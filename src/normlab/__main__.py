"""`python -m normlab`: what a user does besides `dvc repro`."""

from pathlib import Path
from typing import Annotated

import typer

from normlab.utils.errors import run_app

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
Jobs = Annotated[
    int | None,
    typer.Option(help="how many trainings run at a time; by default 2, or 1 per GPU", min=1),
]
Images = Annotated[list[Path], typer.Argument(help="image files, or folders of them")]
RunName = Annotated[str, typer.Option(help="the run whose weights to use; dvc.yaml lists the runs")]
Csv = Annotated[Path | None, typer.Option(help="also write the predictions to this CSV file")]


@app.command()
def study(jobs: Jobs = None) -> None:
    """Bring the whole pipeline up to date, several runs side by side."""
    from normlab.cli import study

    study.run(jobs)


@app.command()
def demo(jobs: Jobs = None) -> None:
    """Run the whole pipeline on scikit-learn's digits, in a copy that needs no Git."""
    from normlab.cli import demo

    demo.run(jobs)


@app.command()
def predict(images: Images, run: RunName = "main", csv: Csv = None) -> None:
    """Classify image files with a trained run."""
    from normlab.cli import predict

    predict.run(run, images, csv)


@app.command(hidden=True)
def merge_lock(base: Path, ours: Path, theirs: Path) -> None:
    """Merge dvc.lock for Git (`make install` registers this)."""
    from normlab.cli import lockfile

    lockfile.merge(base, ours, theirs)


@app.command(hidden=True)
def readme() -> None:
    """Regenerate the tables of README.md and docs/ from the committed results and measurements."""
    from normlab.report import readme

    for page in (Path("README.md"), *Path("docs").glob("*.md")):
        readme.update(page)


if __name__ == "__main__":
    run_app(app)
