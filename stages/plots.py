"""Gather what people read into results/: metrics, tables, figures."""

from normlab import figures, files, layout, params, pipeline, results
from normlab.errors import run_command


def main() -> None:
    options = params.load().plots
    found = [results.load(run) for run in pipeline.runs()]
    with files.atomic(layout.RESULTS) as folder:
        results.write_tables(folder, found)
        figures.draw_all(folder / "figures", found, options.dpi, options.format)
    print((layout.RESULTS / "summary.md").read_text(), end="")


if __name__ == "__main__":
    run_command(main)
