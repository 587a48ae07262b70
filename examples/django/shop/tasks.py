"""What `manage.py work` performs: each handler runs in the transaction that records its success, so exactly once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shop.models import Order


def ship_order(payload: dict[str, Any]) -> dict[str, Any]:
    order = Order.objects.select_for_update().get(pk=payload["order"])
    if order.status != "paid":
        raise ValueError(f"order {order.pk} is {order.status}, not paid")
    order.status = "shipped"
    order.save(update_fields=["status"])
    return {"shipped_to": order.customer}


HANDLERS: dict[str, Callable[[dict[str, Any]], Any]] = {"ship_order": ship_order}
