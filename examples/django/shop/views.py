import json
from decimal import Decimal

from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_GET, require_POST

from shop.models import Order
from shop.services import place_order


@require_POST
def orders(request: HttpRequest) -> JsonResponse:
    wish = json.loads(request.body)
    order = place_order(wish["customer"], Decimal(wish["amount"]))
    return JsonResponse({"order": order.pk}, status=201)


@require_GET
def order(request: HttpRequest, pk: int) -> JsonResponse:
    found = get_object_or_404(Order, pk=pk)
    return JsonResponse({"order": found.pk, "status": found.status})
