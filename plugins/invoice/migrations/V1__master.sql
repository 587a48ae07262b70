-- Masters: products, denominations of cash, customers.

create table invoice.product (
    id           bigint generated always as identity primary key,
    name         varchar(200) not null,
    code         varchar(50) not null,
    price        numeric(10, 2) not null,
    stock        integer not null default 0,
    tax_percent  numeric(5, 2) not null default 0,
    is_enabled   boolean not null default true,
    created_at   timestamptz not null default rowbeat.now_(),
    constraint product_code_once unique (code),
    constraint product_price_not_negative check (price >= 0),
    constraint product_stock_not_negative check (stock >= 0),
    constraint product_tax_not_negative check (tax_percent >= 0)
);
comment on table invoice.product is 'What is sold.';
comment on column invoice.product.price is 'Of one piece, without tax.';
comment on column invoice.product.stock is 'How many are there.';
comment on column invoice.product.tax_percent is 'Tax on the price, in percent.';
comment on column invoice.product.is_enabled is 'Whether it can be sold.';

create table invoice.denomination (
    id          bigint generated always as identity primary key,
    value       integer not null,
    is_enabled  boolean not null default true,
    created_at  timestamptz not null default rowbeat.now_(),
    constraint denomination_value_once unique (value),
    constraint denomination_value_positive check (value > 0)
);
comment on table invoice.denomination is 'Notes and coins.';
comment on column invoice.denomination.is_enabled is 'Whether it is taken and given as change.';

create table invoice.customer (
    id          bigint generated always as identity primary key,
    name        varchar(200) not null,
    email       text not null,
    is_enabled  boolean not null default true,
    created_at  timestamptz not null default rowbeat.now_(),
    constraint customer_email_once unique (email),
    constraint customer_email_lower check (email = lower(email))
);
comment on table invoice.customer is 'Customers, one for each address of mail.';
comment on column invoice.customer.email is 'In small letters.';
comment on column invoice.customer.is_enabled is 'Whether anything is sold to them.';

-- Seeded once; the command seed-denominations does it again.
insert into invoice.denomination (value) values (500), (200), (100), (50), (20), (10), (5), (2), (1);
