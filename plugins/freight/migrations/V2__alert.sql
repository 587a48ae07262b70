-- Table-change alerts and the events that they made.

create table freight.table_change_alert (
    id                 uuid primary key default gen_random_uuid(),
    organization_id    uuid not null references freight.organization (id) on delete cascade,
    name               varchar(50) not null,
    is_active          boolean not null default true,
    source             text not null default 'POSTGRES',
    database_action    text not null default 'INSERT',
    table_name         varchar(255),
    topic              varchar(255),
    description        text not null default '',
    effective_date     date,
    expiration_date    date,
    email_recipients   text not null default '',
    email_profile_id   uuid references freight.email_profile (id) on delete set null,
    custom_subject     varchar(255),
    conditional_logic  jsonb,
    task_definition    text,
    sink_topic         text,
    function_name      text,
    trigger_name       text,
    listener_name      text,
    wanted_since       jsonb not null default '{}',
    swept              boolean not null default false,
    last_error         text,
    created_at         timestamptz not null,
    updated_at         timestamptz not null,
    constraint table_change_alert_named check (name <> ''),
    constraint table_change_alert_source_known check (source in ('POSTGRES', 'KAFKA')),
    constraint table_change_alert_action_known check (database_action in ('INSERT', 'UPDATE', 'DELETE', 'BOTH'))
);
create unique index table_change_alert_name on freight.table_change_alert (organization_id, lower(name));
comment on table freight.table_change_alert is 'Who wants to hear of which changes, and how. Each active one has a row in rowbeat.watch.';
comment on column freight.table_change_alert.database_action is 'BOTH: insert and update.';
comment on column freight.table_change_alert.table_name is 'A table of schema freight, or schema.table.';
comment on column freight.table_change_alert.topic is 'Of alerts whose source is KAFKA.';
comment on column freight.table_change_alert.effective_date is 'First local day on which changes count.';
comment on column freight.table_change_alert.expiration_date is 'Last such day.';
comment on column freight.table_change_alert.email_recipients is 'Addresses, with commas.';
comment on column freight.table_change_alert.conditional_logic is 'Conditions that must all hold: {"name", "description", "conditions": [{"id", "column", "operation", "value", "data_type"}]}.';
comment on column freight.table_change_alert.task_definition is 'A definition that is enqueued for each event, with the event as payload.';
comment on column freight.table_change_alert.sink_topic is 'A Kafka topic that each event goes to.';
comment on column freight.table_change_alert.listener_name is 'The channel of its notifications. Like the other two names it is computed.';
comment on column freight.table_change_alert.wanted_since is 'For each operation, since when its changes concern the alert: earlier ones that are still on their way do not.';
comment on column freight.table_change_alert.swept is 'It has expired and nothing is captured for it any more.';
comment on column freight.table_change_alert.last_error is 'What last went wrong with an event.';

create table freight.alert_event (
    id               bigint generated always as identity primary key,
    alert_id         uuid not null,
    organization_id  uuid not null references freight.organization (id) on delete cascade,
    source           text not null,
    origin           text not null,
    operation        text not null,
    table_name       text,
    row_key          jsonb,
    old_row          jsonb,
    new_row          jsonb,
    occurred_at      timestamptz not null,
    routed_at        timestamptz not null,
    constraint alert_event_operation_known check (operation in ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')),
    constraint alert_event_once unique (alert_id, source, origin)
);
create index alert_event_organization on freight.alert_event (organization_id, id);
comment on table freight.alert_event is 'What alerts told: append only, and kept when the alert goes.';
comment on column freight.alert_event.origin is 'Number of the change, or topic/partition/offset.';
comment on column freight.alert_event.old_row is 'The row before; whole, except for password hashes.';
comment on column freight.alert_event.occurred_at is 'When the change was written.';
comment on column freight.alert_event.routed_at is 'When it became an event.';
