"""Gather what people read into results/: metrics, tables, figures, the report."""

from normlab.config import params, paths, pipeline
from normlab.config.pipeline import run_stage
from normlab.report import figures, html, results, seeds
from normlab.utils import files


def main() -> None:
    config = params.load()
    options = config.plots
    setup = {
        "dataset": config.dataset,
        "seed": config.seed,
        "comparison": config.comparison.model_dump(),
        "split": config.split.model_dump(),
        "model": config.model.model_dump(),
        "train": config.train.model_dump(),
    }
    repeated = seeds.read(seeds.PATH, seeds.recipe(setup))
    usual = config.comparison.batch_size
    found = [results.load(run, usual, repeated) for run in pipeline.runs()]
    with files.atomic(paths.RESULTS) as folder:
        files.write_json(folder / seeds.SETUP.name, setup)
        results.write_tables(folder, found)
        figures.draw_all(folder / "figures", found, options.dpi, "png")
        html.write(folder / "report.html", found, setup)
    results.show_summary(paths.RESULTS)


if __name__ == "__main__":
    run_stage(main)
