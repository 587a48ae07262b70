"""rowbeat from Django: every function runs on Django's own connection, so inside `transaction.atomic()` a task is enqueued, or an
attempt ended, together with the models that are saved there, or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import DEFAULT_DB_ALIAS, connections


def enqueue(
    definition: str,
    payload: Any = None,
    *,
    run_at: datetime | None = None,
    queue: str | None = None,
    priority: int | None = None,
    max_attempts: int | None = None,
    timeout: timedelta | None = None,
    unique_key: str | None = None,
    replace: Sequence[str] | None = None,
    unique_for: timedelta | None = None,
    serial_key: str | None = None,
    using: str = DEFAULT_DB_ALIAS,
) -> int:
    """Enqueues a task and returns its id; with a unique key, the id of the live task that holds it."""
    wishes = {
        "run_at": run_at,
        "queue": queue,
        "priority": priority,
        "max_attempts": max_attempts,
        "timeout": timeout,
        "unique_key": unique_key,
        "replace": None if replace is None else list(replace),
        "unique_for": unique_for,
        "serial_key": serial_key,
    }
    given = {name: value for name, value in wishes.items() if value is not None}
    named = "".join(f", p_{name} => %s" for name in given)
    values = [definition, _document({} if payload is None else payload), *given.values()]
    return int(_call(f"select rowbeat.enqueue(%s, %s::jsonb{named})", values, using)[0])


@dataclass(frozen=True)
class Task:
    """A claimed task; (id, attempt) is the claim."""

    id: int
    attempt: int
    definition: str
    payload: Any


def claim(worker: str, definitions: Sequence[str], lease: timedelta, *, using: str = DEFAULT_DB_ALIAS) -> Task | None:
    """Claims one due task of external definitions, until the lease ends."""
    row = _call(
        "select id, attempt, definition, payload::text from rowbeat.claim(%s, p_definitions => %s, p_lease => %s)",
        [worker, list(definitions), lease],
        using,
    )
    return Task(row[0], row[1], row[2], json.loads(row[3])) if row else None


def complete(task: Task, result: Any = None, *, using: str = DEFAULT_DB_ALIAS) -> str:
    """Ends the attempt as done; the task's state, which is not `completed` when its settle function raised: roll back then."""
    values = [task.id, task.attempt, _document(result)]
    return str(_call("select rowbeat.complete(%s, %s, %s::jsonb)", values, using)[0])


def fail(task: Task, message: str, *, for_good: bool = False, using: str = DEFAULT_DB_ALIAS) -> str:
    """Ends the attempt as failed; the task's state."""
    values = [task.id, task.attempt, _document({"message": message}), for_good]
    return str(_call("select rowbeat.fail(%s, %s, %s::jsonb, p_for_good => %s)", values, using)[0])


def is_stale(error: BaseException | None) -> bool:
    """Whether a database error says that the claim is lost (RB003): stop, and record nothing."""
    return getattr(getattr(error, "__cause__", None), "sqlstate", None) == "RB003"


def _document(value: Any) -> str:
    return json.dumps(value, cls=DjangoJSONEncoder)


def _call(sql: str, values: list[Any], using: str) -> tuple[Any, ...]:
    with connections[using].cursor() as cursor:
        cursor.execute(sql, values)
        row: tuple[Any, ...] = cursor.fetchone()
        return row
