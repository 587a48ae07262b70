-- The claim: one for daemons and foreign workers.
--
-- Tasks wait in lanes (queue, priority, definition). What holds back a whole definition or queue is decided once per lane, so
-- nothing that cannot be claimed is walked over: a paused or full lane is not entered, and future tasks lie behind the due ones.
-- Lanes of the same priority share a claim evenly, the one that has waited longest first; within a lane the order is run_at, id.

-- Promises: the lanes that nothing holds back as a whole. p_lanes: only these are looked at; null: all lanes with live tasks are found,
--   by a loose scan of the claim index. p_only: only these definitions; null: all. p_external: those of foreign workers, or all others.
-- Called by: claim_tasks, next_due, explain_task.
create or replace function rowbeat.open_lanes(
    p_lanes rowbeat.lane[], p_queues text[], p_except text[], p_only text[], p_external boolean
) returns rowbeat.lane[]
language plpgsql volatile set search_path = '' as $$
begin
    return array(
        with recursive found as (
            (select t.queue, t.priority, t.definition from rowbeat.task t
             where t.parked is null and p_lanes is null order by t.queue, t.priority, t.definition limit 1)
            union all
            select n.queue, n.priority, n.definition from found f cross join lateral (
                select t.queue, t.priority, t.definition from rowbeat.task t
                where t.parked is null and (t.queue, t.priority, t.definition) > (f.queue, f.priority, f.definition)
                order by t.queue, t.priority, t.definition limit 1
            ) n
        ), lane as (
            select f.queue, f.priority, f.definition, '-infinity'::timestamptz as after_run_at, 0::bigint as after_id from found f
            union all
            select l.queue, l.priority, l.definition, l.after_run_at, l.after_id from unnest(p_lanes) l
        )
        select row(l.queue, l.priority, l.definition, l.after_run_at, l.after_id,
            d.concurrency is not null or d.rate is not null or q.concurrency is not null)::rowbeat.lane
        from lane l
        join rowbeat.task_definition d on d.name = l.definition
        left join rowbeat.queue q on q.name = l.queue
        where d.paused_at is null and q.paused_at is null and (d.executor = 'external') = p_external
            and (p_queues = '{*}' or l.queue = any (p_queues)) and d.name <> all (p_except) and (p_only is null or d.name = any (p_only))
            and (d.requires = '{}' or d.requires <@ array(
                select f.name from rowbeat.feature f where f.enabled and (f.condition is null or f.condition_holds))));
end $$;
comment on function rowbeat.open_lanes(rowbeat.lane[], text[], text[], text[], boolean) is 'The lanes that nothing holds back as a whole.';

-- Promises: up to p_limit due tasks of a lane, locked; of a limited one also locked slots, as many as tasks, given to them.
-- Called by: claim_tasks. Locks: slots, then task rows; waits for nobody. A row that changed between snapshot and lock is missed
--   once. Taken by ctid: an InitPlan and a TID scan under any plan.
create or replace function rowbeat.lock_lane(p_lane rowbeat.lane, p_limit integer, p_now timestamptz) returns tid[]
language plpgsql volatile set search_path = '' as $$
declare
    v_tids    tid[];
    v_tasks   bigint[];
    v_scopes  text[] := '{}';
    v_slots   integer[];
    v_taken   jsonb := '[]';
    v_scope   text;
    v_limit   integer := p_limit;
begin
    if p_lane.limited then
        v_scopes := rowbeat.lane_scopes(p_lane.definition, p_lane.queue);
        foreach v_scope in array v_scopes loop
            v_slots := rowbeat.lock_slots(v_scope, v_limit, p_now);
            v_taken := v_taken || jsonb_build_array(to_jsonb(v_slots));
            v_limit := cardinality(v_slots);
        end loop;
    end if;
    v_tids := array(
        select c.ctid from rowbeat.task c
        where c.queue = p_lane.queue and c.priority = p_lane.priority and c.definition = p_lane.definition and c.parked is null
            and c.state = 'waiting' and c.run_at <= p_now and (c.run_at, c.id) > (p_lane.after_run_at, p_lane.after_id)
        order by c.run_at, c.id limit v_limit for update skip locked);
    if p_lane.limited and v_tids <> '{}' then
        v_tasks := array(select t.id from rowbeat.task t where t.ctid = any (v_tids));
        for i in 1..cardinality(v_scopes) loop
            perform rowbeat.take_slots(v_scopes[i], array(select jsonb_array_elements_text(v_taken -> (i - 1))::integer), v_tasks,
                (select d.rate_period from rowbeat.task_definition d where d.name = p_lane.definition));
        end loop;
    end if;
    return v_tids;
end $$;
comment on function rowbeat.lock_lane(rowbeat.lane, integer, timestamptz) is 'Locks due tasks of a lane, with the slots they need.';

-- Promises: up to p_limit due tasks run on p_node from now, each with its next attempt number; the first p_begin of them start at once,
--   the others are claimed ahead. p_lanes: where to look; null: everywhere, and a daemon gives arrivals with a serial key their turn first.
-- The definition comes along as the claim saw it: the caller's own snapshot may be older than the definition is.
-- Called by: dispatchers, and claim for foreign workers (p_lease: until when they have them).
-- Locks: slots of limits, then task rows; waits for nobody.
create or replace function rowbeat.claim_tasks(
    p_node bigint, p_limit integer, p_begin integer, p_queues text[], p_except text[], p_lanes rowbeat.lane[],
    p_only text[] default null, p_external boolean default false, p_lease interval default null
) returns setof rowbeat.claimed
language plpgsql volatile set search_path = '' as $$
declare
    v_now      timestamptz := rowbeat.now_();
    v_lane     record;
    v_tids     tid[] := '{}';
    v_locked   tid[];
    v_begin    tid[];
    v_limited  tid[] := '{}';
begin
    -- Not in a foreign worker's transaction, which may be long: nobody else admits meanwhile.
    if p_lanes is null and not p_external then
        perform rowbeat.admit_serial();
    end if;
    for v_lane in
        select l as lane, l.limited, row_number() over (partition by l.priority order by head.run_at desc, head.id desc) as lanes_left
        from unnest(rowbeat.open_lanes(p_lanes, p_queues, p_except, p_only, p_external)) l cross join lateral (
            select c.run_at, c.id from rowbeat.task c
            where c.queue = l.queue and c.priority = l.priority and c.definition = l.definition and c.parked is null
                and c.state = 'waiting' and c.run_at <= v_now and (c.run_at, c.id) > (l.after_run_at, l.after_id)
            order by c.run_at, c.id limit 1
        ) head
        order by l.priority, head.run_at, head.id
    loop
        v_locked := rowbeat.lock_lane(v_lane.lane, ceil((p_limit - cardinality(v_tids))::numeric / v_lane.lanes_left)::integer, v_now);
        v_tids := v_tids || v_locked;
        if v_lane.limited then
            v_limited := v_limited || v_locked;
        end if;
        exit when cardinality(v_tids) >= p_limit;
    end loop;
    if v_tids <> '{}' then
        v_begin := v_tids[1:p_begin];
        -- A daemon's claim does not wait for the disk: what the server forgets of it in a crash is claimed anew, as after any crash.
        -- Limits must not be forgotten, nor turns, but for those of sql tasks: what these have done is forgotten with them.
        if not p_external and v_limited = '{}' and (not exists (select from rowbeat.serial_lock) or not exists (
            select from rowbeat.task t join rowbeat.task_definition d on d.name = t.definition
            where t.ctid = any (v_tids) and t.serial_key is not null and d.executor <> 'sql')) then
            perform set_config('synchronous_commit', 'off', true);
        end if;
        return query
        update rowbeat.task t
        set state = 'running', attempt = t.attempt + 1, claimed_by = p_node, claimed_at = v_now, begun = t.ctid = any (v_begin),
            slots = t.ctid = any (v_limited), lease_until = v_now + p_lease,
            unique_key = case when d.unique_until = 'finish' then t.unique_key end
        from rowbeat.task_definition d
        where d.name = t.definition and t.ctid = any (v_tids)
        returning t.id, t.attempt, t.definition, t.payload, t.queue, t.priority, t.run_at, t.cause, t.begun, t.lease_until, d.executor,
            nullif(d.effect, '{}'), d.plan_function is not null, d.settle_function is not null, d.sql_batch, coalesce(t.timeout, d.timeout),
            d.xmin::text::bigint;
    end if;
end $$;
comment on function rowbeat.claim_tasks(bigint, integer, integer, text[], text[], rowbeat.lane[], text[], boolean, interval) is 'Claims due tasks for a node or worker.';

-- Promises: one due task that two nodes in a row died with runs on p_node from now; its pauses and limits hold as always.
-- Called by: dispatchers with nothing else in hand. Locks: as claim_tasks, and one isolated task without waiting.
create or replace function rowbeat.claim_isolated(p_node bigint, p_queues text[], p_except text[]) returns setof rowbeat.claimed
language plpgsql volatile set search_path = '' as $$
declare
    v_task  rowbeat.task;
begin
    select * into v_task from rowbeat.task t
    where t.parked = 'isolated' and t.run_at <= rowbeat.now_() and (p_queues = '{*}' or t.queue = any (p_queues))
        and t.definition <> all (p_except)
        and rowbeat.open_lanes(array[row(t.queue, t.priority, t.definition, t.run_at, t.id, null)::rowbeat.lane], '{*}', '{}', null, false) <> '{}'
    order by t.id limit 1 for update skip locked;
    if found then
        update rowbeat.task t set parked = null where t.id = v_task.id;
        return query select * from rowbeat.claim_tasks(p_node, 1, 1, '{*}', '{}', array[
            row(v_task.queue, v_task.priority, v_task.definition, v_task.run_at, v_task.id - 1, null)::rowbeat.lane]);
        if not found then
            update rowbeat.task t set parked = 'isolated' where t.id = v_task.id;  -- its limits are reached
        end if;
    end if;
end $$;
comment on function rowbeat.claim_isolated(bigint, text[], text[]) is 'Claims a task that two nodes in a row died with, for a node with nothing else in hand.';

-- Promises: when to look for work again, in milliseconds: when the next waiting task of an open lane or the next slot of a rate is
--   due, soon if due tasks or serial keys were locked by somebody just now; null: nothing is to come. Who waits for a slot of a concurrency limit or
--   for his turn is rung for.
-- Called by: dispatchers that found nothing.
create or replace function rowbeat.next_due(p_queues text[], p_except text[]) returns bigint
language plpgsql volatile set search_path = '' as $$
declare
    v_now   timestamptz := rowbeat.now_();
    v_next  timestamptz;
begin
    select least(
        min(coming.run_at),
        min(v_now + interval '50 milliseconds') filter (where not l.limited and due.id is not null),
        (select min(s.free_at) from rowbeat.limit_slot s where s.free_at > v_now),
        (select v_now + interval '200 milliseconds' where exists (select from rowbeat.task t where t.parked = 'arriving')
            or exists (select from rowbeat.serial_lock v where v.task_id is null)))
    into v_next
    from unnest(rowbeat.open_lanes(null, p_queues, p_except, null, false)) l
    left join lateral (
        select c.run_at from rowbeat.task c
        where c.queue = l.queue and c.priority = l.priority and c.definition = l.definition and c.parked is null
            and c.state = 'waiting' and c.run_at > v_now
        order by c.run_at limit 1
    ) coming on true
    left join lateral (
        select c.id from rowbeat.task c
        where c.queue = l.queue and c.priority = l.priority and c.definition = l.definition and c.parked is null
            and c.state = 'waiting' and c.run_at <= v_now
        order by c.run_at limit 1
    ) due on true;
    return case when v_next is not null then greatest(ceil(extract(epoch from v_next - v_now) * 1000), 0) end;
end $$;
comment on function rowbeat.next_due(text[], text[]) is 'When to look for work again, in milliseconds; null: nothing is to come.';
