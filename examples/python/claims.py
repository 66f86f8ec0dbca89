"""From a delivery to an attempt of our own: which run it is, whether it may begin, and the write that makes it ours."""
from __future__ import annotations

import asyncio
import json
import re
import secrets
import socket
import time
from typing import Any

import nats
from nats.aio.msg import Msg

from fleet import NOT_NOW, NS, Fleet
from tasks import FINAL, NAME, RESERVED_KEY, Record, attempts_left, changed, instant, read_task, started, text_of
from tasks import too_late


class Malformed(Exception):
    """No task, or no subject of one: the run it would be, if its subject may name one, and what is wrong."""


class Claims(Fleet):
    def __init__(self, nc: nats.NATS, queue: str) -> None:
        super().__init__(nc)
        self.queue, self.ack_wait = queue, 30.0
        self.id = f"worker-{re.sub('[^A-Za-z0-9_-]', '-', socket.gethostname())[:40]}-{secrets.token_hex(4)}"
        # What is under way: its record, its deliveries (the latest counts), and why it must stop.
        self.running: dict[str, tuple[Record, list[Msg], asyncio.Future]] = {}
        self.heard_since = 0.0  # since when all our heartbeats were taken; 0: the last was not

    def identify(self, msg: Msg) -> tuple[Record, int, dict[str, Any]]:
        _, kind, _, name, key = msg.subject.split(".")
        headers, at = msg.headers or {}, text_of(msg.metadata.timestamp.timestamp())
        may_be = kind == "tasks" and NAME.fullmatch(name) and NAME.fullmatch(key) and not RESERVED_KEY.fullmatch(key)
        run = f"{name}.{key}" if may_be else headers.get("Cronfleet-Run") if kind == "due" else None
        try:
            if kind == "due":  # only planners publish there: their headers count
                due = json.loads(msg.data)
                if due["run"]["id"] != run:
                    raise ValueError(f"its header names {run}, its body {due['run']['id']}")
                task = read_task(json.dumps(due["task"]).encode())
                return due["run"], int(headers.get("Cronfleet-Revision", 0)), task
            if not run:
                raise ValueError("its subject names no run that callers may use")
            task = read_task(msg.data)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as why:
            raise Malformed(run, f"the task cannot be understood: {why}") from why
        named: Record = {field: task[field] for field in ("target_service", "action") if field in task}
        return {"id": run, "queue": self.queue, "status": "PENDING", "created_at": at, **named}, 0, task

    async def reject(self, msg: Msg, run: str | None, why: str) -> None:
        fallback = f"rejected.seq-{msg.metadata.sequence.stream}"
        fresh = {"queue": self.queue, "status": "PENDING", "created_at": text_of(time.time())}
        error = {"kind": "malformed", "message": why[:4000]}
        for name in (run or fallback, fallback):
            found, over = await self.last(f"KV_{NS}_runs", f"$KV.{NS}_runs.{name}")
            is_planned = found and ".due." in msg.subject and found["status"] == "PENDING"
            record = changed(found if is_planned else {"id": name, **fresh}, "FAILED", reason="malformed", error=error)
            if found and found.get("reason") == "malformed":
                record = found  # ours, from a delivery whose answer was lost
            elif (found and not is_planned) or not await self.write(record, over):
                continue  # a run of that name was there: this message gets a name of its own
            await self.bury(record, msg, raw=msg.data[:65536].decode(errors="replace"))
            await self.answer(msg, "+TERM malformed")
            return
        await self.answer(msg, "-NAK", 2)

    async def is_alive(self, found: Record) -> bool:
        """Whether the worker of a running attempt may still be at it."""
        member, _ = await self.last(f"KV_{NS}_members", f"$KV.{NS}_members.worker.{found.get('worker')}")
        if not member:  # after an outage everybody is silent: then that means nothing until we were heard for a while
            return not self.heard_since or time.monotonic() - self.heard_since < 9
        is_young = time.time() - instant(found["started_at"]) < 4
        return is_young or [found["id"], found["attempt"]] in member.get("running", [])

    async def claim(self, msg: Msg, record: Record, revision: int, task: dict[str, Any]) -> Record | None:
        """The record of an attempt that is now ours; none if there is none, and then the delivery has its answer."""
        known = (record, revision) if revision and msg.metadata.num_delivered == 1 else None
        for _ in range(5):
            found, over = known or await self.last(f"KV_{NS}_runs", f"$KV.{NS}_runs.{record['id']}")
            found = found if isinstance(found, dict) and "status" in found else record  # no record: written over
            is_first, known = known is not None, None
            status, asked = found["status"], None
            if status in FINAL:
                if found.get("reason") == "malformed" and found["queue"] != self.queue:
                    raise Malformed(None, f"run {found['id']} has ended already, by what came under its key elsewhere")
                if status == "FAILED":
                    await self.bury(found, msg, task=task)
                await self.answer(msg, "+ACK")
                return None
            if found["queue"] != self.queue:
                await self.answer(msg, "+ACK")
                return None
            if status == "RUNNING" and found["id"] in self.running and found.get("worker") == self.id:  # it counts now
                self.running[found["id"]][1].append(msg)
                return None
            early = instant(found["next_attempt_at"]) - time.time() if "next_attempt_at" in found else 0
            if status == "RETRY" and early > 0.1:
                await self.answer(msg, "-NAK", early)
                return None
            if status == "RUNNING" and ("callback" in found or await self.is_alive(found)):
                await self.answer(msg, "-NAK", min(7, self.ack_wait))
                return None
            if not is_first and over and (asked := await self.cancel_of(found)):
                note = f"cancelled by {asked['by']}"
                await self.write(changed(found, "CANCELLED", reason=asked["reason"], note=note), over)
            elif status == "RUNNING":  # lost with its worker, and the attempt with it
                words = f"attempt {found['attempt']} was lost with worker {found.get('worker')}, which is silent"
                error = {"kind": "lost", "message": words}
                state = "RETRY" if attempts_left(found, task) and not too_late(found, task, time.time()) else "FAILED"
                fence = found.get("fence", over)
                await self.write(changed(found, state, reason="lost", error=error, fence=fence), over)
            elif why := too_late(found, task, time.time()):
                note = f"it is too late to begin it: {why}"
                await self.write(changed(found, "CANCELLED", reason="expired", note=note), over)
            else:
                begun = started(found, self.id)
                if fence := await self.write(begun, over):
                    return {**begun, "fence": fence}
            # Whoever wrote, the next look says what is to be done.
        await self.answer(msg, "-NAK", 2)
        return None

    def stop(self, run: str, why: Any) -> None:
        if run in self.running and not self.running[run][2].done():
            self.running[run][2].set_result(why)

    async def asked_to_cancel(self, msg: Msg) -> None:
        run = ".".join(msg.subject.split(".")[-2:])
        if run in self.running and (request := await self.cancel_of(self.running[run][0])):
            self.stop(run, request)

    async def hold(self, record: Record, came: float) -> None:
        """Renews our hold; ends when it is lost, a third of the wait before somebody else may begin."""
        _, deliveries, _ = self.running[record["id"]]
        confirmed = came
        while True:
            await asyncio.sleep(self.ack_wait / 4)
            while (left := confirmed + self.ack_wait * 2 / 3 - (asked := time.monotonic())) > 0:
                try:
                    await self.nc.request(deliveries[-1].reply, b"+WPI", timeout=left)
                    confirmed = asked
                    if request := await self.cancel_of(record):  # what is heard over core NATS may be lost
                        self.stop(record["id"], request)
                    break
                except NOT_NOW:
                    await asyncio.sleep(0.1)
            else:
                return
