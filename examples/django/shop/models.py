from django.db import models


class Order(models.Model):
    customer = models.TextField()
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    status = models.TextField(default="new")
