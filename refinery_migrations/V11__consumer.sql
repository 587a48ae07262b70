-- Consumers that plugins declare, and unique keys for statements and transactions: a burst of them becomes one task.
--
-- Who consumes is told by the role that calls, no longer by the session's: a plugin's function runs in the daemon's session, which is a member of
-- every plugin's role. Whoever begins anew in a transaction that has written to the copied tables has copied its own rows too: up to which change is noted.
-- A unique key of groups has to be the same for all of them, so that nothing is evaluated for it.
-- Locks: exclusively, and shortly, plugin_part, change_consumer and watch; the check of watch reads its few rows.

drop function if exists rowbeat.rebase_consumer(text);

alter table rowbeat.plugin_part drop constraint plugin_part_kind_known,
    add constraint plugin_part_kind_known check (kind in ('task', 'schedule', 'watch', 'channel', 'feature', 'consumer'));
comment on column rowbeat.plugin_part.kind is 'task (a row of task_definition), schedule, watch, channel, feature or consumer (of change_consumer).';

alter table rowbeat.change_consumer
    alter column position set default pg_current_snapshot(),
    add column own_xid  xid8,
    add column own_seq  bigint;
comment on column rowbeat.change_consumer.own_xid is 'The transaction that let it begin anew: what that had written by then was seen by it, although its snapshot does not say so.';
comment on column rowbeat.change_consumer.own_seq is 'The last change that it had written.';

alter table rowbeat.watch drop constraint watch_unique_for_rows,
    add constraint watch_unique_for_rows check (grain = 'row' or unique_key is null and debounce is null
        or unique_key is not null and unique_key ~ '^''[^''\\]*''$');
comment on column rowbeat.watch.unique_key is 'An SQL expression for the task''s unique key (of groups a plain quoted text): while a task with it waits, it gets the later change''s payload.';
