-- Why is this task not running, and why does this schedule fire or not?

-- What holds a lane back as a whole, one row each.
create or replace function rowbeat.explain_lane(p_definition text, p_queue text)
returns table (reason text, detail text, expected_at timestamptz)
language sql stable set search_path = '' as $$
    select 'paused', format('definition %s is paused since %s; rowbeat.resume(p_definition => %L) ends that', d.name, d.paused_at, d.name), null::timestamptz
    from rowbeat.task_definition d where d.name = p_definition and d.paused_at is not null
    union all
    select 'paused', format('queue %s is paused since %s; rowbeat.resume(p_queue => %L) ends that', q.name, q.paused_at, q.name), null
    from rowbeat.queue q where q.name = p_queue and q.paused_at is not null
    union all
    select 'missing feature', format('feature %s is %s', m.feature, m.why), null
    from rowbeat.task_definition d cross join lateral rowbeat.missing_features(d.requires) m
    where d.name = p_definition
    union all
    select case when s.scope like 'rate/%' then 'rate limit' else 'concurrency limit' end,
        format('the limit %s of %s is reached, by %s', s.scope, count(*), case
            when s.scope like 'rate/%' then 'tasks started lately'
            else 'tasks ' || array_to_string((array_agg(s.task_id order by s.task_id))[1:20], ', ') end),
        case when s.scope like 'rate/%' then min(s.free_at) end
    from rowbeat.limit_slot s
    where s.scope = any (rowbeat.lane_scopes(p_definition, p_queue))
    group by s.scope
    having bool_and(s.task_id is not null and (s.scope not like 'rate/%' or s.free_at > rowbeat.now_()))
    union all
    select 'no node', case
        when d.executor = 'external' then format('it waits for a foreign worker: rowbeat.claim(worker, p_definitions => ''{%s}'')', d.name)
        when n.alive = 0 then 'no daemon is running'
        when n.serving = 0 then format('no running daemon serves queue %s', p_queue)
        else format('no running daemon that serves queue %s has what %s needs: a handler, program or connection', p_queue, d.name) end, null
    from rowbeat.task_definition d cross join lateral (
        select count(*) as alive, count(*) filter (where w.serves) as serving,
            count(*) filter (where w.serves and d.name <> all (w.lacks)) as able
        from (select a.lacks, a.queues = '{*}' or p_queue = any (a.queues) as serves
            from rowbeat.nodes a where a.state = 'alive') w
    ) n
    where d.name = p_definition and (n.able = 0 or d.executor = 'external')
$$;
comment on function rowbeat.explain_lane(text, text) is 'What holds back all tasks of a definition in a queue.';

-- How many due tasks are ahead in the same lane (counted up to 10,000), and when it may be its turn at the nodes' latest pace.
create or replace function rowbeat.explain_line(p_task rowbeat.task) returns table (reason text, detail text, expected_at timestamptz)
language sql stable set search_path = '' as $$
    select 'in line', format('%s%s due tasks of %s are ahead of it', ahead.n, case when ahead.n = 10000 then ' or more' else '' end, p_task.definition),
        rowbeat.now_() + ahead.n / nullif(pace.rate, 0) * interval '1 second'
    from (
        select count(*) as n from (
            select from rowbeat.task t
            where t.queue = p_task.queue and t.priority = p_task.priority and t.definition = p_task.definition and t.parked is null
                and t.run_at <= rowbeat.now_() and (t.run_at, t.id) < (p_task.run_at, p_task.id) and t.state = 'waiting' limit 10000
        ) l
    ) ahead, (select sum(n.rate) as rate from rowbeat.nodes n where n.state = 'alive') pace
$$;
comment on function rowbeat.explain_line(rowbeat.task) is 'How many tasks are ahead of a due one.';

-- Promises: every reason why the task is not running, or what it is doing, at least one row; expected_at where it can be told.
-- Called by: people. Locks: nothing. SQLSTATEs: RB004 (no such task).
create or replace function rowbeat.explain_task(p_task_id bigint) returns table (reason text, detail text, expected_at timestamptz)
language plpgsql stable set search_path = '' as $$
declare
    v_task      rowbeat.task;
    v_finished  record;
begin
    select * into v_task from rowbeat.task t where t.id = p_task_id;
    if not found then
        select f.state, f.finished_at, f.error into v_finished from rowbeat.finished_task f where f.id = p_task_id;
        if not found then
            perform rowbeat.refuse_unknown(p_task_id);
        end if;
        return query select 'ended', format('%s at %s%s', v_finished.state, v_finished.finished_at, ': ' || (v_finished.error ->> 'message')),
            null::timestamptz;
        return;
    elsif v_task.state = 'running' then
        return query select case when v_task.cancel_requested_at is null then 'running' else 'cancelling' end,
            format('attempt %s on %s since %s', v_task.attempt, n.name, v_task.claimed_at), null::timestamptz
        from rowbeat.node n where n.id = v_task.claimed_by;
        return;
    end if;
    if v_task.run_at > rowbeat.now_() then
        return query select 'not due', case when v_task.failures > 0
            then format('retried after %s failed attempts, the last one: %s', v_task.failures, v_task.last_error ->> 'message')
            else 'its time has not come' end, v_task.run_at;
    end if;
    if v_task.parked in ('serial', 'arriving') then
        return query select 'serial key', format('key %s: %s', v_task.serial_key, coalesce(
            (select format('task %s has the turn, %s more are before this one', l.task_id,
                (select count(*) from rowbeat.task b where b.serial_key = v_task.serial_key and b.parked = 'serial' and b.id < p_task_id))
             from rowbeat.serial_lock l where l.serial_key = v_task.serial_key), 'it is about to get its turn')), null::timestamptz;
    elsif v_task.parked = 'isolated' then
        return query select 'isolated', 'two nodes died while they had it: it runs when a node has nothing else to do', null::timestamptz;
    elsif v_task.parked = 'quarantined' then
        return query select 'quarantined', 'three nodes died while they had it; rowbeat.run_now trusts it again, rowbeat.cancel ends it', null::timestamptz;
    end if;
    return query select * from rowbeat.explain_lane(v_task.definition, v_task.queue);
    if v_task.run_at <= rowbeat.now_() and v_task.parked is null then
        return query select * from rowbeat.explain_line(v_task);
    end if;
end $$;
comment on function rowbeat.explain_task(bigint) is 'Why a task is not running: one row for each reason, with the time it ends where that is known.';

-- Promises: when the schedule fires next and everything that stands in its way, at least one row; expected_at where a time belongs to it.
--   No row: there is no such schedule. Called by: people. Locks: nothing.
create or replace function rowbeat.explain_schedule(p_name text) returns table (reason text, detail text, expected_at timestamptz)
language sql stable set search_path = '' as $$
    with schedule as (select s.* from rowbeat.schedule s where s.name = p_name)
    select case when s.enabled and s.planned_at is not null and s.last_error is null and s.next_fire_at is not null then 'next fire' else u.status end,
        case
            when not s.enabled and s.one_shot and s.last_fire_at is not null
                then format('its one fire was that of %s; set enabled again for another one', s.last_fire_at)
            when not s.enabled then 'set enabled and it is planned from then on'
            when s.last_error is not null then 'correct the spec or the time zone, or look at what the database refused'
            when s.planned_at is null then 'a daemon computes the next fire as soon as it sees it'
            when s.next_fire_at is null and s.end_at is not null then format('it ends at %s', s.end_at)
            when s.next_fire_at is null then 'its time is over'
            when s.next_fire_at <= rowbeat.now_() then 'it is due'
            else format('%s in %s%s', u.next_fire_local, s.time_zone,
                case when s.jitter > '0' then format('; its task is due %s later, for jitter',
                    rowbeat.fire_jitter(s.name, s.next_fire_at, s.jitter)) end)
        end, s.next_fire_at
    from schedule s join rowbeat.upcoming u on u.name = s.name
    union all
    select 'no daemon', 'no daemon is running; what it misses is up to catch_up', null
    from schedule s where not exists (select from rowbeat.nodes n where n.state = 'alive')
    union all
    select 'missing feature', format('feature %s is %s: its fires are skipped', m.feature, m.why), null
    from schedule s cross join lateral rowbeat.missing_features(s.requires) m
    union all
    select * from (
        select 'black-out day', format('no fire on %s, a day of calendar %s%s', c.day, c.calendar, ': ' || c.reason),
            c.day::timestamp at time zone s.time_zone
        from schedule s join rowbeat.calendar_day c on c.calendar = s.calendar and c.day >= (rowbeat.now_() at time zone s.time_zone)::date
        order by c.day limit 5
    ) days
    union all
    select 'earlier task', format('task %s of an earlier fire lives: the next one %s', array_to_string(l.tasks, ', '),
        case s.overlap when 'skip' then 'is skipped' when 'queue' then 'waits for it' when 'replace' then 'cancels it' else 'runs beside it' end), null
    from schedule s cross join lateral (select rowbeat.live_fires(s::rowbeat.schedule) as tasks) l where l.tasks <> '{}'
    union all
    select 'tasks: ' || e.reason, e.detail, e.expected_at
    from schedule s join rowbeat.task_definition d on d.name = s.definition
    cross join lateral rowbeat.explain_lane(s.definition, coalesce(s.queue, d.queue)) e
$$;
comment on function rowbeat.explain_schedule(text) is 'When a schedule fires next and what stands in its way.';
