-- Watches, the change log and its readers.
--
-- The log is append only: no row of it is ever updated, and its slots are emptied by TRUNCATE. A reader keeps a snapshot
-- as its position and reads what became visible since; see sql/functions/20_change.sql. Locks: new tables only.

create table rowbeat.watch (
    name        text primary key,
    table_name  regclass not null,
    operations  text[] not null default '{INSERT,UPDATE,DELETE}',
    definition  text not null references rowbeat.task_definition (name) on update cascade,
    enabled     boolean not null default true,
    created_at  timestamptz not null default now(),
    constraint watch_operations_known check (operations <@ '{INSERT,UPDATE,DELETE,TRUNCATE}' and operations <> '{}')
);
create index watch_by_table on rowbeat.watch (table_name);
comment on table rowbeat.watch is 'These operations on this table concern this task definition. Inserting the row installs the capture triggers.';
comment on column rowbeat.watch.name is 'Name of the watch; <definition>_on_<table> when left out.';
comment on column rowbeat.watch.table_name is 'The watched table.';
comment on column rowbeat.watch.operations is 'Any of INSERT, UPDATE, DELETE, TRUNCATE.';
comment on column rowbeat.watch.definition is 'The task definition that each change is enqueued for.';
comment on column rowbeat.watch.enabled is 'False: changes are not captured for it.';
comment on column rowbeat.watch.created_at is 'When it began; earlier changes do not concern it.';

create table rowbeat.change (
    slot          smallint not null,
    seq           bigint generated always as identity,
    xid           xid8 not null,
    table_name    regclass not null,
    operation     text not null,
    key           jsonb,
    old           jsonb,
    new           jsonb,
    login_role    text not null,
    actor         text,
    at            timestamptz not null,
    primary key (seq, slot)
) partition by list (slot);
create index change_by_xid on rowbeat.change (xid, seq);
comment on table rowbeat.change is 'The change log: one row per changed row of a watched table, written in the writer''s own transaction.';
comment on column rowbeat.change.slot is 'Day of the change (days since 1970-01-01) modulo 32.';
comment on column rowbeat.change.seq is 'Number of the change, in order of writing (not of commit).';
comment on column rowbeat.change.xid is 'The writing transaction (top level).';
comment on column rowbeat.change.table_name is 'The table; of a partitioned one, its root.';
comment on column rowbeat.change.operation is 'INSERT, UPDATE, DELETE or TRUNCATE.';
comment on column rowbeat.change.key is 'Primary key of the row, null without one.';
comment on column rowbeat.change.old is 'The row before, for UPDATE and DELETE.';
comment on column rowbeat.change.new is 'The row after, for INSERT and UPDATE.';
comment on column rowbeat.change.login_role is 'The database role that had logged in.';
comment on column rowbeat.change.actor is 'Who did it, as the application''s setting rowbeat.actor says.';
comment on column rowbeat.change.at is 'When it was written.';

create table rowbeat.change_consumer (
    name       text primary key,
    position   pg_snapshot not null,
    target     pg_snapshot,
    after_seq  bigint not null default 0,
    read_at    timestamptz not null default now()
) with (fillfactor = 50);
comment on table rowbeat.change_consumer is 'Readers of the change log and how far each has read.';
comment on column rowbeat.change_consumer.name is 'The reader: router, ...';
comment on column rowbeat.change_consumer.position is 'Everything visible in this snapshot has been read.';
comment on column rowbeat.change_consumer.target is 'While a large difference is read piece by piece: where it ends.';
comment on column rowbeat.change_consumer.after_seq is 'And the last change of it that has been read.';
comment on column rowbeat.change_consumer.read_at is 'When it read last.';

do $$
begin
    for v_slot in 0..31 loop
        execute format('create table rowbeat.%I partition of rowbeat.change for values in (%s)',
            'change_' || to_char(v_slot, 'FM00'), v_slot);
    end loop;
end $$;
insert into rowbeat.change_consumer (name, position) values ('router', pg_current_snapshot());
