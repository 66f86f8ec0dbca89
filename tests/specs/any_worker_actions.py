"""What the target of the specs does, for the worker in Python: see `any_worker.rs`."""
from __future__ import annotations

import asyncio
from typing import Any

from worker import Permanent


async def echo(run: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    return {"run": run["id"], "attempt": run["attempt"], "fence": run["fence"], "parameters": parameters}


async def fail(run: dict[str, Any]) -> None:
    raise RuntimeError("it broke")


async def refuse(run: dict[str, Any]) -> None:
    raise Permanent("not like this")


async def third_time(run: dict[str, Any]) -> dict[str, Any]:
    if run["attempt"] < 3:
        raise RuntimeError("not yet")
    return {"ok": True}


async def slow(run: dict[str, Any], ms: int) -> dict[str, Any]:
    await asyncio.sleep(ms / 1000)
    return {"slept": True}


async def hang(run: dict[str, Any]) -> None:
    await asyncio.Event().wait()
