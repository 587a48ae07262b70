-- The shop of `rowbeat demo`: orders, stock and a mail log; one watch, one schedule, one SQL task.
create schema shop;

create table shop.stock (
    article   text primary key,
    pieces    integer not null
);
create table shop.orders (
    id        bigint generated always as identity primary key,
    customer  text not null,
    article   text not null references shop.stock,
    status    text not null default 'new'
);
create table shop.mail_log (
    id        bigint generated always as identity primary key,
    order_id  bigint not null,
    text      text not null,
    at        timestamptz not null default clock_timestamp()
);
insert into shop.stock values ('lamp', 3), ('chair', 2), ('table', 1);

-- For each change of an order: a line to its customer.
create function shop.tell_customer(payload jsonb) returns jsonb language sql as $$
    insert into shop.mail_log (order_id, text)
    select (o ->> 'id')::bigint, format('%s, your %s is %s', o ->> 'customer', o ->> 'article', o ->> 'status')
    from (select payload -> 'new') n (o)
    returning jsonb_build_object('mail', text)
$$;

-- By schedule: what is low is ordered.
create function shop.restock(payload jsonb) returns jsonb language sql as $$
    with low as (
        update shop.stock set pieces = pieces + 5 where pieces < 3 returning article
    )
    select jsonb_build_object('restocked', coalesce(jsonb_agg(article order by article), '[]')) from low
$$;

-- On demand: one order is shipped.
create function shop.ship(payload jsonb) returns jsonb language plpgsql as $$
declare
    v_order shop.orders;
begin
    update shop.orders set status = 'shipped' where id = (payload ->> 'order')::bigint returning * into strict v_order;
    update shop.stock set pieces = pieces - 1 where article = v_order.article;
    return jsonb_build_object('shipped', v_order.article, 'to', v_order.customer);
end $$;

insert into rowbeat.task_definition (name, executor, function) values
    ('tell_customer', 'sql', 'shop.tell_customer'),
    ('restock', 'sql', 'shop.restock'),
    ('ship', 'sql', 'shop.ship');

insert into rowbeat.watch (name, table_name, operations, definition)
values ('order_changed', 'shop.orders', '{update}', 'tell_customer');

insert into rowbeat.schedule (name, spec, definition, start_at)
values ('restock_often', 'every 2 seconds', 'restock', now());
