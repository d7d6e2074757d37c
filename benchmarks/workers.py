"""Steps that are measured in a process of their own."""

import multiprocessing as mp
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

Steps = Callable[[int], Any]  #: does so many steps


class Worker:
    """A process that does the steps which `make(*arguments)` returns, as many as it is told to.

    `make` and `arguments` are pickled; the first steps are done when the worker is there.
    """

    def __init__(self, make: Callable[..., Steps], *arguments: Any, first: int = 0) -> None:
        context = mp.get_context("spawn")
        self._orders, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()  # so that a process that died is noticed: waiting for it is an EOFError
        self(first)

    def start(self, count: int) -> None:
        self._orders.send(count)

    def wait(self) -> Any:
        """What the steps return."""
        return self._orders.recv()

    def __call__(self, count: int) -> Any:
        self.start(count)
        return self.wait()

    def end(self) -> None:
        self._orders.send(None)
        self._process.join()


def _serve(orders: Connection, make: Callable[..., Steps], arguments: tuple[Any, ...]) -> None:
    steps = make(*arguments)
    while (count := orders.recv()) is not None:
        result = steps(count)
        synchronize()
        orders.send(result)


def synchronize() -> None:
    """Wait until what a GPU was asked for is done."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
