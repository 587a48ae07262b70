-- Consumers that plugins declare, and unique keys for statements and transactions: a burst of them becomes one task.
--
-- Who consumes is told by the role that calls, no longer by the session's: a plugin's function runs in the daemon's session, which is a member of
-- every plugin's role. A unique key of groups has to be the same for all of them, so that nothing is evaluated for it.
-- Locks: exclusively, and shortly, plugin_part, change_consumer and watch; the check of watch reads its few rows.

drop function if exists rowbeat.rebase_consumer(text);

alter table rowbeat.plugin_part drop constraint plugin_part_kind_known,
    add constraint plugin_part_kind_known check (kind in ('task', 'schedule', 'watch', 'channel', 'feature', 'consumer'));
comment on column rowbeat.plugin_part.kind is 'task (a row of task_definition), schedule, watch, channel, feature or consumer (of change_consumer).';

alter table rowbeat.change_consumer alter column position set default pg_current_snapshot();

alter table rowbeat.watch drop constraint watch_unique_for_rows,
    add constraint watch_unique_for_rows check (grain = 'row' or unique_key is null and debounce is null
        or unique_key is not null and unique_key ~ '^''[^''\\]*''$');
comment on column rowbeat.watch.unique_key is 'An SQL expression for the task''s unique key (of groups a plain quoted text): while a task with it waits, it gets the later change''s payload.';
