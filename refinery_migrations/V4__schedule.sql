-- Schedules and the ledger of their fires. The ledger's key makes a fire unique, and it outlives the task that the fire
-- made, so it answers why something did or did not happen. Locks: new tables only.

create table rowbeat.schedule (
    name          text primary key,
    definition    text not null references rowbeat.task_definition (name) on update cascade,
    payload       jsonb not null default '{}',
    spec          text not null,
    time_zone     text not null default 'UTC',
    start_at      timestamptz,
    end_at        timestamptz,
    enabled       boolean not null default true,
    anchor        timestamptz not null,
    plan_from     timestamptz not null,
    planned_at    timestamptz,
    next_fire_at  timestamptz,
    last_fire_at  timestamptz,
    last_task_id  bigint,
    last_error    text,
    created_at    timestamptz not null default now(),
    constraint schedule_ends_after_start check (end_at > start_at)
);
create index schedule_due on rowbeat.schedule (next_fire_at) where enabled;
comment on table rowbeat.schedule is 'When to enqueue what: cron, every, or at, in a time zone.';
comment on column rowbeat.schedule.name is 'Name of the schedule.';
comment on column rowbeat.schedule.definition is 'The task definition it enqueues.';
comment on column rowbeat.schedule.payload is 'Payload of its tasks.';
comment on column rowbeat.schedule.spec is '''*/15 9-17 * * 1-5'', ''@daily'', ''every 15 minutes'' or ''at 2027-01-31 09:00''.';
comment on column rowbeat.schedule.time_zone is 'IANA zone in which cron fields and at are read.';
comment on column rowbeat.schedule.start_at is 'No fire before this time.';
comment on column rowbeat.schedule.end_at is 'No fire from this time on.';
comment on column rowbeat.schedule.enabled is 'False: it does not fire.';
comment on column rowbeat.schedule.anchor is 'Where intervals count from: start_at, or when the spec was written.';
comment on column rowbeat.schedule.plan_from is 'The latest edit that matters: fires before it are not missed ones.';
comment on column rowbeat.schedule.planned_at is 'When a daemon computed the next fire; null: being planned.';
comment on column rowbeat.schedule.next_fire_at is 'Nominal time of the next fire; null when planned: there is none.';
comment on column rowbeat.schedule.last_fire_at is 'Nominal time of the latest fire.';
comment on column rowbeat.schedule.last_task_id is 'The task it made.';
comment on column rowbeat.schedule.last_error is 'Why it could not be planned.';
comment on column rowbeat.schedule.created_at is 'When it was made.';

create table rowbeat.fire (
    schedule    text not null,
    nominal_at  timestamptz not null,
    decision    text not null,
    reason      text,
    task_id     bigint,
    fired_at    timestamptz not null,
    primary key (schedule, nominal_at),
    constraint fire_decision_known check (decision in ('fired', 'caught_up', 'skipped'))
);
comment on table rowbeat.fire is 'Ledger of fires: what was decided at each nominal time, and why.';
comment on column rowbeat.fire.schedule is 'The schedule.';
comment on column rowbeat.fire.nominal_at is 'The time the schedule called for.';
comment on column rowbeat.fire.decision is 'fired, caught_up (late, after missed ones) or skipped.';
comment on column rowbeat.fire.reason is 'Why, when it was not simply fired.';
comment on column rowbeat.fire.task_id is 'The task it made, if any.';
comment on column rowbeat.fire.fired_at is 'When it was decided.';
