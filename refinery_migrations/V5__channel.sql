-- Channels that are turned into tasks. Best effort by nature (a notification nobody hears is gone); a watch is the
-- durable way. Locks: new tables only.

create table rowbeat.channel (
    name        text primary key,
    definition  text not null references rowbeat.task_definition (name) on update cascade,
    enabled     boolean not null default true,
    created_at  timestamptz not null default now(),
    constraint channel_name_fits check (octet_length(name) between 1 and 63),
    constraint channel_name_is_not_ours check (name <> 'rowbeat')
);
comment on table rowbeat.channel is 'A NOTIFY heard on this channel enqueues this definition with {"channel", "payload", "pid"}.';
comment on column rowbeat.channel.name is 'The channel, exactly as in pg_notify (case matters).';
comment on column rowbeat.channel.definition is 'The task definition to enqueue.';
comment on column rowbeat.channel.enabled is 'False: nobody listens for it.';
comment on column rowbeat.channel.created_at is 'When it was added.';
