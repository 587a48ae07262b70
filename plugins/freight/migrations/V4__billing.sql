-- Shipments and their way through the billing queue into the history.

create table freight.shipment (
    id                       uuid primary key default gen_random_uuid(),
    organization_id          uuid not null references freight.organization (id) on delete cascade,
    pro_number               varchar(40) not null,
    status                   text not null default 'N',
    customer_id              uuid not null references freight.customer (id),
    order_type               text,
    revenue_code             text,
    commodity                text,
    bol_number               text,
    primary_worker           text,
    pieces                   integer,
    weight                   numeric(10, 2),
    mileage                  numeric(10, 2),
    freight_charge_amount    numeric(19, 4) not null default 0,
    other_charge_amount      numeric(19, 4) not null default 0,
    total_amount             numeric(19, 4) not null default 0,
    ready_to_bill            boolean not null default false,
    billed                   boolean not null default false,
    transferred_to_billing   boolean not null default false,
    bill_date                timestamptz,
    billing_transfer_date    timestamptz,
    created_at               timestamptz not null,
    updated_at               timestamptz not null,
    constraint shipment_status_known check (status in ('N', 'P', 'C', 'H', 'B', 'V')),
    constraint shipment_pro_number_once unique (organization_id, pro_number)
);
create index shipment_to_transfer on freight.shipment (organization_id) where not billed and not transferred_to_billing;
comment on table freight.shipment is 'Shipments.';
comment on column freight.shipment.status is 'New, in Progress, Completed, Hold, Billed, Void.';

create table freight.shipment_document (
    shipment_id        uuid not null references freight.shipment (id) on delete cascade,
    document_class_id  uuid not null references freight.document_class (id) on delete cascade,
    primary key (shipment_id, document_class_id)
);
comment on table freight.shipment_document is 'Documents that a shipment has.';

create table freight.billing_control (
    id                                uuid primary key default gen_random_uuid(),
    organization_id                   uuid not null unique references freight.organization (id) on delete cascade,
    auto_bill                         boolean not null default false,
    auto_bill_criterion               text default 'MARKED_READY',
    transfer_criterion                text not null default 'READY_AND_COMPLETED',
    enforce_customer_billing          boolean not null default true,
    auto_mark_ready_to_bill           boolean not null default false,
    validate_customer_rates           boolean not null default false,
    remove_billing_history            boolean not null default false,
    invoice_number_prefix             varchar(10) not null default 'INV-',
    credit_memo_number_prefix         varchar(10) not null default 'CN-',
    invoice_due_after_days            integer not null default 30,
    billing_email_profile_id          uuid references freight.email_profile (id) on delete set null,
    rate_expiration_email_profile_id  uuid references freight.email_profile (id) on delete set null,
    created_at                        timestamptz not null,
    updated_at                        timestamptz not null,
    constraint billing_control_criterion_known check (auto_bill_criterion in ('ORDER_DELIVERY', 'TRANSFERRED_TO_BILL', 'MARKED_READY')),
    constraint billing_control_transfer_known check (transfer_criterion in ('READY_AND_COMPLETED', 'COMPLETED', 'READY_TO_BILL'))
);
comment on table freight.billing_control is 'How an organization bills; made with it.';

create table freight.invoice_number (
    organization_id  uuid not null references freight.organization (id) on delete cascade,
    number           varchar(50) not null,
    shipment_id      uuid not null references freight.shipment (id) on delete cascade,
    primary key (organization_id, number)
);
comment on table freight.invoice_number is 'Numbers that invoices in queue or history have: what is in here is given to no other one.';

create table freight.billing_queue (
    id                     uuid primary key default gen_random_uuid(),
    organization_id        uuid not null references freight.organization (id) on delete cascade,
    shipment_id            uuid not null references freight.shipment (id),
    customer_id            uuid references freight.customer (id),
    bill_type              text not null default 'INVOICE',
    invoice_number         varchar(50) not null,
    suffix_no              integer not null,
    ready_to_bill          boolean not null default false,
    bill_date              timestamptz,
    is_summary             boolean not null default false,
    is_cancelled           boolean not null default false,
    order_type             text,
    revenue_code           text,
    commodity              text,
    bol_number             text,
    worker                 text,
    pieces                 integer,
    weight                 numeric(10, 2),
    mileage                numeric(10, 2),
    freight_charge_amount  numeric(19, 4),
    other_charge_amount    numeric(19, 4),
    total_amount           numeric(19, 4),
    user_id                uuid references freight.app_user (id) on delete set null,
    created_at             timestamptz not null,
    updated_at             timestamptz not null,
    constraint billing_queue_type_known check (bill_type in ('INVOICE', 'CREDIT', 'DEBIT', 'PREPAID', 'OTHER'))
);
create unique index billing_queue_number on freight.billing_queue (organization_id, invoice_number) where bill_type <> 'CREDIT';
create index billing_queue_shipment on freight.billing_queue (shipment_id, suffix_no);
create index billing_queue_oldest on freight.billing_queue (organization_id, created_at);
comment on table freight.billing_queue is 'Invoices to be billed. What is left out is taken from the shipment; the number is given once.';
comment on column freight.billing_queue.suffix_no is 'Which letters follow the pro number: 0 none, 1 A, 26 Z, 27 AA.';

create table freight.billing_history (
    id                     uuid primary key default gen_random_uuid(),
    organization_id        uuid not null references freight.organization (id) on delete cascade,
    queue_id               uuid not null unique,
    shipment_id            uuid not null references freight.shipment (id),
    customer_id            uuid references freight.customer (id),
    bill_type              text not null,
    invoice_number         varchar(50) not null,
    suffix_no              integer not null,
    ready_to_bill          boolean not null,
    bill_date              timestamptz,
    is_summary             boolean not null,
    is_cancelled           boolean not null,
    order_type             text,
    revenue_code           text,
    commodity              text,
    bol_number             text,
    worker                 text,
    pieces                 integer,
    weight                 numeric(10, 2),
    mileage                numeric(10, 2),
    freight_charge_amount  numeric(19, 4),
    other_charge_amount    numeric(19, 4),
    total_amount           numeric(19, 4),
    user_id                uuid references freight.app_user (id) on delete set null,
    billed_at              timestamptz not null,
    billed_by              uuid references freight.app_user (id) on delete set null,
    task_id                bigint,
    created_at             timestamptz not null,
    updated_at             timestamptz not null,
    constraint billing_history_type_known check (bill_type in ('INVOICE', 'CREDIT', 'DEBIT', 'PREPAID', 'OTHER'))
);
create unique index billing_history_number on freight.billing_history (organization_id, invoice_number) where bill_type <> 'CREDIT';
create index billing_history_shipment on freight.billing_history (shipment_id, suffix_no);
comment on table freight.billing_history is 'Invoices that were billed: each row of the queue at most once.';

create table freight.billing_transfer_log (
    id               uuid primary key default gen_random_uuid(),
    organization_id  uuid not null references freight.organization (id) on delete cascade,
    shipment_id      uuid not null references freight.shipment (id) on delete cascade,
    task_id          bigint,
    transferred_at   timestamptz not null,
    transferred_by   uuid references freight.app_user (id) on delete set null,
    created_at       timestamptz not null,
    updated_at       timestamptz not null
);
comment on table freight.billing_transfer_log is 'Who moved which shipment to the billing queue.';

create table freight.billing_exception (
    id                 uuid primary key default gen_random_uuid(),
    organization_id    uuid not null references freight.organization (id) on delete cascade,
    exception_type     text not null,
    shipment_id        uuid not null references freight.shipment (id) on delete cascade,
    queue_id           uuid,
    exception_message  text not null,
    occurrences        integer not null default 1,
    last_seen_at       timestamptz not null,
    resolved_at        timestamptz,
    created_at         timestamptz not null,
    updated_at         timestamptz not null,
    constraint billing_exception_type_known check (exception_type in ('PAPERWORK', 'CHARGE', 'CREDIT', 'DEBIT', 'OTHER'))
);
create unique index billing_exception_open on freight.billing_exception (coalesce(queue_id, shipment_id), exception_type, md5(exception_message))
    where resolved_at is null;
comment on table freight.billing_exception is 'Why invoices are not billed: what is open is counted, not repeated.';
