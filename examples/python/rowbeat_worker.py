"""A rowbeat worker: performs tasks of definitions with executor 'external', by SQL alone.

It claims one task at a time, so a task that takes the process down takes nothing else with it; run as many processes as needed.
The main thread works; while it does, a second thread on a connection of its own prolongs the claim and hears of cancellation.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

log = logging.getLogger("rowbeat")

Json = Any
Connection = psycopg.Connection[Any]


class Reject(Exception):
    """Raised by a handler: trying again is useless, the task has failed for good."""


class Snooze(Exception):
    """Raised by a handler: try again after this pause; the attempt does not count."""

    def __init__(self, pause: timedelta) -> None:
        super().__init__(f"put off for {pause}")
        self.pause = pause


class Stopped(Exception):
    """Raised by Task.check: the task is cancelled, has taken too long, or is somebody else's by now."""


class ClaimLost(Exception):
    """RB003: somebody else ended the task or has it by now. There is nothing to record."""


class SettleRefused(Exception):
    """The task's settle function raised, so what the handler did must be rolled back."""


@dataclass
class Task:
    """A claimed task. (id, attempt) is the claim: every write names both. The id is the idempotency key of its effects."""

    id: int
    attempt: int
    definition: str
    payload: Json
    cause: Json
    timeout: timedelta
    _stopped: str | None = field(default=None, init=False)

    def check(self) -> None:
        """Long handlers call it between their steps; it raises when there is no point in going on."""
        if self._stopped:
            raise Stopped(self._stopped)

    def stop(self, why: str) -> None:
        self._stopped = self._stopped or why


CLAIM: LiteralString = """
    select id, attempt, definition, payload, cause, timeout
    from rowbeat.claim(%(worker)s, p_definitions => %(definitions)s, p_queues => %(queues)s, p_lease => %(lease)s)
"""
HEARTBEAT: LiteralString = "select rowbeat.heartbeat(%(id)s, %(attempt)s, %(lease)s)"
COMPLETE: LiteralString = "select rowbeat.complete(%(id)s, %(attempt)s, %(result)s)"
FAIL: LiteralString = "select rowbeat.fail(%(id)s, %(attempt)s, %(error)s, p_for_good => %(for_good)s)"
SNOOZE: LiteralString = "select rowbeat.snooze(%(id)s, %(attempt)s, %(pause)s)"

#: At least once: returns the result. For effects outside the database.
Handler = Callable[[Task], Json]
#: Exactly once: what it does on this connection, and that the task is completed, are one transaction. It must not commit.
TransactionHandler = Callable[[Task, Connection], Json]


class Worker:
    """Performs the tasks of the definitions it has handlers for, until it is told to stop."""

    def __init__(
        self,
        conninfo: str,
        *,
        at_least_once: Mapping[str, Handler] | None = None,
        exactly_once: Mapping[str, TransactionHandler] | None = None,
        queues: list[str] | None = None,
        lease: timedelta = timedelta(minutes=1),
        pause: timedelta = timedelta(seconds=1),
    ) -> None:
        self.conninfo = conninfo
        self.name = f"{socket.gethostname()}/{os.getpid()}"
        self.at_least_once = dict(at_least_once or {})
        self.exactly_once = dict(exactly_once or {})
        self.queues = queues or ["*"]
        self.lease = lease
        self.pause = pause.total_seconds()
        self.stopping = threading.Event()
        self._connection: Connection | None = None

    def run(self) -> None:
        """Works until SIGTERM or SIGINT; the task in hand is finished first. A second signal ends the process at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        log.info("worker %s is ready", self.name)
        while not self.stopping.is_set():
            try:
                worked = self.run_once()
            except psycopg.OperationalError as error:
                log.warning("the database is away: %s", error)
                worked = False
            if not worked:
                self.stopping.wait(self.pause)
        log.info("worker %s has stopped", self.name)

    def run_once(self) -> bool:
        """Claims and performs one task; False when none is due."""
        task = self._claim()
        if task is None:
            return False
        try:
            with self._kept_alive(task):
                self._perform(task)
        except ClaimLost:
            log.warning("task %s: attempt %s has lost its claim", task.id, task.attempt)
        return True

    def _on_signal(self, number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        self.stopping.set()

    def _claim(self) -> Task | None:
        # In autocommit the claim is committed before work begins: others see it, and a crash leaves it to the lease.
        cursor = self._connected().cursor(row_factory=class_row(Task))
        definitions = [*self.at_least_once, *self.exactly_once]
        cursor.execute(CLAIM, {"worker": self.name, "definitions": definitions, "queues": self.queues, "lease": self.lease})
        return cursor.fetchone()

    def _perform(self, task: Task) -> None:
        try:
            if task.definition in self.exactly_once:
                self._perform_in_transaction(task)
            else:
                result = self.at_least_once[task.definition](task)
                self._record(COMPLETE, task, result=Jsonb(result))
        except ClaimLost:
            raise
        except Snooze as snooze:
            self._record(SNOOZE, task, pause=snooze.pause)
        except Exception as error:
            # Also a connection that broke: if the transaction had been committed, `fail` is refused with RB003.
            log.warning("task %s: attempt %s failed: %s", task.id, task.attempt, error)
            document = {"message": str(error), "type": type(error).__name__}
            self._record(FAIL, task, error=Jsonb(document), for_good=isinstance(error, Reject))

    def _perform_in_transaction(self, task: Task) -> None:
        connection = self._connected()
        with connection.transaction():
            result = self.exactly_once[task.definition](task, connection)
            task.check()
            if _end(connection, COMPLETE, task, result=Jsonb(result)) != "completed":
                raise SettleRefused("the settle function raised")

    def _record(self, statement: LiteralString, task: Task, **arguments: object) -> None:
        """Ends the attempt, however long the database is away: if the first answer was lost, the second is RB003."""
        while True:
            try:
                state = _end(self._connected(), statement, task, **arguments)
                log.info("task %s: attempt %s has ended, the task is %s", task.id, task.attempt, state)
                return
            except psycopg.OperationalError as error:
                if self.stopping.wait(self.pause):
                    raise
                log.warning("task %s: its ending is not recorded yet: %s", task.id, error)

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self.conninfo, autocommit=True, application_name=self.name)
        return self._connection

    @contextmanager
    def _kept_alive(self, task: Task) -> Iterator[None]:
        over = threading.Event()
        thread = threading.Thread(target=self._keep_alive, args=(task, over), name=f"heartbeat of task {task.id}")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _keep_alive(self, task: Task, over: threading.Event) -> None:
        deadline = time.monotonic() + task.timeout.total_seconds()
        connection: Connection | None = None
        while not over.wait(min(self.lease.total_seconds() / 3, max(deadline - time.monotonic(), 0))):
            if time.monotonic() >= deadline:
                # No more heartbeats: a handler that does not listen loses its claim, and cannot record anything any more.
                task.stop(f"it took longer than {task.timeout}")
                break
            try:
                if connection is None or connection.closed:
                    connection = psycopg.connect(self.conninfo, autocommit=True, application_name=self.name)
                claim = {"id": task.id, "attempt": task.attempt, "lease": self.lease}
                row = connection.execute(HEARTBEAT, claim).fetchone()
                if row and row[0]:
                    task.stop("it was cancelled")
            except psycopg.OperationalError as error:
                log.warning("task %s: no heartbeat: %s", task.id, error)
            except psycopg.Error as error:
                # RB003; also when the main thread ended the attempt a moment ago, and then it does not matter.
                task.stop(str(error))
                break
        if connection is not None:
            connection.close()


def _end(connection: Connection, statement: LiteralString, task: Task, **arguments: object) -> str:
    """Ends the attempt; the state the task is in then."""
    try:
        row = connection.execute(statement, {"id": task.id, "attempt": task.attempt, **arguments}).fetchone()
    except psycopg.Error as error:
        if error.sqlstate == "RB003":
            raise ClaimLost from error
        raise
    assert row is not None
    return str(row[0])
