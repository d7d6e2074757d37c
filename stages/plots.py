"""Gather what people read into results/: tables, figures, the report."""

from normlab.config import params, paths
from normlab.config.pipeline import run_stage
from normlab.report import figures, html, results
from normlab.utils import files


def main() -> None:
    config = params.load()
    study = results.load(config)
    with files.atomic_folder(paths.RESULTS) as folder:
        results.write_tables(folder, study)
        figures.draw_all(folder / "figures", study, config.plots.dpi)
        html.write(folder, study, config)
    results.show_summary(paths.RESULTS)


if __name__ == "__main__":
    run_stage(main)
