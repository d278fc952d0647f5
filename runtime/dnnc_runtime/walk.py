"""Walks a program once, checks it, and tells listeners what happens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from dnnc_runtime.checks import Checks
from dnnc_runtime.program import Instruction, Program, Section


class Listener(Protocol):
    """Observes a program in execution order; every call may raise to stop the walk."""

    def begin(self, section: Section) -> None:
        """A section starts; on-chip memories hold what the one before kept."""
        ...

    def step(self, index: int, instruction: Instruction) -> None:
        """One instruction of the section, by its index in it."""
        ...

    def end(self, section: Section) -> None:
        """The section has ended; all words on chip that it does not keep are emptied."""
        ...


def walk(program: Program, listeners: Iterable[Listener] = ()) -> None:
    """Run every structural check of a program without computing a number, and tell the listeners.

    Raises:
        DisagreementFault: a read of words that do not hold what is read, an address outside its memory,
            pieces that do not cover their transfers, an output element that is not computed exactly once, or is stored
            twice, or lost, an output of the program that nothing wrote.
    """
    _checks(program, listeners)


def checked(program: Program) -> Program:
    """A program with all its structural checks done: executing it, in however many number systems, repeats none.

    Raises:
        DisagreementFault: as :func:`walk`.
    """
    return replace(program, checked=_checks(program, ()))


def _checks(program: Program, listeners: Iterable[Listener]) -> Checks:
    checks = Checks(program)
    tell(program, [checks, *listeners])
    checks.finish()
    return checks


def tell(program: Program, listeners: Iterable[Listener]) -> None:
    """Tell the listeners, in the order given, every section and instruction."""
    everyone = list(listeners)
    for section in program.sections:
        for listener in everyone:
            listener.begin(section)
        for index, instruction in enumerate(section.instructions):
            for listener in everyone:
                listener.step(index, instruction)
        for listener in everyone:
            listener.end(section)
