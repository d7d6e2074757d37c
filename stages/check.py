"""Check params.yaml as a whole, before any other stage touches anything."""

from normlab.base import files, layout, params
from normlab.base.errors import run_command


def main() -> None:
    params.load()
    files.write_text(layout.CHECKED, "params.yaml holds only allowed values\n")


if __name__ == "__main__":
    run_command(main)
