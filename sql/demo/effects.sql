-- Whether what the tasks say is there: mails, restocked articles, shipped orders.
select (select count(*) from shop.mail_log) as mails, (select count(*) from shop.orders where status = 'shipped') as shipped,
    (select count(*) from rowbeat.fire where schedule = 'restock_often' and task_id is not null) as fires
