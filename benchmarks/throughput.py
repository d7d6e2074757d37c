"""Training throughput of every norm, of PyTorch's layers, no norm, and a plain loop.

fraction_of_convolutions is the rate divided by that at which the machine runs the model's
convolutions alone, forward and backward; first_step_s is mostly spent compiling. See `--help`, and
turns.py for how it is measured.
"""

import json
import statistics
from typing import Annotated

import typer

from benchmarks import loops, turns
from benchmarks.references import TORCH_LAYERS
from normlab.compute.runtime import describe, make_runtime
from normlab.utils.errors import run_command


def main(
    batch_sizes: turns.Names = "128,8",
    norms: turns.Names = "bn,in,bin,ln,gn",
    precision: Annotated[str, typer.Option(help="float32 or bfloat16")] = "float32",
    compiled: turns.Compiled = True,
    rounds: turns.Rounds = 9,
    out: turns.Out = None,
) -> None:
    print(f"{precision}, {json.dumps(describe(make_runtime(precision, compiled, 0)))}")
    table = turns.Table(out)
    names = [*dict.fromkeys([*norms.split(","), "nn"])]
    for batch_size in map(int, batch_sizes.split(",")):
        groups: dict[str, turns.Group] = {}
        first_step = {}
        for name in names:
            for layer in (name, f"torch:{name}") if name in TORCH_LAYERS else (name,):
                group = turns.start(loops.training, layer, batch_size, precision, compiled)
                turns.work(group, 0)  # imports
                first_step[layer] = turns.seconds(turns.work, group, 1)
                groups[layer] = group
        for name in names:
            groups[f"plain:{name}"] = turns.start(loops.plain_loop, name, batch_size)
        groups["limit"] = turns.start(loops.convolutions_alone, batch_size, precision)
        found = turns.rates(groups, batch_size, max(2, 512 // batch_size), rounds)
        turns.end(groups)
        for name in names:
            own, theirs = found[name], found.get(f"torch:{name}")
            table.add(
                batch_size=batch_size,
                norm=name,
                images_per_s=round(statistics.median(own)),
                vs_torch_layer=turns.ratio(own, theirs) if theirs else "",
                relative_step_time=turns.ratio(found["nn"], own),
                vs_plain_loop=turns.ratio(own, found[f"plain:{name}"]),
                fraction_of_convolutions=turns.ratio(own, found["limit"]),
                first_step_s=round(first_step[name], 1),
            )


if __name__ == "__main__":
    run_command(main)
