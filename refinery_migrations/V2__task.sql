-- Definitions, live tasks, and what remains of ended ones.
--
-- `task` is built for the claim: state, attempt, claimed_by and claimed_at are in no index and in no index predicate, and more
-- than half of every page is left free, so a claim is a HOT update. It holds live rows only; an ended task moves to
-- `finished_task`, an attempt that did not end its task leaves a row in `attempt`. Both are rings: list partitions made
-- here once, filled by day and emptied by TRUNCATE, so that retention needs no DDL at run time. Locks: new tables only.

create table rowbeat.task_definition (
    name             text primary key,
    description      text,
    executor         text not null,
    function         text,
    plan_function    text,
    settle_function  text,
    effect           jsonb not null default '{}',
    queue            text not null default 'default',
    priority         smallint not null default 100,
    max_attempts     smallint not null default 5,
    backoff          interval not null default '2 seconds',
    backoff_max      interval not null default '1 hour',
    backoff_jitter   real not null default 0.2,
    timeout          interval not null default '5 minutes',
    unique_until     text not null default 'start',
    keep             text not null default 'all',
    keep_days        smallint not null default 7,
    created_at       timestamptz not null default now(),
    constraint task_definition_executor_known check (executor in ('sql', 'exec', 'native')),
    constraint task_definition_function_for_sql check ((executor = 'sql') = (function is not null)),
    constraint task_definition_no_plan_for_sql check (executor <> 'sql' or plan_function is null),
    constraint task_definition_effect_is_object check (jsonb_typeof(effect) = 'object'),
    constraint task_definition_program_for_exec check (executor <> 'exec' or plan_function is not null or effect ? 'program'),
    constraint task_definition_queue_named check (queue <> ''),
    constraint task_definition_max_attempts_positive check (max_attempts >= 1),
    constraint task_definition_backoff_positive check (backoff > '0' and backoff_max >= backoff),
    constraint task_definition_jitter_fraction check (backoff_jitter between 0 and 1),
    constraint task_definition_timeout_positive check (timeout > '0'),
    constraint task_definition_unique_until_known check (unique_until in ('start', 'finish')),
    constraint task_definition_keep_known check (keep in ('all', 'failures', 'none')),
    constraint task_definition_keep_days_fit_ring check (keep_days between 1 and 30)
);
comment on table rowbeat.task_definition is 'A named kind of task: which executor performs it, with which functions, under which policy.';
comment on column rowbeat.task_definition.name is 'What tasks refer to.';
comment on column rowbeat.task_definition.description is 'For people.';
comment on column rowbeat.task_definition.executor is 'sql (a function, exactly once), exec (an allow-listed program) or native (a Rust handler of the embedding program).';
comment on column rowbeat.task_definition.function is 'sql only: the function, schema-qualified, taking (payload jsonb).';
comment on column rowbeat.task_definition.plan_function is 'plan(task jsonb, responses jsonb[]) returns jsonb: the next effect, or null when there is none. Not for sql.';
comment on column rowbeat.task_definition.settle_function is 'settle(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb: runs for every ended attempt, in the transaction that records it; its value becomes the result.';
comment on column rowbeat.task_definition.effect is 'What the executor performs (exec: {"program": ..., "args": [...]}); what plan returns is laid over it.';
comment on column rowbeat.task_definition.queue is 'Queue of its tasks unless they say otherwise.';
comment on column rowbeat.task_definition.priority is 'Priority of its tasks unless they say otherwise; smaller is sooner.';
comment on column rowbeat.task_definition.max_attempts is 'How many attempts may fail, time out or get lost before the task is failed.';
comment on column rowbeat.task_definition.backoff is 'Pause after the first failed attempt; doubled after each further one.';
comment on column rowbeat.task_definition.backoff_max is 'The pause never grows beyond this.';
comment on column rowbeat.task_definition.backoff_jitter is 'The pause is varied at random by up to this fraction, either way.';
comment on column rowbeat.task_definition.timeout is 'An attempt that takes longer is stopped and counts as failed.';
comment on column rowbeat.task_definition.unique_until is 'A unique key is held until the first attempt starts, or until the task has ended (finish).';
comment on column rowbeat.task_definition.keep is 'Which ended tasks are kept: all, failures or none.';
comment on column rowbeat.task_definition.keep_days is 'For how many days they are kept, 1 to 30.';
comment on column rowbeat.task_definition.created_at is 'When it was defined.';

create table rowbeat.task (
    id                   bigint generated by default as identity primary key,
    definition           text not null,
    payload              jsonb not null default '{}',
    queue                text not null,
    priority             smallint not null,
    run_at               timestamptz not null,
    max_attempts         smallint not null,
    timeout              interval,
    unique_key           text,
    parked               text,
    cause                jsonb,
    created_at           timestamptz not null,
    state                text not null default 'waiting',
    attempt              integer not null default 0,
    failures             smallint not null default 0,
    claimed_by           bigint,
    claimed_at           timestamptz,
    cancel_requested_at  timestamptz,
    last_error           jsonb,
    constraint task_state_known check (state in ('waiting', 'running')),
    constraint task_running_is_claimed check ((state = 'running') = (claimed_by is not null)),
    constraint task_max_attempts_positive check (max_attempts >= 1),
    constraint task_timeout_positive check (timeout > '0'),
    constraint task_queue_named check (queue <> '')
) with (
    fillfactor = 45,
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0
);
create index task_claim on rowbeat.task (queue, priority, run_at, id) where parked is null;
create unique index task_unique on rowbeat.task (definition, unique_key) where unique_key is not null;
comment on table rowbeat.task is 'Live tasks only: waiting or running. Insert (definition, payload) and it runs.';
comment on column rowbeat.task.id is 'The task, also after it has ended; the idempotency key of its effects.';
comment on column rowbeat.task.definition is 'Which kind of task: a name in rowbeat.task_definition.';
comment on column rowbeat.task.payload is 'What the task is about; handed to the function, program or handler.';
comment on column rowbeat.task.queue is 'Which queue it waits in; from the definition when left out.';
comment on column rowbeat.task.priority is 'Smaller is sooner; from the definition when left out.';
comment on column rowbeat.task.run_at is 'Not before this time; now when left out, later while it waits for a retry.';
comment on column rowbeat.task.max_attempts is 'How many attempts may fail; from the definition when left out.';
comment on column rowbeat.task.timeout is 'Longest duration of one attempt; the definition''s when null.';
comment on column rowbeat.task.unique_key is 'At most one live task of the definition holds this key.';
comment on column rowbeat.task.parked is 'Why the claim leaves it alone, null when nothing but time holds it back.';
comment on column rowbeat.task.cause is 'What made it: {"kind": "watch" | "schedule" | "channel", "name": ...}; null for a plain insert.';
comment on column rowbeat.task.created_at is 'When it was enqueued.';
comment on column rowbeat.task.state is 'waiting or running; the view rowbeat.tasks tells scheduled, available and retryable apart.';
comment on column rowbeat.task.attempt is 'Number of the current or latest attempt; with the id it fences every write of a worker.';
comment on column rowbeat.task.failures is 'Attempts that failed, timed out or got lost; interrupted and snoozed ones do not count.';
comment on column rowbeat.task.claimed_by is 'The node (incarnation) that runs it.';
comment on column rowbeat.task.claimed_at is 'When the current or latest attempt was claimed.';
comment on column rowbeat.task.cancel_requested_at is 'When somebody asked to cancel it while it was running.';
comment on column rowbeat.task.last_error is 'What the latest failed attempt said: {"message", "sqlstate", ...}.';

create table rowbeat.finished_task (
    slot         smallint not null,
    id           bigint not null,
    definition   text not null,
    payload      jsonb not null,
    queue        text not null,
    priority     smallint not null,
    cause        jsonb,
    state        text not null,
    outcome      text not null,
    result       jsonb,
    error        jsonb,
    attempt      integer not null,
    failures     smallint not null,
    max_attempts smallint not null,
    timeout      interval,
    unique_key   text,
    node         bigint,
    created_at   timestamptz not null,
    run_at       timestamptz not null,
    started_at   timestamptz,
    finished_at  timestamptz not null,
    expires_on   date not null,
    primary key (id, slot),
    constraint finished_task_state_known check (state in ('completed', 'failed', 'cancelled'))
) partition by list (slot);
comment on table rowbeat.finished_task is 'Ended tasks, kept as their definition says; a ring of partitions by expiry day.';
comment on column rowbeat.finished_task.slot is 'Expiry day (days since 1970-01-01) modulo 32.';
comment on column rowbeat.finished_task.id is 'The task.';
comment on column rowbeat.finished_task.definition is 'Which kind of task.';
comment on column rowbeat.finished_task.payload is 'What it was about.';
comment on column rowbeat.finished_task.queue is 'The queue it waited in.';
comment on column rowbeat.finished_task.priority is 'Its priority.';
comment on column rowbeat.finished_task.cause is 'What made it; null for a plain insert.';
comment on column rowbeat.finished_task.state is 'completed, failed or cancelled.';
comment on column rowbeat.finished_task.outcome is 'How its last attempt ended: done, failed, rejected, timed_out, lost or cancelled.';
comment on column rowbeat.finished_task.result is 'What it returned.';
comment on column rowbeat.finished_task.error is 'What the last failed attempt said.';
comment on column rowbeat.finished_task.attempt is 'Number of its last attempt.';
comment on column rowbeat.finished_task.failures is 'How many attempts had failed.';
comment on column rowbeat.finished_task.max_attempts is 'How many might have failed.';
comment on column rowbeat.finished_task.timeout is 'Its own limit for one attempt, if it had one.';
comment on column rowbeat.finished_task.unique_key is 'The unique key it held to its end, if any.';
comment on column rowbeat.finished_task.node is 'The node of its last attempt.';
comment on column rowbeat.finished_task.created_at is 'When it was enqueued.';
comment on column rowbeat.finished_task.run_at is 'When its last attempt was due.';
comment on column rowbeat.finished_task.started_at is 'When its last attempt was claimed.';
comment on column rowbeat.finished_task.finished_at is 'When it ended.';
comment on column rowbeat.finished_task.expires_on is 'The day (UTC) from which it may be forgotten.';

create table rowbeat.attempt (
    slot        smallint not null,
    task_id     bigint not null,
    attempt     integer not null,
    definition  text not null,
    outcome     text not null,
    error       jsonb,
    node        bigint,
    started_at  timestamptz,
    ended_at    timestamptz not null,
    retry_at    timestamptz,
    expires_on  date not null,
    primary key (task_id, attempt, slot)
) partition by list (slot);
comment on table rowbeat.attempt is 'Attempts that did not end their task, kept 30 days; a ring of partitions by expiry day.';
comment on column rowbeat.attempt.slot is 'Expiry day (days since 1970-01-01) modulo 32.';
comment on column rowbeat.attempt.task_id is 'The task.';
comment on column rowbeat.attempt.attempt is 'Number of the attempt.';
comment on column rowbeat.attempt.definition is 'Which kind of task.';
comment on column rowbeat.attempt.outcome is 'failed, timed_out, lost, snoozed or interrupted.';
comment on column rowbeat.attempt.error is 'What it said.';
comment on column rowbeat.attempt.node is 'The node that ran it.';
comment on column rowbeat.attempt.started_at is 'When it was claimed.';
comment on column rowbeat.attempt.ended_at is 'When it ended.';
comment on column rowbeat.attempt.retry_at is 'When the next attempt is due.';
comment on column rowbeat.attempt.expires_on is 'The day (UTC) from which it may be forgotten.';

create table rowbeat.step (
    task_id   bigint not null,
    step      smallint not null,
    effect    jsonb not null,
    response  jsonb not null,
    at        timestamptz not null default now(),
    primary key (task_id, step),
    constraint step_at_most_16 check (step between 1 and 16)
);
comment on table rowbeat.step is 'Responses of a planned task''s effects, kept while it lives: a retry goes on after the last one.';
comment on column rowbeat.step.task_id is 'The task.';
comment on column rowbeat.step.step is 'Number of the step, from 1; part of the idempotency key.';
comment on column rowbeat.step.effect is 'What was performed.';
comment on column rowbeat.step.response is 'What came back.';
comment on column rowbeat.step.at is 'When.';

do $$
declare
    v_ring text;
begin
    foreach v_ring in array array['finished_task', 'attempt'] loop
        for v_slot in 0..31 loop
            execute format('create table rowbeat.%I partition of rowbeat.%I for values in (%s)',
                v_ring || '_' || to_char(v_slot, 'FM00'), v_ring, v_slot);
        end loop;
    end loop;
end $$;
