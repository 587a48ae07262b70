-- What the installation knows about itself: settings, the running daemons, and which text of each replaceable file
-- (sql/functions, triggers) is in force. Locks: new tables only.

create table rowbeat.setting (
    name        text primary key,
    value       jsonb not null,
    changed_at  timestamptz not null default now()
);
comment on table rowbeat.setting is 'Installation-wide settings, one row each.';
comment on column rowbeat.setting.name is 'What is set.';
comment on column rowbeat.setting.value is 'Its value, as JSON.';
comment on column rowbeat.setting.changed_at is 'When it was set last.';

create table rowbeat.source_file (
    name        text primary key,
    checksum    text not null,
    applied_at  timestamptz not null default now()
);
comment on table rowbeat.source_file is 'The replaceable files (functions, views, triggers) in force, by checksum.';
comment on column rowbeat.source_file.name is 'Path of the file in the source tree.';
comment on column rowbeat.source_file.checksum is 'SHA-256 of its text, in hexadecimal.';
comment on column rowbeat.source_file.applied_at is 'When it was applied.';

create table rowbeat.node (
    id            bigint generated always as identity primary key,
    name          text not null,
    version       text not null,
    process_id    integer not null,
    started_at    timestamptz not null,
    heartbeat_at  timestamptz not null,
    lease         interval not null,
    stopped_at    timestamptz,
    lost_at       timestamptz,
    constraint node_ends_once check (stopped_at is null or lost_at is null)
) with (fillfactor = 50);
comment on table rowbeat.node is 'One row per start of a daemon (an incarnation); its id fences everything the daemon writes.';
comment on column rowbeat.node.id is 'The incarnation: new with every start, never used again.';
comment on column rowbeat.node.name is 'The node''s configured name, the host name by default.';
comment on column rowbeat.node.version is 'Version of the daemon.';
comment on column rowbeat.node.process_id is 'Process id of the daemon on its host.';
comment on column rowbeat.node.started_at is 'When it registered.';
comment on column rowbeat.node.heartbeat_at is 'Its last sign of life, on the database''s clock.';
comment on column rowbeat.node.lease is 'Without a sign of life for this long, its running tasks are taken over.';
comment on column rowbeat.node.stopped_at is 'When it stopped in good order.';
comment on column rowbeat.node.lost_at is 'When the others gave it up.';
