-- Invoices: copies of everything that a later edit of a master must not change.

create table invoice.invoice (
    id                bigint generated always as identity primary key,
    customer_name     varchar(200) not null,
    customer_email    text not null,
    gross_amount      numeric(12, 2) not null default 0.00,
    tax_amount        numeric(12, 2) not null default 0.00,
    net_amount        numeric(12, 2) not null default 0.00,
    rounded_payable   numeric(12, 2) not null default 0.00,
    paid_amount       numeric(12, 2) not null default 0.00,
    balance_amount    numeric(12, 2) not null default 0.00,
    received_denoms   jsonb not null default '{}',
    change_denoms     jsonb not null default '{}',
    email_sent        boolean not null default false,
    email_fail_count  integer not null default 0,
    email_last_error  text not null default '',
    email_claim       bigint,
    email_task        bigint,
    created_at        timestamptz not null default rowbeat.now_()
);
create index invoice_customer_email on invoice.invoice (customer_email);
create index invoice_created on invoice.invoice (created_at desc, id desc);
create index invoice_to_requeue on invoice.invoice (id) where not email_sent and email_last_error like 'Queue error:%';
comment on table invoice.invoice is 'Invoices.';
comment on column invoice.invoice.customer_name is 'As it was at the sale; likewise the address.';
comment on column invoice.invoice.gross_amount is 'Sum of the lines without tax.';
comment on column invoice.invoice.rounded_payable is 'The net amount without the part of a whole unit.';
comment on column invoice.invoice.received_denoms is 'How many of each enabled denomination were counted.';
comment on column invoice.invoice.change_denoms is 'The change; what cannot be paid out is remaining.';
comment on column invoice.invoice.email_fail_count is 'How often its mail could not be sent or queued.';
comment on column invoice.invoice.email_last_error is 'Why, the last time; empty once it was sent.';
comment on column invoice.invoice.email_claim is 'The task that is sending its mail now.';
comment on column invoice.invoice.email_task is 'The task that its mail was enqueued as last.';

create table invoice.invoice_item (
    id             bigint generated always as identity primary key,
    invoice_id     bigint not null references invoice.invoice (id) on delete cascade,
    product_id     bigint not null references invoice.product (id) on delete restrict,
    product_name   varchar(200) not null,
    product_code   varchar(50) not null,
    unit_price     numeric(10, 2) not null,
    tax_percent    numeric(5, 2) not null,
    quantity       integer not null,
    line_subtotal  numeric(12, 2) not null,
    line_tax       numeric(12, 2) not null,
    line_total     numeric(12, 2) not null,
    constraint invoice_item_product_once unique (invoice_id, product_id),
    constraint invoice_item_quantity_positive check (quantity > 0)
);
create index invoice_item_product on invoice.invoice_item (product_id);
comment on table invoice.invoice_item is 'Lines of invoices, in order of their ids.';
comment on column invoice.invoice_item.product_name is 'As it was at the sale; likewise code, price and tax.';

create table invoice.customer_name_change (
    id           bigint generated always as identity primary key,
    customer_id  bigint references invoice.customer (id) on delete set null,
    old_name     varchar(200) not null,
    new_name     varchar(200) not null,
    invoice_id   bigint references invoice.invoice (id) on delete set null,
    at           timestamptz not null default rowbeat.now_()
);
create index customer_name_change_customer on invoice.customer_name_change (customer_id);
create index customer_name_change_invoice on invoice.customer_name_change (invoice_id);
comment on table invoice.customer_name_change is 'Customers that were renamed, and by which invoice.';
comment on column invoice.customer_name_change.invoice_id is 'Null: by the form, or that invoice is gone.';

-- A line as it is computed, before it is known to fit its columns.
create type invoice.priced_line as (
    product_id bigint, product_name text, product_code text, unit_price numeric, tax_percent numeric, quantity bigint,
    line_subtotal numeric, line_tax numeric, line_total numeric
);
comment on type invoice.priced_line is 'A computed line of an invoice.';
