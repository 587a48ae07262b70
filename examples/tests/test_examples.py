"""The examples against the real thing: a private server, a daemon, worker processes that are killed. Run by examples/test.sh."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import django
import psycopg
import rowbeat
from django.db import DatabaseError, connection, transaction
from django.test import Client

HERE = Path(__file__).resolve().parent
PYTHON, DJANGO = HERE.parent / "python", HERE.parent / "django"
ROWBEAT = os.environ["ROWBEAT"]
PATIENCE_S = 60.0

TRIALS = """
    create table trial_effect (task bigint, attempt integer);
    create function trial_settle(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb language plpgsql as $$ begin
        if outcome -> 'result' = '1' then raise exception 'not the first'; end if; return null; end $$;
    insert into rowbeat.task_definition (name, executor, backoff, timeout, settle_function) values
        ('trial_stumble', 'external', '50 ms', '1 minute', null), ('trial_hang', 'external', '50 ms', '1 minute', null),
        ('trial_between', 'external', '50 ms', '1 minute', null), ('trial_slow', 'external', '50 ms', '1 minute', null),
        ('trial_deaf', 'external', '50 ms', '1 minute', null), ('trial_settled', 'external', '50 ms', '1 minute', 'public.trial_settle')
"""


class Process:
    """A child whose standard error is kept; killed at the end."""

    def __init__(self, *command: str, **variables: str) -> None:
        self.child = subprocess.Popen(
            command, env=os.environ | variables, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.log: list[str] = []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.child.stderr is not None
        self.log.extend(iter(self.child.stderr.readline, ""))

    def says(self, text: str) -> None:
        until(lambda: any(text in line for line in list(self.log)), f"it never said {text!r}", self)

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def ended(self) -> int:
        code = self.child.wait(PATIENCE_S)
        self.reader.join()
        return code

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        self.reader.join()
        assert self.child.stderr is not None
        self.child.stderr.close()


def until(holds: Callable[[], Any], complaint: str, *shown: Process) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise AssertionError("\n".join([complaint, *("".join(process.log) for process in shown)]))
        time.sleep(0.02)
    return found


def setUpModule() -> None:
    """One server, database and daemon for all."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
    # The server ends when its standard input does, so with this process at the latest.
    command = [ROWBEAT, "postgres", "--temporary", "--fast"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    unittest.addModuleCleanup(server.communicate)
    assert server.stdout is not None
    where = json.loads(server.stdout.readline())
    at = f"host={where['socket']}&port={where['port']}&user=postgres"
    with psycopg.connect(f"postgresql:///postgres?{at}", autocommit=True) as admin:
        admin.execute("create database shop")
    os.environ["DATABASE_URL"] = f"postgresql:///shop?{at}"
    os.environ["XDG_STATE_HOME"] = unittest.enterModuleContext(tempfile.TemporaryDirectory())
    os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
    subprocess.run([ROWBEAT, "migrate"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([sys.executable, DJANGO / "manage.py", "migrate", "--verbosity", "0"], check=True)
    subprocess.run([sys.executable, DJANGO / "manage.py", "makemigrations", "--check", "--verbosity", "0"], check=True)
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as setup:
        setup.execute(TRIALS)
    daemon = Process(ROWBEAT, "start", "--http", "off")
    unittest.addModuleCleanup(daemon.close)
    daemon.says("registered")
    django.setup()
    unittest.addModuleCleanup(connection.close)


class Examples(unittest.TestCase):
    """Each test has a queue of its own, so workers of one do not see tasks of another."""

    def setUp(self) -> None:
        self.url = os.environ["DATABASE_URL"]
        self.database: psycopg.Connection[Any] = self.enterContext(psycopg.connect(self.url, autocommit=True))

    def get(self, sql: str, *values: Any) -> Any:
        row = self.database.execute(sql, values).fetchone()
        return row and row[0]

    def task(self, id: int) -> tuple[str, int, int, Any, Any]:
        row = self.database.execute(
            "select state, attempt, failures, result, error ->> 'message' from rowbeat.tasks where id = %s", (id,)
        ).fetchone()
        assert row is not None
        return row

    def until_state(self, id: int, state: str, *shown: Process) -> tuple[int, int, Any, Any]:
        until(lambda: self.task(id)[0] == state, f"task {id} is never {state}: {self.task(id)}", *shown)
        return self.task(id)[1:]

    def effects(self, id: int) -> list[int]:
        return [row[0] for row in self.database.execute("select attempt from trial_effect where task = %s order by 1", (id,))]

    def enqueue(self, definition: str, payload: Any = None) -> int:
        sql = "select rowbeat.enqueue(%s, %s::jsonb, p_queue => %s)"
        return int(self.get(sql, definition, json.dumps(payload), self._testMethodName))

    def worker(self, lease_s: float = 2) -> Process:
        script = HERE / "trial_worker.py"
        worker = self.process(sys.executable, str(script), self.url, self._testMethodName, str(lease_s))
        worker.says("is ready")
        return worker

    def process(self, *command: str, **variables: str) -> Process:
        process = Process(*command, **variables)
        self.addCleanup(process.close)
        return process


class Django(Examples):
    def test_an_order_placed_over_http_is_charged_by_the_python_worker_and_shipped_by_djangos(self) -> None:
        from shop.models import Order
        from shop.services import plan_shipping

        outbox = self.enterContext(tempfile.TemporaryDirectory())
        wish = {"customer": "alice", "amount": "12.50"}
        answer = Client().post("/orders", wish, content_type="application/json", SERVER_NAME="localhost")
        self.assertEqual(answer.status_code, 201)
        order = Order.objects.get(pk=answer.json()["order"])
        python = self.process(sys.executable, str(PYTHON / "shop_worker.py"), OUTBOX=outbox)
        receipt = until(lambda: list(Path(outbox).glob("*.txt")), "no receipt is ever written", python)[0]
        self.assertEqual(receipt.read_text(), "alice paid 12.50\n")
        paid = Client().get(f"/orders/{order.pk}", SERVER_NAME="localhost").json()
        self.assertEqual(paid, {"order": order.pk, "status": "paid"})
        self.assertEqual(self.get("select amount from shop_payment where order_id = %s", order.pk), Decimal("12.50"))
        task = plan_shipping(order)
        django = self.process(sys.executable, str(DJANGO / "manage.py"), "work")
        self.assertEqual(self.until_state(task, "completed", django)[2], {"shipped_to": "alice"})
        order.refresh_from_db()
        self.assertEqual(order.status, "shipped")
        again = plan_shipping(order)
        until(lambda: self.task(again)[2] == 1, "its handler never raised", django)
        self.assertEqual(self.task(again)[4], f"order {order.pk} is shipped, not paid")
        for worker in (python, django):
            worker.signal(signal.SIGTERM)
            self.assertEqual(worker.ended(), 0, worker.log)

    def test_a_rolled_back_transaction_leaves_neither_order_nor_task(self) -> None:
        # Models can be imported once Django is set up.
        from shop.models import Order
        from shop.services import place_order

        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            place_order("bob", Decimal("1"))
            raise ZeroDivisionError
        self.assertFalse(Order.objects.filter(customer="bob").exists())
        self.assertEqual(
            self.get("select count(*) from rowbeat.tasks where definition = 'charge_order' and state <> 'completed'"), 0
        )

    def test_what_enqueue_is_told_is_in_the_task(self) -> None:
        at = datetime(2100, 1, 2, 3, 4, 5, tzinfo=UTC)
        wishes: dict[str, Any] = {"queue": "q", "priority": 7, "max_attempts": 2, "timeout": timedelta(seconds=9)}
        id = rowbeat.enqueue(
            "trial_slow", {"price": Decimal("1.5"), "at": at}, run_at=at, unique_key="u", serial_key="s", **wishes
        )
        row = self.database.execute(
            "select payload, run_at, unique_key, serial_key, queue, priority, max_attempts, timeout from rowbeat.task where id = %s",
            (id,),
        ).fetchone()
        self.assertEqual(row, ({"price": "1.5", "at": "2100-01-02T03:04:05Z"}, at, "u", "s", *wishes.values()))
        later = at + timedelta(days=1)
        same = rowbeat.enqueue("trial_slow", run_at=later, unique_key="u", replace=["run_at"], unique_for=timedelta(hours=1))
        self.assertEqual((same, self.get("select run_at from rowbeat.task where id = %s", id)), (id, later))

    def test_a_stale_ending_is_told_from_other_errors(self) -> None:
        id = rowbeat.enqueue("ship_order", {}, priority=0)
        task = rowbeat.claim("by hand", ["ship_order"], timedelta(minutes=1))
        assert task is not None
        self.assertEqual(task, rowbeat.Task(id, 1, "ship_order", {}))
        self.assertEqual(rowbeat.complete(task), "completed")
        with self.assertRaises(DatabaseError) as stale:
            rowbeat.complete(task)
        self.assertTrue(rowbeat.is_stale(stale.exception))
        with self.assertRaises(DatabaseError) as other, connection.cursor() as cursor:
            cursor.execute("select 1 / 0")
        self.assertFalse(rowbeat.is_stale(other.exception))


class Python(Examples):
    def test_a_failing_handler_is_retried_a_rejecting_one_is_not_and_a_snooze_does_not_count(self) -> None:
        stumbles = self.enqueue("trial_stumble", ["raise", "raise", {"fine": 1}])
        snoozes = self.enqueue("trial_stumble", ["snooze", "snooze", "snooze", 7])
        rejects = self.enqueue("trial_stumble", ["raise", "reject"])
        worker = self.worker()
        self.assertEqual(self.until_state(stumbles, "completed", worker), (3, 2, {"fine": 1}, None))
        self.assertEqual(self.until_state(snoozes, "completed", worker), (4, 0, 7, None))
        self.assertEqual(self.until_state(rejects, "failed", worker), (2, 2, None, "never"))

    def test_a_killed_workers_task_is_claimed_by_another_after_its_lease(self) -> None:
        task = self.enqueue("trial_hang")
        victim = self.worker(lease_s=1)
        until(lambda: self.effects(task), "it never begins", victim)
        other = self.worker()
        victim.signal(signal.SIGKILL)
        self.assertEqual(victim.ended(), -signal.SIGKILL)
        self.assertEqual(self.until_state(task, "completed", other), (2, 1, 2, None))
        self.assertEqual(self.effects(task), [1, 2], "outside the worker's transaction: at least once")
        self.assertEqual(self.get("select outcome from rowbeat.attempt where task_id = %s", task), "lost")

    def test_a_kill_between_effect_and_complete_leaves_exactly_one_effect(self) -> None:
        task = self.enqueue("trial_between")
        victim = self.worker(lease_s=1)
        victim.says("effect done")
        other = self.worker()
        victim.signal(signal.SIGKILL)
        victim.ended()
        self.assertEqual(self.until_state(task, "completed", other), (2, 1, 2, None))
        self.assertEqual(self.effects(task), [2])

    def test_a_worker_that_comes_back_after_its_lease_is_refused_and_goes_on(self) -> None:
        task = self.enqueue("trial_deaf", 1)
        frozen = self.worker(lease_s=1)
        self.until_state(task, "running", frozen)
        frozen.signal(signal.SIGSTOP)
        other = self.worker()
        self.assertEqual(self.until_state(task, "completed", other), (2, 1, 2, None))
        other.signal(signal.SIGTERM)
        self.assertEqual(other.ended(), 0)
        frozen.signal(signal.SIGCONT)
        frozen.says("attempt 1 has lost its claim")
        self.until_state(self.enqueue("trial_slow", 0), "completed", frozen)
        self.assertEqual(self.task(task)[3], 2)

    def test_heartbeats_keep_a_task_that_takes_longer_than_the_lease(self) -> None:
        task = self.enqueue("trial_slow", 5)
        # Daemons look every three seconds.
        worker = self.worker(lease_s=1)
        self.assertEqual(self.until_state(task, "completed", worker), (1, 0, "slept", None))

    def test_a_cancelled_task_is_stopped(self) -> None:
        task = self.enqueue("trial_slow", 600)
        worker = self.worker(lease_s=1)
        self.until_state(task, "running", worker)
        self.assertEqual(self.get("select rowbeat.cancel(%s)", task), "cancelling")
        self.assertEqual(self.until_state(task, "cancelled", worker)[3], "it was cancelled")

    def test_a_task_that_takes_too_long_is_stopped(self) -> None:
        task = self.enqueue("trial_slow", 600)
        self.database.execute("update rowbeat.task set timeout = '300 ms', max_attempts = 1 where id = %s", (task,))
        worker = self.worker()
        self.assertIn("took longer than 0:00:00.3", self.until_state(task, "failed", worker)[3])

    def test_sigterm_finishes_the_task_in_hand_and_claims_no_more(self) -> None:
        first = self.enqueue("trial_slow", 1)
        second = self.enqueue("trial_slow", 0)
        worker = self.worker()
        self.until_state(first, "running", worker)
        worker.signal(signal.SIGTERM)
        self.assertEqual(worker.ended(), 0, worker.log)
        self.assertEqual(self.task(first)[:2], ("completed", 1))
        self.assertEqual(self.task(second)[:2], ("available", 0))

    def test_a_settle_function_that_raises_takes_the_effect_back(self) -> None:
        task = self.enqueue("trial_settled")
        worker = self.worker()
        self.assertEqual(self.until_state(task, "completed", worker)[:2], (2, 1))
        self.assertEqual(self.effects(task), [2])

    def test_a_worker_goes_on_when_its_sessions_were_ended(self) -> None:
        worker = self.worker()
        self.until_state(self.enqueue("trial_slow", 0), "completed", worker)
        ended = self.get(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like %s",
            f"%/{worker.child.pid}",
        )
        self.assertGreaterEqual(ended, 1)
        self.until_state(self.enqueue("trial_slow", 0), "completed", worker)


del Examples  # a base, without tests of its own

if __name__ == "__main__":
    unittest.main(verbosity=2)
