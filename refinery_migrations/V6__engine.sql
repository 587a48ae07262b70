-- The complete task engine: limits, serial keys, pauses, features, poison isolation, foreign workers, policies of retention, executors
-- that lead out over the network.
--
-- The claim index now leads to lanes (queue, priority, definition): whatever holds a whole definition or queue back (paused, over a
-- limit, missing a feature) is decided per lane, so its tasks are never walked over and need no mark of their own. Only what
-- holds back a single task is marked in `parked`. Locks: exclusively, and shortly, task, task_definition, finished_task and node;
-- building the two indexes takes as long as there are live tasks.

drop view if exists rowbeat.tasks, rowbeat.queues, rowbeat.failures, rowbeat.nodes;
drop function if exists rowbeat.enqueue(text, jsonb, timestamptz, text, integer, integer, interval, text);
drop function if exists rowbeat.end_attempt(bigint, integer, bigint, text, jsonb, jsonb, interval);

alter table rowbeat.task_definition
    drop constraint task_definition_executor_known,
    add constraint task_definition_executor_known
        check (executor in ('sql', 'exec', 'native', 'http', 'smtp', 'kafka', 'external')),
    add constraint task_definition_connection_named
        check (executor not in ('http', 'smtp', 'kafka') or plan_function is not null or effect ? 'connection'),
    add column paused_at         timestamptz,
    add column concurrency       integer,
    add column rate              integer,
    add column rate_period       interval not null default '1 second',
    add column backoff_list      interval[],
    add column keep_failed_days  smallint default 30,
    add column redact            boolean not null default false,
    add column requires          text[] not null default '{}',
    add column sql_batch         smallint not null default 1,
    add constraint task_definition_concurrency_fits check (concurrency between 1 and 10000),
    add constraint task_definition_rate_fits check (rate between 1 and 10000),
    add constraint task_definition_rate_period_positive check (rate_period > '0'),
    add constraint task_definition_backoff_list_positive check (cardinality(backoff_list) > 0 and '0' <= all (backoff_list)),
    add constraint task_definition_keep_failed_days_fit_ring check (keep_failed_days between 1 and 30),
    add constraint task_definition_sql_batch_fits check (sql_batch between 1 and 500 and (sql_batch = 1 or executor = 'sql'));
comment on column rowbeat.task_definition.executor is 'sql (a function, exactly once), exec (an allow-listed program), native (a Rust handler of the embedding program), http, smtp or kafka (by a connection of the node''s configuration), or external (foreign workers).';
comment on column rowbeat.task_definition.effect is 'What the executor performs (exec: {"program": ..., "args": [...]}; http, smtp, kafka: {"connection": ..., ...}); what plan returns is laid over it.';
comment on column rowbeat.task_definition.paused_at is 'Since when none of its tasks is started; null: not paused. Set by pause and resume.';
comment on column rowbeat.task_definition.concurrency is 'At most so many of its tasks run at the same time, on all nodes together; null: no limit.';
comment on column rowbeat.task_definition.rate is 'At most so many of its tasks are started within any rate_period, on all nodes together; null: no limit.';
comment on column rowbeat.task_definition.rate_period is 'The period of rate.';
comment on column rowbeat.task_definition.backoff_list is 'The pauses after the first, second, ... failed attempt, the last one repeated; instead of backoff, backoff_max and backoff_jitter.';
comment on column rowbeat.task_definition.keep_failed_days is 'For how many days failed tasks are kept, 1 to 30; null: until somebody retries or deletes them.';
comment on column rowbeat.task_definition.redact is 'Payload and result are dropped when a task has ended.';
comment on column rowbeat.task_definition.requires is 'Features without which its tasks wait: names in rowbeat.feature.';
comment on column rowbeat.task_definition.sql_batch is 'sql only: up to so many tasks share a transaction, each in a savepoint of its own.';

create table rowbeat.queue (
    name         text primary key,
    concurrency  integer,
    paused_at    timestamptz,
    constraint queue_named check (name <> ''),
    constraint queue_concurrency_fits check (concurrency between 1 and 10000)
);
comment on table rowbeat.queue is 'What holds for a whole queue; a queue without a row has no limit and is not paused.';
comment on column rowbeat.queue.name is 'The queue.';
comment on column rowbeat.queue.concurrency is 'At most so many of its tasks run at the same time, on all nodes together; null: no limit.';
comment on column rowbeat.queue.paused_at is 'Since when none of its tasks is started; null: not paused.';

create table rowbeat.limit_slot (
    scope    text not null,
    n        integer not null,
    task_id  bigint,
    free_at  timestamptz not null default '-infinity',
    retired  boolean not null default false,
    primary key (scope, n)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
create index limit_slot_task on rowbeat.limit_slot (task_id) where task_id is not null;
comment on table rowbeat.limit_slot is 'The slots of limits: who starts a limited task takes one of each of its limits, without waiting. There are as many as the limit allows, so it cannot be exceeded.';
comment on column rowbeat.limit_slot.scope is 'The limit: concurrency/<definition>, rate/<definition> or queue/<queue>.';
comment on column rowbeat.limit_slot.n is 'Tells the slots of a limit apart.';
comment on column rowbeat.limit_slot.task_id is 'The running task that holds the slot, or the last one that used it (rate).';
comment on column rowbeat.limit_slot.free_at is 'Free from this time on: when it was given back, or, of a rate, when its period is over.';
comment on column rowbeat.limit_slot.retired is 'The limit was lowered while the slot was taken: it goes with the next that is given back.';

create table rowbeat.serial_lock (
    serial_key  text primary key,
    task_id     bigint
) with (fillfactor = 50);
comment on table rowbeat.serial_lock is 'Whose turn it is for each serial key that has live tasks.';
comment on column rowbeat.serial_lock.serial_key is 'The serial key.';
comment on column rowbeat.serial_lock.task_id is 'The one task that may run, from its turn to its end; null: the turn could not be passed on yet.';

create table rowbeat.unique_hold (
    definition  text not null,
    unique_key  text not null,
    task_id     bigint,
    held_until  timestamptz not null,
    primary key (definition, unique_key)
);
create index unique_hold_until on rowbeat.unique_hold (held_until);
comment on table rowbeat.unique_hold is 'Unique keys that are held for a period, whatever becomes of the task.';
comment on column rowbeat.unique_hold.definition is 'The definition.';
comment on column rowbeat.unique_hold.unique_key is 'The key.';
comment on column rowbeat.unique_hold.task_id is 'The task that was enqueued with it.';
comment on column rowbeat.unique_hold.held_until is 'Until then another enqueue gets that task.';

create table rowbeat.feature (
    name             text primary key,
    enabled          boolean not null default true,
    condition        text,
    condition_holds  boolean not null default false,
    checked_at       timestamptz,
    last_error       text,
    constraint feature_named check (name <> '')
);
comment on table rowbeat.feature is 'Entitlements that definitions can require.';
comment on column rowbeat.feature.name is 'The feature.';
comment on column rowbeat.feature.enabled is 'Whether it is granted at all.';
comment on column rowbeat.feature.condition is 'A schema-qualified function () returns boolean that must hold besides, asked every few seconds; null: none.';
comment on column rowbeat.feature.condition_holds is 'What it said.';
comment on column rowbeat.feature.checked_at is 'When it was asked last.';
comment on column rowbeat.feature.last_error is 'Why it could not be asked; then it does not hold.';

drop index rowbeat.task_claim;
alter table rowbeat.task
    add column serial_key   text,
    add column deaths       smallint not null default 0,
    add column begun        boolean not null default true,
    add column slots        boolean not null default false,
    add column lease_until  timestamptz,
    add constraint task_parked_known check (parked in ('arriving', 'serial', 'isolated', 'quarantined'));
create index task_claim on rowbeat.task (queue, priority, definition, run_at, id) where parked is null;
create index task_parked on rowbeat.task (parked, id) where parked is not null;
create index task_serial on rowbeat.task (serial_key, id) where parked = 'serial';
create index task_lease on rowbeat.task (lease_until) where lease_until is not null;
comment on column rowbeat.task.parked is 'Why the claim leaves this one alone: arriving (its serial key is looked at next), serial (not its turn), isolated (runs alone), quarantined; null otherwise.';
comment on column rowbeat.task.serial_key is 'Tasks with the same serial key run one at a time, in the order of their ids.';
comment on column rowbeat.task.deaths is 'How many nodes in a row died while they had it.';
comment on column rowbeat.task.begun is 'Whether the claim found a free place for it; if not, it was claimed ahead and may not have started.';
comment on column rowbeat.task.slots is 'Whether it holds slots of limits.';
comment on column rowbeat.task.lease_until is 'Until when a foreign worker has it; null for a node''s.';

alter table rowbeat.finished_task
    add column serial_key  text,
    add column redacted    boolean not null default false;
create table rowbeat.finished_task_keep partition of rowbeat.finished_task for values in (-1);
comment on table rowbeat.finished_task_keep is 'Ended tasks without an expiry day.';
comment on column rowbeat.finished_task.slot is 'Expiry day (days since 1970-01-01) modulo 32; -1: kept until somebody deletes or retries it.';
comment on column rowbeat.finished_task.serial_key is 'The serial key it had, if any.';
comment on column rowbeat.finished_task.redacted is 'Whether its payload and result were dropped.';

alter table rowbeat.node
    add column kind      text not null default 'node',
    add column host_key  text,
    add column queues    text[],
    add column lacks     text[] not null default '{}',
    add column rate      real,
    add constraint node_kind_known check (kind in ('node', 'worker'));
create unique index node_worker on rowbeat.node (name) where kind = 'worker';
comment on column rowbeat.node.kind is 'node (a daemon) or worker (a foreign worker, by the name it gives).';
comment on column rowbeat.node.host_key is 'What the file that this process holds locked says: who holds it now is the only one alive.';
comment on column rowbeat.node.queues is 'The queues it serves; {*}: all.';
comment on column rowbeat.node.lacks is 'Definitions that it cannot perform.';
comment on column rowbeat.node.rate is 'Tasks that it ended per second, lately.';

create type rowbeat.lane as (
    queue         text,
    priority      smallint,
    definition    text,
    after_run_at  timestamptz,
    after_id      bigint,
    limited       boolean
);
create type rowbeat.claimed as (
    id           bigint,
    attempt      integer,
    definition   text,
    payload      jsonb,
    queue        text,
    priority     smallint,
    run_at       timestamptz,
    cause        jsonb,
    begun        boolean,
    lease_until  timestamptz,
    executor     text,
    effect       jsonb,
    planned      boolean,
    settled      boolean,
    sql_batch    smallint,
    timeout      interval,
    revision     bigint
);
comment on type rowbeat.claimed is 'A task that was claimed, and what its definition says of how to run it.';
comment on type rowbeat.lane is 'Tasks of one definition with the same queue and priority, from a place in their order on; limited: slots are needed.';
