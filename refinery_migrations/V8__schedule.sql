-- Schedules complete: what happens to missed fires and to those whose earlier task still lives, jitter, one-shot, features, days without
-- fires, and by which zone data a time was computed. Locks: exclusively, and shortly, schedule and fire; building the index over the
-- ledger takes a moment for each million fires.

drop view if exists rowbeat.upcoming;
drop function if exists rowbeat.schedule(text, text, text, jsonb, text, timestamptz, timestamptz);
drop function if exists rowbeat.fire(text, timestamptz, timestamptz, timestamptz, integer);

create table rowbeat.calendar (
    name         text primary key,
    description  text,
    constraint calendar_named check (name <> '')
);
comment on table rowbeat.calendar is 'Black-out calendars: days on which schedules that name them do not fire.';
comment on column rowbeat.calendar.name is 'What schedules refer to.';
comment on column rowbeat.calendar.description is 'For people.';

create table rowbeat.calendar_day (
    calendar  text not null references rowbeat.calendar (name) on update cascade on delete cascade,
    day       date not null,
    reason    text,
    primary key (calendar, day)
);
comment on table rowbeat.calendar_day is 'The days of black-out calendars.';
comment on column rowbeat.calendar_day.calendar is 'The calendar.';
comment on column rowbeat.calendar_day.day is 'A day without fires, in the time zone of each schedule.';
comment on column rowbeat.calendar_day.reason is 'Why; the ledger repeats it.';

alter table rowbeat.schedule
    add column one_shot         boolean not null default false,
    add column requires         text[] not null default '{}',
    add column catch_up         text not null default 'last',
    add column catch_up_window  interval,
    add column overlap          text not null default 'allow',
    add column jitter           interval not null default '0',
    add column calendar         text references rowbeat.calendar (name) on update cascade,
    add column queue            text,
    add column priority         smallint,
    add column zone_data        text,
    add constraint schedule_catch_up_known check (catch_up in ('skip', 'last', 'all')),
    add constraint schedule_catch_up_window_fits check (catch_up_window between '1 second' and '36525 days'),
    add constraint schedule_overlap_known check (overlap in ('allow', 'skip', 'queue', 'replace')),
    add constraint schedule_jitter_fits check (jitter between '0' and '31 days'),
    add constraint schedule_queue_named check (queue <> ''),
    -- What the daemon cannot count with must not reach it: infinity, and years that are none.
    add constraint schedule_times_fit check (start_at between '1900-01-01' and '9999-12-31' and end_at between '1900-01-01' and '9999-12-31');
create index schedule_unplanned on rowbeat.schedule (name) where enabled and planned_at is null;
comment on column rowbeat.schedule.one_shot is 'True: it disables itself after one fire that made a task.';
comment on column rowbeat.schedule.requires is 'Features without which a fire is skipped: names in rowbeat.feature, looked at when it fires.';
comment on column rowbeat.schedule.catch_up is 'What becomes of fires that passed while no daemon ran: skip (nothing), last (the latest one fires) or all.';
comment on column rowbeat.schedule.catch_up_window is 'How far back they are caught up; null: last without a bound, all for a day.';
comment on column rowbeat.schedule.overlap is 'What a fire does while the task of an earlier one lives: allow, skip, queue (one after the other) or replace (cancels the earlier one, and starts when it has stopped).';
comment on column rowbeat.schedule.jitter is 'Tasks are due up to so much after the nominal time, by a hash of schedule and nominal time.';
comment on column rowbeat.schedule.calendar is 'Days on which it does not fire: a name in rowbeat.calendar.';
comment on column rowbeat.schedule.queue is 'Queue of its tasks; the definition''s when null.';
comment on column rowbeat.schedule.priority is 'Priority of its tasks; the definition''s when null.';
comment on column rowbeat.schedule.zone_data is 'The release of the zone data by which next_fire_at was computed.';

create index fire_decided on rowbeat.fire using brin (fired_at);
comment on column rowbeat.fire.decision is 'fired, caught_up (late, after missed ones) or skipped (no task: see the reason).';
comment on column rowbeat.fire.reason is 'Why, when it was not simply fired: missed, a black-out day, a missing feature, an earlier task that lives.';
comment on column rowbeat.fire.fired_at is 'When it was decided; before nominal_at never.';
