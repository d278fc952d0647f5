"""What legends call the tensors and the shares of time, in the order in which they are stacked."""

from __future__ import annotations

from collections.abc import Mapping

from dnnc.plan import TRAFFIC_ROLES
from dnnc.report_page.palette import colour
from dnnc_runtime.time_shares import SHARES

ROLE_NAMES: Mapping[str, str] = {"partial_sums": "partial sums", "other": "second operand"}
"""Of the tensors that are called otherwise than their role."""

SHARE_NAMES: Mapping[str, str] = {
    "computing": "computing",
    "idle_units": "units idle",
    "idle_planes": "passes not full",
    "idle_traces": "traces not full",
    "first_load": "first load",
    "dram": "waiting for DRAM",
    "on_chip": "waiting for pools and moves",
    "last_store": "last store",
}
"""Of all shares of time."""

ROLE_CLASS: Mapping[str, str] = {role: f"c{colour(i)}" for i, role in enumerate(TRAFFIC_ROLES)}
SHARE_CLASS: Mapping[str, str] = {share: f"c{colour(i)}" for i, share in enumerate(SHARES)}
"""The class of each in pictures."""


def role_name(role: str) -> str:
    """What a tensor is called."""
    return ROLE_NAMES.get(role, role)
