-- What staff did, and the dashboard's one row.

create table hotspot.log_entry (
    id              uuid primary key default gen_random_uuid(),
    actor           text not null,
    object_type     text not null,
    object_id       text,
    object_repr     text not null default '',
    action_flag     text not null,
    change_message  text not null default '',
    action_time     timestamptz not null,
    constraint log_entry_action_known check (action_flag in ('addition', 'change', 'deletion', 'refund', 'recovery', 'import', 'export'))
);
create index log_entry_action_time on hotspot.log_entry (action_time desc, id);
comment on table hotspot.log_entry is 'What staff did. Rows are added and never changed.';
comment on column hotspot.log_entry.id is 'Its id.';
comment on column hotspot.log_entry.actor is 'Who.';
comment on column hotspot.log_entry.object_type is 'To what: sale, voucher, bundle, staff, all.';
comment on column hotspot.log_entry.object_id is 'To which one.';
comment on column hotspot.log_entry.object_repr is 'How people call it. Never a credential.';
comment on column hotspot.log_entry.action_flag is 'addition, change, deletion, refund, recovery, import or export.';
comment on column hotspot.log_entry.change_message is 'More about it.';
comment on column hotspot.log_entry.action_time is 'When.';

create table hotspot.dashboard (
    only_row     boolean primary key default true,
    payload      jsonb not null,
    computed_at  timestamptz not null,
    constraint dashboard_only_row check (only_row)
);
comment on table hotspot.dashboard is 'The figures of the dashboard: one row.';
comment on column hotspot.dashboard.only_row is 'There is one row.';
comment on column hotspot.dashboard.payload is 'What the dashboard shows.';
comment on column hotspot.dashboard.computed_at is 'As of when.';
