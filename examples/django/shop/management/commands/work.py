"""A worker inside Django: handlers use models, and each one's transaction also records that its task is completed.

It sends no heartbeats, so the lease must be longer than any handler takes; `examples/python` has a worker that does.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DatabaseError, OperationalError, connection, transaction

import rowbeat
from shop.tasks import HANDLERS

LEASE = timedelta(minutes=5)
PAUSE_S = 1.0


class Command(BaseCommand):
    help = "Performs the shop's tasks until SIGTERM; the task in hand is finished first."

    def handle(self, *_args: Any, **_options: Any) -> None:
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        worker = f"{socket.gethostname()}/{os.getpid()}"
        while not stopping.is_set():
            try:
                task = rowbeat.claim(worker, list(HANDLERS), LEASE)
                if task is not None:
                    self.perform(task)
                    continue
            except OperationalError as error:
                self.stderr.write(f"the database is away: {error}")
                connection.close()
            stopping.wait(PAUSE_S)

    def perform(self, task: rowbeat.Task) -> None:
        try:
            try:
                with transaction.atomic():
                    result = HANDLERS[task.definition](task.payload)
                    if rowbeat.complete(task, result) != "completed":
                        raise RuntimeError("the settle function raised")
            except Exception as error:
                if rowbeat.is_stale(error):
                    raise
                connection.close_if_unusable_or_obsolete()
                rowbeat.fail(task, str(error))
        except DatabaseError as error:
            if not rowbeat.is_stale(error):
                raise
            self.stderr.write(f"task {task.id}: attempt {task.attempt} has lost its claim")
