"""Faults that a user can act on, each with the exit status of the command line.

Every message is one sentence that names where, what was found, what was expected and what to do.
"""

from __future__ import annotations


class Fault(Exception):
    """Base of all faults that are a user's to mend; anything else is an internal fault (exit 1)."""

    exit_status = 1


class UsageFault(Fault):
    """A wrong option, constraint, machine file, artifact or output path."""

    exit_status = 2


class ModelFault(Fault):
    """The model is malformed, or holds what is not supported."""

    exit_status = 3


class CapacityFault(Fault):
    """A layer does not fit the machine's memories under the constraints given."""

    exit_status = 4


class DisagreementFault(Fault):
    """Numbers or bytes disagree: a defect of dnnc, never of the user's model."""

    exit_status = 5
