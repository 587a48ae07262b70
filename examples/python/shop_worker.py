"""The shop's worker: charges orders exactly once and sends receipts at least once. DATABASE_URL says where the database is."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from rowbeat_worker import Connection, Json, Reject, Task, Worker

OUTBOX = Path(os.environ.get("OUTBOX", "outbox"))


def charge_order(task: Task, connection: Connection) -> Json:
    """The payment, the order's new status, the next task and the record of success are one transaction."""
    order = task.payload["order"]
    paid = "update shop_order set status = 'paid' where id = %s and status = 'new' returning customer, amount"
    row = connection.execute(paid, (order,)).fetchone()
    if row is None:
        raise Reject(f"there is no new order {order}")
    customer, amount = row
    connection.execute("insert into shop_payment (order_id, amount) values (%s, %s)", (order, amount))
    connection.execute(
        "select rowbeat.enqueue('send_receipt', jsonb_build_object('customer', %s::text, 'amount', %s::text))",
        (customer, str(amount)),
    )
    return {"charged": str(amount)}


def send_receipt(task: Task) -> Json:
    """Outside the database nothing is exactly once, so the task's id names the receipt: a second attempt replaces the first one's."""
    receipt = OUTBOX / f"receipt-{task.id}.txt"
    unfinished = receipt.with_suffix(".part")
    unfinished.write_text(f"{task.payload['customer']} paid {task.payload['amount']}\n", encoding="utf-8")
    unfinished.replace(receipt)
    return {"receipt": receipt.name}


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    OUTBOX.mkdir(parents=True, exist_ok=True)
    Worker(
        os.environ.get("DATABASE_URL", ""),
        exactly_once={"charge_order": charge_order},
        at_least_once={"send_receipt": send_receipt},
    ).run()


if __name__ == "__main__":
    main()
