-- Watches that say what concerns them and how it becomes tasks; what capture needs to know of a table in one row; what a watch
-- could not do with a change; consumers of the log besides the router.
--
-- The log keeps its two indexes: by xid (what became visible since a snapshot) and by seq (a large difference in pieces). Without
-- the latter 30,000 rows would cost a writer a tenth less, but every piece would have to sort what is left.
-- Locks: exclusively, and shortly, watch, change and change_consumer; who writes to a watched table waits for that.

drop trigger if exists fill_watch_defaults on rowbeat.watch;
drop trigger if exists install_capture on rowbeat.watch;
drop function if exists rowbeat.fill_watch_defaults();
drop function if exists rowbeat.watch(regclass, text, text[], text);
drop function if exists rowbeat.capture_statements(regclass, text[]);
drop function if exists rowbeat.position_is_stale(rowbeat.change_consumer);

alter table rowbeat.watch
    add column columns          text[],
    add column condition        text,
    add column exclude          text[] not null default '{}',
    add column grain            text not null default 'row',
    add column payload          text,
    add column unique_key       text,
    add column debounce         interval,
    add column serial_key       text,
    add column effective_from   timestamp,
    add column effective_until  timestamp,
    add column time_zone        text not null default 'UTC',
    add column origins          text[] not null default '{}',
    add column known_as         text not null default '',
    add column suspended_at     timestamptz,
    add column last_error       text,
    add column last_error_at    timestamptz,
    add constraint watch_grain_known check (grain in ('row', 'statement', 'transaction')),
    add constraint watch_columns_named check (columns <> '{}'),
    add constraint watch_debounce_positive check (debounce > '0'),
    add constraint watch_unique_for_rows check (grain = 'row' or unique_key is null and debounce is null),
    add constraint watch_effective_in_order check (effective_from < effective_until);
comment on column rowbeat.watch.enabled is 'False: changes are not captured for it, and those that were are not routed.';
comment on column rowbeat.watch.columns is 'An UPDATE concerns it only when one of these changed; null: always.';
comment on column rowbeat.watch.condition is 'A boolean SQL expression over old, new and change; null: every change. The router evaluates it, never the writer.';
comment on column rowbeat.watch.exclude is 'Columns to leave out: never in its tasks, nor seen by its expressions; not even in the log when no enabled watch of the table wants them.';
comment on column rowbeat.watch.grain is 'One task for each row, for each statement, or for each transaction.';
comment on column rowbeat.watch.payload is 'An SQL expression over old, new and change whose value is the payload (of a group: stands in its changes); null: the usual one.';
comment on column rowbeat.watch.unique_key is 'An SQL expression for the task''s unique key: while a task with it waits, it gets the later change''s payload.';
comment on column rowbeat.watch.debounce is 'Changes with the same unique key (the row''s key when unique_key is null) within this time after the first become one task, with the last image.';
comment on column rowbeat.watch.serial_key is 'An SQL expression for the task''s serial key; of a group, its first change''s.';
comment on column rowbeat.watch.effective_from is 'Changes before this local time of time_zone do not concern it.';
comment on column rowbeat.watch.effective_until is 'Nor do those from this local time on.';
comment on column rowbeat.watch.time_zone is 'The zone of effective_from and effective_until.';
comment on column rowbeat.watch.origins is 'Changes with one of these origins concern it, too ({*}: with any); without an origin they always do.';
comment on column rowbeat.watch.known_as is 'Name of the table when the watch was written last.';
comment on column rowbeat.watch.suspended_at is 'Since when its expressions are not evaluated, because they took too long; what concerns it is noted for a replay. An edit ends it.';
comment on column rowbeat.watch.last_error is 'What last went wrong with a change of it; null again after an edit or a complete replay.';
comment on column rowbeat.watch.last_error_at is 'When.';
update rowbeat.watch set known_as = table_name::text;

create table rowbeat.capture (
    table_name   regclass primary key,
    operations   text[] not null,
    key_columns  text[] not null,
    omitted      text[] not null default '{}'
);
comment on table rowbeat.capture is 'What the capture triggers need to know of a watched table, in one row; kept by the watches.';
comment on column rowbeat.capture.table_name is 'The table; of a partitioned one, its root.';
comment on column rowbeat.capture.operations is 'What enabled watches want.';
comment on column rowbeat.capture.key_columns is 'Columns of its primary key.';
comment on column rowbeat.capture.omitted is 'Columns that every enabled watch leaves out.';
insert into rowbeat.capture (table_name, operations, key_columns)
select w.table_name, array_agg(distinct o), coalesce((
    select array_agg(a.attname::text order by k.n)
    from pg_catalog.pg_index i
    cross join lateral unnest(i.indkey::int2[]) with ordinality k (attnum, n)
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where i.indrelid = w.table_name and i.indisprimary), '{}')
from rowbeat.watch w cross join unnest(w.operations) o
where w.enabled
group by w.table_name;

alter table rowbeat.change
    add column origin  text,
    add column error   text;
comment on column rowbeat.change.origin is 'Where it came from, as an operator''s session said by rowbeat.origin: watches that do not ask for it leave it alone.';
comment on column rowbeat.change.error is 'Why the changed rows could not be captured; then there are no images.';

create table rowbeat.watch_failure (
    id         bigint generated always as identity primary key,
    watch      text not null references rowbeat.watch (name) on update cascade on delete cascade,
    seqs       bigint[] not null,
    slots      smallint[] not null,
    sqlstate   text not null,
    error      text not null,
    failed_at  timestamptz not null
);
create index watch_failure_watch on rowbeat.watch_failure (watch, id);
comment on table rowbeat.watch_failure is 'Changes that a watch could not make a task of; a replay repeats them.';
comment on column rowbeat.watch_failure.id is 'In order of failing.';
comment on column rowbeat.watch_failure.watch is 'The watch.';
comment on column rowbeat.watch_failure.seqs is 'The changes.';
comment on column rowbeat.watch_failure.slots is 'And where in the log they are.';
comment on column rowbeat.watch_failure.sqlstate is 'Class of the error; locks that were not free and deadlocks are tried again by the router itself.';
comment on column rowbeat.watch_failure.error is 'What was said.';
comment on column rowbeat.watch_failure.failed_at is 'When.';

create table rowbeat.change_group (
    watch       text not null references rowbeat.watch (name) on update cascade on delete cascade,
    replayed    boolean not null,
    xid         xid8 not null,
    statement   text not null,
    count       bigint not null,
    inserts     bigint not null,
    updates     bigint not null,
    deletes     bigint not null,
    truncates   bigint not null,
    changes     jsonb not null,
    first_seq   bigint not null,
    last_seq    bigint not null,
    serial_key  text,
    login_role  text not null,
    actor       text,
    at          timestamptz not null,
    primary key (watch, replayed, xid, statement)
) with (fillfactor = 50);
comment on table rowbeat.change_group is 'Statements and transactions of which the router has read a part: they become tasks with the last piece of what it reads.';
comment on column rowbeat.change_group.watch is 'The watch.';
comment on column rowbeat.change_group.replayed is 'Whether a replay gathers it.';
comment on column rowbeat.change_group.xid is 'The transaction.';
comment on column rowbeat.change_group.statement is 'Which statement of it; empty for the whole transaction.';
comment on column rowbeat.change_group.count is 'How many changes so far.';
comment on column rowbeat.change_group.inserts is 'How many of them are INSERTs.';
comment on column rowbeat.change_group.updates is 'UPDATEs.';
comment on column rowbeat.change_group.deletes is 'DELETEs.';
comment on column rowbeat.change_group.truncates is 'TRUNCATEs.';
comment on column rowbeat.change_group.changes is 'The first of them, as far as they fit into a payload.';
comment on column rowbeat.change_group.first_seq is 'The first.';
comment on column rowbeat.change_group.last_seq is 'The last.';
comment on column rowbeat.change_group.serial_key is 'Serial key of the task to be, from the first change.';
comment on column rowbeat.change_group.login_role is 'Who had logged in.';
comment on column rowbeat.change_group.actor is 'Who did the first of them.';
comment on column rowbeat.change_group.at is 'When the first was written.';

alter table rowbeat.change_consumer
    add column since    timestamptz,
    add column tables   regclass[],
    add column role     text,
    add column lost_at  timestamptz;
-- Nobody writes the log while this runs: what comes later is of later days.
update rowbeat.change_consumer set since = now() where not exists (select from rowbeat.change);
comment on column rowbeat.change_consumer.since is 'What is still to be read was not written before this time; null: nobody knows.';
comment on column rowbeat.change_consumer.tables is 'The tables whose changes it reads; null: all.';
comment on column rowbeat.change_consumer.role is 'Members of this role may consume; null: the router, nobody.';
comment on column rowbeat.change_consumer.lost_at is 'When the log was emptied before it had read it; rowbeat.rebase_consumer begins anew.';
