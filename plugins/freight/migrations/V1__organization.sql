-- Who works here: organizations, their people, what they bought, and how they send mail.
-- Rows get their times from the trigger touch (functions/10_organization.sql), so that whoever inserts needs no right but that on the table.

create table freight.organization (
    id                     uuid primary key default gen_random_uuid(),
    name                   varchar(255) not null,
    scac_code              varchar(4) not null,
    org_type               text not null default 'asset',
    time_zone              text not null default 'America/New_York',
    language               text not null default 'en',
    currency               text not null default 'USD',
    token_expiration_days  integer not null default 30,
    created_at             timestamptz not null,
    updated_at             timestamptz not null,
    constraint organization_named check (name <> ''),
    constraint organization_type_known check (org_type in ('asset', 'brokerage', 'both')),
    constraint organization_language_known check (language in ('en', 'es')),
    constraint organization_token_days_positive check (token_expiration_days > 0)
);
create unique index organization_name on freight.organization (lower(name));
comment on table freight.organization is 'Organizations; everything else belongs to one. Its name is kept in title case, its SCAC code in capitals.';
comment on column freight.organization.time_zone is 'What "local" and "today" mean for it.';

create table freight.job_title (
    id               uuid primary key default gen_random_uuid(),
    organization_id  uuid not null references freight.organization (id) on delete cascade,
    name             varchar(100) not null,
    job_function     text not null,
    created_at       timestamptz not null,
    updated_at       timestamptz not null,
    constraint job_title_function_known check (job_function in ('MANAGER', 'MANAGEMENT_TRAINEE', 'SUPERVISOR', 'DISPATCHER', 'BILLING',
        'FINANCE', 'SAFETY', 'SYS_ADMIN', 'TEST')),
    constraint job_title_once unique (organization_id, name)
);
comment on table freight.job_title is 'What people of an organization do.';

create table freight.app_user (
    id               uuid primary key default gen_random_uuid(),
    organization_id  uuid not null references freight.organization (id) on delete cascade,
    username         varchar(30) not null unique,
    email            varchar(254) not null,
    password_hash    text not null,
    is_active        boolean not null default true,
    is_staff         boolean not null default false,
    is_superuser     boolean not null default false,
    job_title_id     uuid references freight.job_title (id),
    created_at       timestamptz not null,
    updated_at       timestamptz not null,
    constraint app_user_password_hashed check (password_hash ~ '^\$argon2id\$')
);
create unique index app_user_email on freight.app_user (lower(email));
create index app_user_organization on freight.app_user (organization_id);
comment on table freight.app_user is 'People (and the system) who act; usernames are kept in small letters.';
comment on column freight.app_user.password_hash is 'An argon2id PHC string, made outside of the database: it never sees a password.';

create table freight.user_profile (
    id               uuid primary key default gen_random_uuid(),
    organization_id  uuid not null references freight.organization (id) on delete cascade,
    user_id          uuid not null unique references freight.app_user (id) on delete cascade,
    first_name       varchar(255) not null,
    last_name        varchar(255) not null,
    address_line_1   varchar(255) not null default '',
    city             varchar(255) not null default '',
    state            varchar(2),
    zip_code         varchar(10),
    phone_number     varchar(20),
    created_at       timestamptz not null,
    updated_at       timestamptz not null,
    constraint user_profile_state_fits check (state ~ '^[A-Z]{2}$'),
    constraint user_profile_zip_code_fits check (zip_code ~ '^[0-9]{5}(-[0-9]{4})?$'),
    constraint user_profile_phone_number_fits check (phone_number ~ '^(\+?1[ .-]?)?(\([0-9]{3}\) ?|[0-9]{3}[ .-]?)[0-9]{3}[ .-]?[0-9]{4}$')
);
comment on table freight.user_profile is 'Name and address of a user.';

create table freight.user_notification (
    id               uuid primary key default gen_random_uuid(),
    organization_id  uuid not null references freight.organization (id) on delete cascade,
    user_id          uuid not null references freight.app_user (id) on delete cascade,
    message          text not null,
    read_at          timestamptz,
    created_at       timestamptz not null,
    updated_at       timestamptz not null
);
create index user_notification_user on freight.user_notification (user_id, created_at);
comment on table freight.user_notification is 'What a user is told.';

create table freight.email_profile (
    id               uuid primary key default gen_random_uuid(),
    organization_id  uuid not null references freight.organization (id) on delete cascade,
    name             varchar(255) not null,
    email            varchar(254) not null,
    connection       text not null,
    created_at       timestamptz not null,
    updated_at       timestamptz not null,
    constraint email_profile_once unique (organization_id, name),
    constraint email_profile_connection_named check (connection <> '')
);
comment on table freight.email_profile is 'Senders of mail.';
comment on column freight.email_profile.connection is 'Name of an smtp connection in the daemon''s configuration: host, port, encryption and password live there.';

create table freight.email_log (
    id               uuid primary key default gen_random_uuid(),
    organization_id  uuid not null references freight.organization (id) on delete cascade,
    subject          text not null,
    to_email         text not null,
    error            text,
    task_id          bigint not null,
    at               timestamptz not null,
    created_at       timestamptz not null,
    updated_at       timestamptz not null
);
create index email_log_task on freight.email_log (task_id);
comment on table freight.email_log is 'One row for each attempt at a mail that ended.';

create table freight.entitlement (
    id               uuid primary key default gen_random_uuid(),
    organization_id  uuid not null references freight.organization (id) on delete cascade,
    feature          text not null,
    valid_from       timestamptz not null default now(),
    valid_until      timestamptz,
    created_at       timestamptz not null,
    updated_at       timestamptz not null,
    constraint entitlement_feature_known check (feature in ('billing', 'auto_billing')),
    constraint entitlement_in_order check (valid_from <= valid_until)
);
create index entitlement_organization on freight.entitlement (organization_id, feature);
comment on table freight.entitlement is 'What organizations bought, from when until when (not included; null: without end).';

create table freight.interval_schedule (
    every   integer not null,
    period  text not null,
    primary key (every, period),
    constraint interval_schedule_positive check (every > 0),
    constraint interval_schedule_period_known check (period in ('days', 'hours', 'minutes', 'seconds', 'microseconds'))
);
comment on table freight.interval_schedule is 'Intervals to choose from.';
