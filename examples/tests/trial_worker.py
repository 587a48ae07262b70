"""The Python worker with handlers made for trials: they stumble, hang and wait where a test wants to look, kill or cancel.
Arguments: conninfo, queue, lease in seconds."""

from __future__ import annotations

import logging
import sys
import time
from datetime import timedelta

import psycopg
from rowbeat_worker import Connection, Json, Reject, Snooze, Task, Worker

CONNINFO, QUEUE, LEASE_S = sys.argv[1:]


def hang() -> None:
    while True:
        time.sleep(60)


def trial_stumble(task: Task) -> Json:
    """What becomes of it depends on the attempt: the payload says it for each."""
    match task.payload[task.attempt - 1]:
        case "raise":
            raise RuntimeError(f"attempt {task.attempt} stumbles")
        case "snooze":
            raise Snooze(timedelta(milliseconds=50))
        case "reject":
            raise Reject("never")
        case result:
            return result


def trial_hang(task: Task) -> Json:
    """Its effect is a transaction of its own: at least once. The first attempt never ends by itself."""
    with psycopg.connect(CONNINFO, autocommit=True) as outside:
        outside.execute("insert into trial_effect values (%s, %s)", (task.id, task.attempt))
    if task.attempt == 1:
        hang()
    return task.attempt


def trial_between(task: Task, connection: Connection) -> Json:
    """Its effect is in the worker's transaction: exactly once. The first attempt stays between effect and complete."""
    connection.execute("insert into trial_effect values (%s, %s)", (task.id, task.attempt))
    if task.attempt == 1:
        print("effect done", file=sys.stderr, flush=True)
        hang()
    return task.attempt


def trial_slow(task: Task) -> Json:
    """Works for so many seconds, and listens."""
    end = time.monotonic() + task.payload
    while time.monotonic() < end:
        task.check()
        time.sleep(0.02)
    return "slept"


def trial_deaf(task: Task) -> Json:
    """Works for so many seconds in the first attempt, and does not listen."""
    time.sleep(task.payload if task.attempt == 1 else 0)
    return task.attempt


def trial_settled(task: Task, connection: Connection) -> Json:
    connection.execute("insert into trial_effect values (%s, %s)", (task.id, task.attempt))
    return task.attempt


logging.basicConfig(level=logging.INFO, format="%(message)s")
Worker(
    CONNINFO,
    at_least_once={handler.__name__: handler for handler in (trial_stumble, trial_hang, trial_slow, trial_deaf)},
    exactly_once={handler.__name__: handler for handler in (trial_between, trial_settled)},
    queues=[QUEUE],
    lease=timedelta(seconds=float(LEASE_S)),
    pause=timedelta(milliseconds=50),
).run()
