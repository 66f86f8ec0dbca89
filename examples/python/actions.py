"""What this worker can do: one coroutine for each action, which gets the run's record and the task's parameters.

They are coroutines because whoever is told to stop must be able to: put what blocks into a process of its own.
"""
from __future__ import annotations

import asyncio
from typing import Any

from worker import Permanent


async def optimize_tables(run: dict[str, Any], tables: list[str]) -> dict[str, Any]:
    if not tables:
        raise Permanent("`tables` is empty: name one at least")  # another attempt would not mend that
    await asyncio.sleep(0.1)
    return {"optimized": tables, "attempt": run["attempt"], "fence": run["fence"]}
