"""Tasks and records: what a worker decides without asking anybody. docs/PROTOCOL.md and docs/run-states.md say why."""
from __future__ import annotations

import json
import re
import time
from datetime import datetime, timezone
from typing import Any

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
RESERVED_KEY = re.compile(r"_.*|\d{8}T\d{6}Z(-\d+)?")
FINAL = ("SUCCESS", "FAILED", "CANCELLED")
LENGTH = re.compile(r"(\d+) *(ms|s|m|h|days?|d) *")
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "day": 86400, "days": 86400}
FIELDS = set("task_name target_service action parameters execution command timeout start_deadline deadline retry"
             " delivery limit precheck".split())
RETRY = {"attempts": 3, "backoff": "5s", "max_backoff": "10m"}
Record = dict[str, Any]


def instant(text: str) -> float:
    """Seconds since 1970. Records have up to nine digits of a second, which not every Python reads."""
    found = re.fullmatch(r"(.{19})(\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    if not found:
        raise ValueError(f"{text!r} is no instant")
    head, fraction, zone = found.groups()
    return datetime.fromisoformat(head + zone.replace("Z", "+00:00")).timestamp() + float(fraction or 0)


def text_of(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def seconds(text: str, most: float = 30 * 86400, least: float = 0.001) -> float:
    length = sum(int(number) * UNITS[unit] for number, unit in LENGTH.findall(text))
    if LENGTH.sub("", text) or not least <= length <= most:
        raise ValueError(f"{text!r} is no length of time, or not {least} s to {most} s")
    return length


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a field is there twice, and it is not for us to choose which was meant")
    return dict(pairs)


def refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def read_task(data: bytes) -> dict[str, Any]:
    """A task with its defaults. All workers must refuse the same ones; `limit` and `precheck` are not looked into."""
    if len(data) > 256 * 1024:
        raise ValueError("it has more than 256 KiB: pass a reference instead of the data")
    task = json.loads(data, object_pairs_hook=distinct, parse_constant=refuse)
    if not isinstance(task, dict) or not isinstance(task.get("parameters", {}), dict):
        raise ValueError("a task is an object, and so are its parameters")
    task = {name: value for name, value in task.items() if value is not None}
    retry = {**RETRY, **task.get("retry", {})}
    if unknown := set(task) - FIELDS | set(retry) - {*RETRY, "max_age"}:
        raise ValueError(f"unknown fields: {unknown}")
    names = [task.get("target_service"), task.get("action")]
    is_service = all(isinstance(name, str) and NAME.fullmatch(name) for name in names) and "command" not in task
    if not is_service and not (names == [None, None] and task.get("command")):
        raise ValueError("a task has either `target_service` and `action`, or `command`")
    if task.get("delivery", "at_least_once") not in ("at_least_once", "at_most_once"):
        raise ValueError("delivery is at_least_once or at_most_once")
    if not isinstance(retry["attempts"], int) or not 1 <= retry["attempts"] <= 100:
        raise ValueError("retry.attempts is 1 to 100")
    seconds(task.get("timeout", "5m"), 86400)
    if seconds(retry["backoff"], 3600, 0) > seconds(retry["max_backoff"], 3600, 0):
        raise ValueError("retry.backoff exceeds retry.max_backoff")
    for length in (task.get("start_deadline"), task.get("deadline"), retry.get("max_age")):
        length is None or seconds(length)
    return {"parameters": {}, "timeout": "5m", "delivery": "at_least_once", **task, "retry": retry}


def changed(record: Record, status: str, **fields: Any) -> Record:
    """The record in its next state. Why it was in the last one does not count any more."""
    now, was_running = time.time(), record["status"] == "RUNNING"
    kept = {name: value for name, value in record.items() if name not in ("reason", "note", "next_attempt_at")}
    if was_running:
        kept["duration_ms"] = max(0, int((now - instant(record["started_at"])) * 1000))
    if status in FINAL:
        kept["finished_at"] = text_of(now)
    return {**kept, "status": status, **fields}


def started(record: Record, worker: str) -> Record:
    """The record as a claim writes it: without what the last attempt left."""
    left = ("reason", "note", "error", "output", "fence", "finished_at", "next_attempt_at", "duration_ms", "callback")
    kept = {name: value for name, value in record.items() if name not in left}
    attempt = record.get("attempt", 0) + 1
    return {**kept, "status": "RUNNING", "attempt": attempt, "worker": worker, "started_at": text_of(time.time())}


def too_late(record: Record, task: dict[str, Any], at: float) -> str | None:
    """Why no attempt may begin at this moment any more."""
    age = at - instant(record["retried"]["at"] if "retried" in record else record["created_at"])
    is_begun = "started_at" in record or record["status"] == "RETRY"
    if "start_deadline" in task and not is_begun and age > seconds(task["start_deadline"]):
        return "expired"
    if "deadline" in task and age >= seconds(task["deadline"]):
        return "deadline"
    has_failed = record["status"] in ("RETRY", "RUNNING") and "max_age" in task["retry"]
    return "max_age" if has_failed and age > seconds(task["retry"]["max_age"]) else None


def attempts_left(record: Record, task: dict[str, Any]) -> bool:
    """What was retried by hand counts its attempts anew."""
    spent = record["attempt"] - record.get("retried", {}).get("attempts_before", 0)
    return task["delivery"] == "at_least_once" and spent < task["retry"]["attempts"]


def failed(
    record: Record, task: dict[str, Any], kind: str, why: str, permanent: bool, jitter: float
) -> tuple[Record, float]:
    """The record of a run whose attempt went wrong, and how long it waits for the next one."""
    error, now = {"kind": kind, "message": why[:4000]}, time.time()
    spent = record["attempt"] - record.get("retried", {}).get("attempts_before", 0)
    longest, first = seconds(task["retry"]["max_backoff"], least=0), seconds(task["retry"]["backoff"], least=0)
    wait = min(first * 2 ** (spent - 1), longest) * (1 - 0.2 * jitter)
    permanent = permanent or task["delivery"] == "at_most_once"
    last = "permanent" if permanent else "timeout" if kind == "timeout" else "attempts_exhausted"
    if permanent or not attempts_left(record, task):
        return changed(record, "FAILED", reason=last, error=error), 0
    if reason := too_late(record, task, now + wait):
        return changed(record, "FAILED", reason=reason, error=error), 0
    why_again = {"reason": "timeout"} if kind == "timeout" else {}
    return changed(record, "RETRY", error=error, next_attempt_at=text_of(now + wait), **why_again), wait


def handed_back(record: Record) -> Record:
    """Stopping is not failing: the attempt is not spent, and whoever takes the run next sees that it was not lost."""
    back = changed(record, "PENDING", attempt=record["attempt"] - 1, reason="drained")
    return {name: value for name, value in back.items() if name != "worker"}


def bounded(output: Any) -> Any:
    text = json.dumps(output)
    return output if len(text) <= 65536 else {"truncated": True, "bytes": len(text), "beginning": text[:60000]}
