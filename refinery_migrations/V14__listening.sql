-- Listening: channels that a plugin wants people to hear, without a task for each notification.
--
-- A row each for whatever the plugin announces on a channel, an alert say: several may share a channel, and each comes and goes by itself.
-- From when to when is part of the row, so that nothing has to be written when a time comes. A plugin's role may touch only its own rows.
-- Locks: a new table.

create table rowbeat.listening (
    plugin     text not null references rowbeat.plugin (name) on delete cascade,
    name       text not null,
    channel    text not null,
    starts_at  timestamptz,
    ends_at    timestamptz,
    primary key (plugin, name),
    constraint listening_channel_fits check (octet_length(channel) between 1 and 63),
    constraint listening_channel_is_not_ours check (channel <> 'rowbeat')
);
comment on table rowbeat.listening is 'What plugins announce, and on which channel: rowbeat listen prints what is said there. Nothing else becomes of it.';
comment on column rowbeat.listening.plugin is 'Whose it is.';
comment on column rowbeat.listening.name is 'What is announced: any name, each once in a plugin.';
comment on column rowbeat.listening.channel is 'The channel, exactly as in pg_notify (case matters). Several rows may have the same.';
comment on column rowbeat.listening.starts_at is 'Listened to from then on; null: at once.';
comment on column rowbeat.listening.ends_at is 'Listened to until then; null: for ever.';

alter table rowbeat.listening enable row level security;
create policy plugin_touches_its_own on rowbeat.listening
    using (coalesce((select listening.plugin = p.name from rowbeat.plugin p where p.role_name = current_user), true));
