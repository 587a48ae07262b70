"""The shop's tables, and the definitions of its tasks. The schema of rowbeat itself comes from `rowbeat migrate`."""

from django.db import migrations, models

DEFINITIONS = """
    insert into rowbeat.task_definition (name, executor, timeout, description) values
        ('charge_order', 'external', '1 minute', 'examples/python: exactly once'),
        ('send_receipt', 'external', '1 minute', 'examples/python: at least once'),
        ('ship_order', 'external', '1 minute', 'examples/django: manage.py work')
    on conflict (name) do nothing;
"""
NO_DEFINITIONS = "delete from rowbeat.task_definition where name in ('charge_order', 'send_receipt', 'ship_order')"


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("customer", models.TextField()),
                ("amount", models.DecimalField(max_digits=12, decimal_places=2)),
                ("status", models.TextField(default="new")),
            ],
        ),
        # Written by the Python worker only: no model.
        migrations.RunSQL(
            "create table shop_payment (id bigint generated always as identity primary key,"
            " order_id bigint not null references shop_order, amount numeric not null)",
            "drop table shop_payment",
        ),
        migrations.RunSQL(DEFINITIONS, NO_DEFINITIONS),
    ]
