"""`python -m normlab`: what a user does besides `dvc repro`."""

from typing import Annotated

import typer

from normlab.errors import run_app

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
Jobs = Annotated[int, typer.Option(help="how many runs train at a time", min=1)]


@app.command()
def study(jobs: Jobs = 2) -> None:
    """Bring the whole pipeline up to date, several runs side by side."""
    from normlab import study

    study.run(jobs)


@app.command()
def demo(jobs: Jobs = 2) -> None:
    """Run the whole pipeline on scikit-learn's digits, as a DVC experiment."""
    from normlab import demo

    demo.run(jobs)


if __name__ == "__main__":
    run_app(app)
