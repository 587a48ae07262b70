-- Schedules. The times are computed in one place, the daemon; here it is decided what becomes of each, and recorded.

-- Promises: the schedule exists as asked. Returns its name. Safe to repeat: an existing one of that name is changed.
-- SQLSTATEs: 22023 (bad spec, unknown zone), 23503 (unknown definition or calendar), 23514 (other values that make no sense).
create or replace function rowbeat.schedule(
    p_name             text,
    p_spec             text,
    p_definition       text,
    p_payload          jsonb default '{}',
    p_time_zone        text default 'UTC',
    p_start_at         timestamptz default null,
    p_end_at           timestamptz default null,
    p_enabled          boolean default true,
    p_one_shot         boolean default false,
    p_requires         text[] default '{}',
    p_catch_up         text default 'last',
    p_catch_up_window  interval default null,
    p_overlap          text default 'allow',
    p_jitter           interval default '0',
    p_calendar         text default null,
    p_queue            text default null,
    p_priority         integer default null
) returns text
language plpgsql volatile set search_path = '' as $$
begin
    insert into rowbeat.schedule (name, spec, definition, payload, time_zone, start_at, end_at, enabled, one_shot, requires, catch_up,
        catch_up_window, overlap, jitter, calendar, queue, priority)
    values (p_name, p_spec, p_definition, p_payload, p_time_zone, p_start_at, p_end_at, p_enabled, p_one_shot, p_requires, p_catch_up,
        p_catch_up_window, p_overlap, p_jitter, p_calendar, p_queue, p_priority)
    on conflict (name) do update
    set spec = excluded.spec, definition = excluded.definition, payload = excluded.payload, time_zone = excluded.time_zone,
        start_at = excluded.start_at, end_at = excluded.end_at, enabled = excluded.enabled, one_shot = excluded.one_shot,
        requires = excluded.requires, catch_up = excluded.catch_up, catch_up_window = excluded.catch_up_window, overlap = excluded.overlap,
        jitter = excluded.jitter, calendar = excluded.calendar, queue = excluded.queue, priority = excluded.priority;
    return p_name;
end $$;
comment on function rowbeat.schedule(text, text, text, jsonb, text, timestamptz, timestamptz, boolean, boolean, text[], text, interval, text,
    interval, text, text, integer) is 'Creates or changes a schedule; returns its name.';

-- Promises: the schedule is gone; its ledger stays. False: there was none.
create or replace function rowbeat.unschedule(p_name text) returns boolean
language plpgsql volatile set search_path = '' as $$
begin
    delete from rowbeat.schedule s where s.name = p_name;
    return found;
end $$;
comment on function rowbeat.unschedule(text) is 'Removes a schedule; false when there is none of that name.';

-- By how much the task of a fire is late on purpose: the same whenever it is asked, spread evenly over the schedule's jitter.
create or replace function rowbeat.fire_jitter(p_schedule text, p_nominal_at timestamptz, p_jitter interval) returns interval
language sql immutable parallel safe set search_path = '' as $$
    select make_interval(secs => extract(epoch from p_jitter)::double precision
        * (get_byte(h.hash, 0) * 65536 + get_byte(h.hash, 1) * 256 + get_byte(h.hash, 2)) / 16777216.0)
    from (select sha256(convert_to(p_schedule || '/' || (extract(epoch from p_nominal_at) * 1000000)::bigint, 'UTF8')) as hash) h
$$;
comment on function rowbeat.fire_jitter(text, timestamptz, interval) is 'By how much the task of a fire is due after the nominal time.';

-- The live tasks of a schedule's earlier fires: all of those that were made while its overlap was not allow (they have a serial key), and
-- the latest one anyway. Found by keys and indexes, whatever the ledger holds.
create or replace function rowbeat.live_fires(p_schedule rowbeat.schedule) returns bigint[]
language sql stable set search_path = '' as $$
    select array(
        select t.id from rowbeat.task t where t.id = p_schedule.last_task_id
        union
        select t.id from rowbeat.serial_lock l join rowbeat.task t on t.id = l.task_id where l.serial_key = 'schedule/' || p_schedule.name
        union
        select t.id from rowbeat.task t where t.parked = 'serial' and t.serial_key = 'schedule/' || p_schedule.name
        union
        select t.id from rowbeat.task t where t.parked = 'arriving' and t.serial_key = 'schedule/' || p_schedule.name
        order by 1)
$$;
comment on function rowbeat.live_fires(rowbeat.schedule) is 'The live tasks that earlier fires of a schedule made.';

-- Why a fire makes no task, or null: a day of its calendar, a missing feature, an earlier task that lives.
create or replace function rowbeat.why_no_fire(p_schedule rowbeat.schedule, p_nominal_at timestamptz) returns text
language sql stable set search_path = '' as $$
    select coalesce(
        (select format('%s is a day of calendar %s%s', d.day, d.calendar, ': ' || d.reason) from rowbeat.calendar_day d
         where d.calendar = p_schedule.calendar and d.day = (p_nominal_at at time zone p_schedule.time_zone)::date),
        (select string_agg(format('feature %s is %s', m.feature, m.why), '; ' order by m.feature)
         from rowbeat.missing_features(p_schedule.requires) m),
        (select format('task %s of an earlier fire lives, and overlap is skip', array_to_string(l.tasks, ', '))
         from (select rowbeat.live_fires(p_schedule) as tasks where p_schedule.overlap = 'skip') l where l.tasks <> '{}'))
$$;
comment on function rowbeat.why_no_fire(rowbeat.schedule, timestamptz) is 'Why a schedule makes no task at a nominal time; null: it does.';

-- Promises: this nominal time is in the ledger, once, and the task of one that fires exists. Returns that task's id, or null.
--   p_decision as the scheduler sees it: fired, caught_up, or skipped (missed, with p_reason).
-- Called by: fire, which holds the schedule's row. Locks: the fire; with overlap replace the earlier tasks, waiting for nobody: one that is
--   locked ends or is cancelled at this moment, and the new task has to wait for it anyway.
create or replace function rowbeat.decide_fire(p_schedule rowbeat.schedule, p_nominal_at timestamptz, p_decision text, p_reason text)
returns bigint
language plpgsql volatile set search_path = '' as $$
declare
    v_why      text := case when p_decision <> 'skipped' then rowbeat.why_no_fire(p_schedule, p_nominal_at) end;
    v_now      timestamptz := rowbeat.now_();
    v_task_id  bigint;
    v_earlier  bigint;
begin
    insert into rowbeat.fire (schedule, nominal_at, decision, reason, fired_at)
    values (p_schedule.name, p_nominal_at, case when v_why is null then p_decision else 'skipped' end, coalesce(v_why, p_reason), v_now)
    on conflict (schedule, nominal_at) do nothing;
    if not found or v_why is not null or p_decision = 'skipped' then
        return null;
    end if;
    if p_schedule.overlap = 'replace' then
        foreach v_earlier in array rowbeat.live_fires(p_schedule) loop
            perform from rowbeat.task t where t.id = v_earlier for update skip locked;
            if found then
                perform rowbeat.cancel(v_earlier);
            end if;
        end loop;
    end if;
    insert into rowbeat.task (definition, payload, run_at, queue, priority, serial_key, cause)
    values (p_schedule.definition, p_schedule.payload,
        greatest(v_now, p_nominal_at + rowbeat.fire_jitter(p_schedule.name, p_nominal_at, p_schedule.jitter)), p_schedule.queue,
        p_schedule.priority, case when p_schedule.overlap <> 'allow' then 'schedule/' || p_schedule.name end,
        jsonb_build_object('kind', 'schedule', 'name', p_schedule.name, 'nominal_at', p_nominal_at))
    returning id into v_task_id;
    update rowbeat.fire f set task_id = v_task_id where f.schedule = p_schedule.name and f.nominal_at = p_nominal_at;
    return v_task_id;
end $$;
comment on function rowbeat.decide_fire(rowbeat.schedule, timestamptz, text, text) is 'Records what becomes of a nominal time, and enqueues its task.';

-- Promises: for each of the schedules, its nominal times up to now are decided, and its next fire's time is stored, all or nothing, once
--   among any number of daemons: one whose next_fire_at is no longer what it was read as is left alone. Returns a row for each schedule
--   that was moved on, with the task of its latest fire.
--   p_plans: [{"schedule", "due_at" (the stored next_fire_at), "next_at", "fires": [{"at", "decision", "reason"}]}], in the order of names.
--   p_zone_data: the release of the zone data by which next_at was computed.
-- Called by: schedulers. Locks: the schedules' rows, not waiting for another scheduler that has one; see decide_fire.
create or replace function rowbeat.fire(p_plans jsonb, p_zone_data text) returns table (schedule text, decided integer, task_id bigint)
language plpgsql volatile set search_path = '' as $$
declare
    v_plan      record;
    v_fire      record;
    v_schedule  rowbeat.schedule;
    v_task_id   bigint;
begin
    for v_plan in
        select p.* from jsonb_to_recordset(p_plans) p (schedule text, due_at timestamptz, next_at timestamptz, fires jsonb)
    loop
        select * into v_schedule from rowbeat.schedule s
        where s.name = v_plan.schedule and s.next_fire_at = v_plan.due_at and s.enabled
        for update skip locked;
        continue when not found;
        schedule := v_plan.schedule;
        decided := 0;
        task_id := null;
        for v_fire in select f.* from jsonb_to_recordset(v_plan.fires) f (at timestamptz, decision text, reason text) loop
            v_task_id := rowbeat.decide_fire(v_schedule, v_fire.at, v_fire.decision, v_fire.reason);
            decided := decided + 1;
            v_schedule.last_fire_at := v_fire.at;
            v_schedule.last_task_id := coalesce(v_task_id, v_schedule.last_task_id);
            task_id := coalesce(v_task_id, task_id);
            exit when v_schedule.one_shot and task_id is not null;
        end loop;
        update rowbeat.schedule s
        set next_fire_at = v_plan.next_at, last_fire_at = v_schedule.last_fire_at, last_task_id = v_schedule.last_task_id,
            enabled = not (s.one_shot and task_id is not null), planned_at = rowbeat.now_(), zone_data = p_zone_data, last_error = null
        where s.name = v_plan.schedule;
        return next;
    end loop;
end $$;
comment on function rowbeat.fire(jsonb, text) is 'Decides what becomes of due nominal times, and moves their schedules on, once.';
