"""What a worker asks of the server: reads of a leader's word, writes by compare-and-set, confirmed answers."""
from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import nats
from nats.aio.msg import Msg
from nats.js.errors import APIError, NotFoundError

from tasks import Record, instant

NS = os.environ.get("CRONFLEET_NAMESPACE", "cronfleet")
NOT_NOW = (nats.errors.Error, asyncio.TimeoutError)


class Fleet:
    def __init__(self, nc: nats.NATS) -> None:
        self.nc, self.js = nc, nc.jetstream()

    async def answer(self, msg: Msg, word: str, delay: float | None = None) -> None:
        word += "" if delay is None else ' {"delay": %d}' % (delay * 1e9)
        try:
            await self.nc.request(msg.reply, word.encode(), timeout=3)
        except NOT_NOW:
            pass  # it is delivered again, and found as the ledger has it

    async def last(self, stream: str, subject: str) -> tuple[Any, int]:
        """The last message there by the word of the stream's leader: its JSON, and its revision."""
        try:
            found = await self.js.get_last_msg(stream, subject)
        except NotFoundError:
            return None, 0
        try:
            return json.loads(found.data or ""), found.seq or 0
        except ValueError:
            return None, found.seq or 0  # a mark of a deletion, or what nobody can read: it is written over

    async def write(self, record: Record, over: int) -> int:
        """Compare-and-set in the ledger: the new revision, or 0 if somebody else wrote first."""
        subject, headers = f"$KV.{NS}_runs.{record['id']}", {"Nats-Expected-Last-Subject-Sequence": str(over)}
        for _ in range(60):
            try:
                return (await self.js.publish(subject, json.dumps(record).encode(), headers=headers)).seq
            except NOT_NOW as error:
                refused = isinstance(error, APIError) and error.err_code in (10071, 10164)
            try:  # the answer of this try, or of the one before, may have been lost
                found, revision = await self.last(f"KV_{NS}_runs", subject)
                if found == record or refused:
                    return revision if found == record else 0
            except NOT_NOW:
                pass
            await asyncio.sleep(1)
        raise nats.errors.TimeoutError

    async def cancel_of(self, record: Record) -> Any:
        """Who asked for the end of this run, and not of one before it under the same key."""
        request, _ = await self.last(f"{NS}_CONTROL", f"{NS}.control.cancel.{record['id']}")
        before = record.get("retried", {}).get("cancel_before")
        try:
            _, _, at = request["reason"], request["by"], request["at"]
            return request if at != before and instant(at) + 60 >= instant(record["created_at"]) else None
        except (TypeError, KeyError, ValueError):
            return None  # nobody asked, or in words that nobody can read

    async def bury(self, record: Record, msg: Msg, **what: Any) -> None:
        """Stores the dead letter of a run that failed, if it has none: what lies there may be of another submission."""
        subject = f"{NS}.dead.{record['queue']}.{record['id']}"
        if not (await self.last(f"{NS}_DEAD", subject))[0]:
            letter = {"run": record, "subject": msg.subject, **what}
            await self.js.publish(subject, json.dumps(letter).encode())
