"""A worker with the public NATS client and nothing of ours; docs/PROTOCOL.md tells each step. To run it:

    NATS_URL=nats://127.0.0.1:4222 python worker.py QUEUE actions.py [PLACES]
"""
from __future__ import annotations

import asyncio
import json
import os
import random
import runpy
import signal
import sys
import time
from typing import Any

import nats
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from claims import Claims, Malformed
from fleet import NOT_NOW, NS
from tasks import Record, bounded, changed, failed, handed_back, instant, seconds, text_of


class Permanent(Exception):
    """Raised by an action that another attempt would not mend."""


class Worker(Claims):
    def __init__(self, nc: nats.NATS, queue: str, actions: dict[str, Any]) -> None:
        super().__init__(nc, queue)
        self.actions = actions
        self.draining, self.started_at = False, text_of(time.time())

    async def run(self, places: int) -> None:
        try:
            self.ack_wait = (await self.js.consumer_info(f"{NS}_TASKS", self.queue)).config.ack_wait
        except NotFoundError:
            raise SystemExit(f"queue {self.queue} is not declared; declare it under `queues:` and apply, or serve another")
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.drain)
        await self.nc.subscribe(f"{NS}.control.cancel.*.*", cb=self.asked_to_cancel)  # before anything is pulled
        beats = asyncio.create_task(self.beat(places))
        await asyncio.gather(*(self.serve() for _ in range(places)))
        beats.cancel()
        await self.js.publish(f"$KV.{NS}_members.worker.{self.id}", headers={"KV-Operation": "DEL"})

    def drain(self) -> None:
        self.draining = True
        for run in self.running:
            self.stop(run, "drained")

    async def beat(self, places: int) -> None:  # others take our runs over if we do not
        while True:
            me = {"kind": "worker", "id": self.id, "version": "python", "started_at": self.started_at, "places": places,
                  "queues": [self.queue], "draining": self.draining,
                  "running": [[run, record["attempt"]] for run, (record, _, _) in self.running.items()]}
            try:
                await self.js.publish(f"$KV.{NS}_members.worker.{self.id}", json.dumps(me).encode(), timeout=1.5)
                self.heard_since = self.heard_since or time.monotonic()
                if (await self.last(f"{NS}_CONTROL", f"{NS}.control.drain.{self.id}"))[0]:
                    self.drain()
            except NOT_NOW:
                self.heard_since = 0.0
            await asyncio.sleep(2)

    async def serve(self) -> None:  # one place: it asks for a run only when it can begin it
        pull = await self.js.pull_subscribe_bind(self.queue, stream=f"{NS}_TASKS")
        while not self.draining:
            try:
                [msg] = await pull.fetch(1, timeout=1)
            except NOT_NOW as nothing:
                await asyncio.sleep(0 if isinstance(nothing, asyncio.TimeoutError) else 1)
                continue
            try:
                came, (record, revision, task) = time.monotonic(), self.identify(msg)
                claimed = await self.claim(msg, record, revision, task)
                if claimed and self.draining:  # it came too late to begin it
                    await self.write(handed_back(claimed), claimed["fence"])
                    await self.answer(msg, "-NAK", 0)
                elif claimed:
                    await self.attempt(msg, claimed, task, came)
            except Malformed as malformed:
                await self.reject(msg, *malformed.args)
            except Exception as error:
                print(f"{msg.subject} goes back to its queue: {error!r}", file=sys.stderr)
                await self.answer(msg, "-NAK", 2)

    async def attempt(self, msg: Msg, record: Record, task: dict[str, Any], came: float) -> None:
        run, deliveries, why = record["id"], [msg], asyncio.get_running_loop().create_future()
        self.running[run] = (record, deliveries, why)
        work = asyncio.create_task(self.act(record, task))
        hold = asyncio.create_task(self.hold(record, came))
        hold.add_done_callback(lambda _: self.stop(run, "lost"))
        try:
            await self.settle(record, task, work, why, deliveries)
        finally:
            hold.cancel()
            del self.running[run]

    async def settle(
        self, record: Record, task: dict[str, Any], work: asyncio.Task, why: asyncio.Future, deliveries: list[Msg]
    ) -> None:
        """Waits for the end of an attempt, records it over the claim, and then answers the server."""
        limit = seconds(task["timeout"])
        if "deadline" in task:
            since = record["retried"]["at"] if "retried" in record else record["created_at"]
            limit = min(limit, instant(since) + seconds(task["deadline"]) - time.time())
        await asyncio.wait({work, why}, timeout=max(0, limit), return_when=asyncio.FIRST_COMPLETED)
        work.cancel()  # nothing, if it is over
        await asyncio.wait({work}, timeout=5)  # it must be over before anybody else may begin
        wait, asked = 0.0, why.result() if why.done() else None
        if work.done() and not work.cancelled() and not work.exception():
            end = changed(record, "SUCCESS", output=bounded(work.result()))
        elif asked == "lost":
            end = None
        elif asked == "drained" and task["delivery"] == "at_least_once":
            end = handed_back(record)
        elif asked == "drained":
            lost = {"kind": "lost", "message": "the worker was stopping, and it is not begun a second time"}
            end = changed(record, "FAILED", reason="lost", error=lost)
        elif asked:
            end = changed(record, "CANCELLED", reason=asked["reason"], note=f"cancelled by {asked['by']}")
        else:
            error = work.exception() if work.done() and not work.cancelled() else None
            kind, words = ("target", repr(error)) if error else ("timeout", f"it took longer than {limit:.3f} s")
            end, wait = failed(record, task, kind, words, isinstance(error, Permanent), random.random())
        if end and await self.write(end, record["fence"]):  # recorded first, answered second
            if end["status"] == "FAILED":
                await self.bury(end, deliveries[-1], task=task)
            word = {"SUCCESS": "+ACK", "CANCELLED": "+ACK", "FAILED": "+TERM"}.get(end["status"], "-NAK")
            await self.answer(deliveries[-1], word, wait if word == "-NAK" else None)
        else:  # an orphan: no answer, which would remove the message of who has taken it over
            print(f"attempt {record['attempt']} of {record['id']} was lost: its end is not recorded", file=sys.stderr)

    async def act(self, record: Record, task: dict[str, Any]) -> Any:
        if task.get("action") not in self.actions:
            raise Permanent(f"this worker has no action {task.get('action')}")
        return await self.actions[task["action"]](record, **task["parameters"])


async def main() -> None:
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    (queue, actions, *places), url = sys.argv[1:], os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
    known = {name: value for name, value in runpy.run_path(actions).items() if asyncio.iscoroutinefunction(value)}
    nc = await nats.connect(url, max_reconnect_attempts=-1, name="worker.py")
    await Worker(nc, queue, known).run(int(places[0]) if places else 4)
    await nc.close()


if __name__ == "__main__":
    sys.modules["worker"] = sys.modules["__main__"]  # so that `from worker import Permanent` in actions.py is this one
    asyncio.run(main())
