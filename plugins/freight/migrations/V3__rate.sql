-- Customers, rates, and who is told when one has run out.

create table freight.customer (
    id                       uuid primary key default gen_random_uuid(),
    organization_id          uuid not null references freight.organization (id) on delete cascade,
    name                     varchar(255) not null,
    auto_mark_ready_to_bill  boolean not null default false,
    created_at               timestamptz not null,
    updated_at               timestamptz not null
);
create index customer_organization on freight.customer (organization_id);
comment on table freight.customer is 'Customers of an organization.';

create table freight.customer_contact (
    id               uuid primary key default gen_random_uuid(),
    organization_id  uuid not null references freight.organization (id) on delete cascade,
    customer_id      uuid not null references freight.customer (id) on delete cascade,
    email            varchar(254) not null,
    is_payable       boolean not null default false,
    position         integer not null default 0,
    created_at       timestamptz not null,
    updated_at       timestamptz not null
);
create index customer_contact_customer on freight.customer_contact (customer_id, position);
comment on table freight.customer_contact is 'People at a customer; invoices go to the first payable one.';

create table freight.document_class (
    id               uuid primary key default gen_random_uuid(),
    organization_id  uuid not null references freight.organization (id) on delete cascade,
    name             varchar(100) not null,
    created_at       timestamptz not null,
    updated_at       timestamptz not null,
    constraint document_class_once unique (organization_id, name)
);
comment on table freight.document_class is 'Kinds of documents.';

create table freight.customer_rule_profile (
    id               uuid primary key default gen_random_uuid(),
    organization_id  uuid not null references freight.organization (id) on delete cascade,
    customer_id      uuid not null unique references freight.customer (id) on delete cascade,
    name             varchar(100) not null default '',
    created_at       timestamptz not null,
    updated_at       timestamptz not null
);
comment on table freight.customer_rule_profile is 'What a customer wants to see before it pays.';

create table freight.customer_rule_document (
    profile_id         uuid not null references freight.customer_rule_profile (id) on delete cascade,
    document_class_id  uuid not null references freight.document_class (id) on delete cascade,
    primary key (profile_id, document_class_id)
);
comment on table freight.customer_rule_document is 'Documents that a customer''s profile asks for.';

create table freight.rate_counter (
    organization_id  uuid primary key references freight.organization (id) on delete cascade,
    last_number      bigint not null default 0
);
comment on table freight.rate_counter is 'The last rate number of each organization; it never goes back.';

create table freight.rate (
    id               uuid primary key default gen_random_uuid(),
    organization_id  uuid not null references freight.organization (id) on delete cascade,
    rate_number      varchar(10) not null,
    customer_id      uuid references freight.customer (id) on delete set null,
    effective_date   date not null,
    expiration_date  date not null,
    rate_amount      numeric(19, 4) not null default 0,
    comments         text,
    created_at       timestamptz not null,
    updated_at       timestamptz not null,
    constraint rate_number_once unique (organization_id, rate_number)
);
create index rate_expiration on freight.rate (organization_id, expiration_date);
comment on table freight.rate is 'Rates; those without a number get the next one of their organization.';

create table freight.notification_setting (
    id                 uuid primary key default gen_random_uuid(),
    organization_id    uuid not null references freight.organization (id) on delete cascade,
    notification_type  text not null default 'RATE_EXPIRATION',
    send_notification  boolean not null default true,
    email_recipients   text not null default '',
    email_profile_id   uuid references freight.email_profile (id) on delete set null,
    custom_subject     varchar(255),
    custom_content     text,
    created_at         timestamptz not null,
    updated_at         timestamptz not null,
    constraint notification_setting_type_known check (notification_type in ('RATE_EXPIRATION')),
    constraint notification_setting_once unique (organization_id, notification_type)
);
comment on table freight.notification_setting is 'Who of an organization is told of what, and in which words: {rate.<column>} is filled in.';

create table freight.rate_expiration_notice (
    setting_id       uuid not null references freight.notification_setting (id) on delete cascade,
    rate_id          uuid not null references freight.rate (id) on delete cascade,
    expiration_date  date not null,
    task_id          bigint,
    primary key (setting_id, rate_id, expiration_date)
);
comment on table freight.rate_expiration_notice is 'Expirations that were told: each once.';
