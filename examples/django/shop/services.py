from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from django.db import transaction

import rowbeat
from shop.models import Order


def place_order(customer: str, amount: Decimal) -> Order:
    """The order and the task that charges it are committed together; when something raises, neither is there."""
    with transaction.atomic():
        order = Order.objects.create(customer=customer, amount=amount)
        rowbeat.enqueue("charge_order", {"order": order.pk}, unique_key=f"order-{order.pk}")
    return order


def plan_shipping(order: Order, at: datetime | None = None) -> int:
    """Ships at a time, or now; the orders of a customer one after the other."""
    return rowbeat.enqueue("ship_order", {"order": order.pk}, run_at=at, serial_key=f"shipping to {order.customer}")
