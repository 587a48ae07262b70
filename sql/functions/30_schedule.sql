-- Schedules. The times are computed in one place, the daemon; here they are recorded.

-- Promises: the schedule exists as asked. Returns its name. Safe to repeat: an existing one of that name is changed.
-- SQLSTATEs: 22023 (unknown zone), 23503 (unknown definition).
create or replace function rowbeat.schedule(
    p_name        text,
    p_spec        text,
    p_definition  text,
    p_payload     jsonb default '{}',
    p_time_zone   text default 'UTC',
    p_start_at    timestamptz default null,
    p_end_at      timestamptz default null
) returns text
language plpgsql volatile set search_path = '' as $$
begin
    insert into rowbeat.schedule (name, spec, definition, payload, time_zone, start_at, end_at)
    values (p_name, p_spec, p_definition, p_payload, p_time_zone, p_start_at, p_end_at)
    on conflict (name) do update
    set spec = excluded.spec, definition = excluded.definition, payload = excluded.payload, time_zone = excluded.time_zone,
        start_at = excluded.start_at, end_at = excluded.end_at, enabled = true;
    return p_name;
end $$;
comment on function rowbeat.schedule(text, text, text, jsonb, text, timestamptz, timestamptz) is 'Creates or changes a schedule; returns its name.';

-- Promises: the schedule is gone; its ledger stays. False: there was none.
create or replace function rowbeat.unschedule(p_name text) returns boolean
language plpgsql volatile set search_path = '' as $$
begin
    delete from rowbeat.schedule s where s.name = p_name;
    return found;
end $$;
comment on function rowbeat.unschedule(text) is 'Removes a schedule; false when there is none of that name.';

-- Promises: the fire of p_nominal_at, its task and the next fire's time, all or nothing, once among any number of
--   daemons: whoever finds next_fire_at no longer at p_due_at does nothing and gets null. Returns the task's id.
--   p_due_at is the stored next_fire_at; p_nominal_at a later one when fires were missed (p_missed of them).
-- Called by: schedulers. Locks: the schedule's row, not waiting for another scheduler that has it.
create or replace function rowbeat.fire(
    p_schedule text, p_due_at timestamptz, p_nominal_at timestamptz, p_next_at timestamptz, p_missed integer
) returns bigint
language plpgsql volatile set search_path = '' as $$
declare
    v_schedule  rowbeat.schedule;
    v_task_id   bigint;
begin
    select * into v_schedule from rowbeat.schedule s
    where s.name = p_schedule and s.next_fire_at = p_due_at and s.enabled
    for update skip locked;
    if not found then
        return null;
    end if;
    insert into rowbeat.fire (schedule, nominal_at, decision, reason, fired_at)
    values (p_schedule, p_nominal_at, case when p_missed = 0 then 'fired' else 'caught_up' end,
        case when p_missed > 0 then format('%s earlier fires passed while no daemon ran', p_missed) end, rowbeat.now_())
    on conflict (schedule, nominal_at) do nothing;
    if found then
        insert into rowbeat.task (definition, payload, cause)
        values (v_schedule.definition, v_schedule.payload,
            jsonb_build_object('kind', 'schedule', 'name', p_schedule, 'nominal_at', p_nominal_at))
        returning id into v_task_id;
        update rowbeat.fire f set task_id = v_task_id where f.schedule = p_schedule and f.nominal_at = p_nominal_at;
    end if;
    update rowbeat.schedule s
    set next_fire_at = p_next_at, last_fire_at = p_nominal_at, last_task_id = coalesce(v_task_id, s.last_task_id),
        planned_at = rowbeat.now_()
    where s.name = p_schedule;
    return v_task_id;
end $$;
comment on function rowbeat.fire(text, timestamptz, timestamptz, timestamptz, integer) is 'Records a fire, enqueues its task and moves the schedule on, once.';
