-- Limits. Each limit has as many slots as it allows; who starts a limited task takes one of each of its limits, skipping what
-- others hold locked, and gives it back in the transaction that ends the attempt. So a limit holds at every instant, on all
-- nodes together, without a row that everybody updates. Scopes: concurrency/<definition>, rate/<definition>, queue/<queue>.

-- Promises: the scope has as many slots as wanted (null: none). Tasks that run already take theirs. When a limit is lowered, free
--   slots go first; what is too many among the taken ones is retired and goes with the next that is given back.
-- Called by: the triggers of task_definition and queue. Locks: slots of the scope. Safe to repeat.
create or replace function rowbeat.fit_slots(p_scope text, p_wanted integer, p_running bigint[] default '{}') returns void
language plpgsql volatile set search_path = '' as $$
declare
    v_have     integer;
    v_surplus  integer;
begin
    if p_wanted is null then
        delete from rowbeat.limit_slot s where s.scope = p_scope;
        return;
    end if;
    -- Retired ones are taken back first: the limit was raised again.
    update rowbeat.limit_slot s set retired = false where s.scope = p_scope and s.retired;
    select count(*) into v_have from rowbeat.limit_slot s where s.scope = p_scope;
    insert into rowbeat.limit_slot (scope, n, task_id)
    select p_scope, free.n, case when v_have = 0 then p_running[row_number() over (order by free.n)] end
    from (select g as n from generate_series(1, greatest(p_wanted, cardinality(p_running)) + v_have) g
        where not exists (select from rowbeat.limit_slot s where s.scope = p_scope and s.n = g)
        order by g limit greatest(case when v_have = 0 then greatest(p_wanted, cardinality(p_running)) else p_wanted end - v_have, 0)) free;
    select count(*) - p_wanted into v_surplus from rowbeat.limit_slot s where s.scope = p_scope;
    if v_surplus > 0 then
        with gone as (
            delete from rowbeat.limit_slot s where s.scope = p_scope and s.n in (
                select f.n from rowbeat.limit_slot f where f.scope = p_scope and (f.task_id is null or f.scope like 'rate/%')
                order by f.free_at limit v_surplus)
            returning 1
        )
        select v_surplus - count(*) into v_surplus from gone;
        update rowbeat.limit_slot s set retired = true where s.scope = p_scope and s.n in (
            select t.n from rowbeat.limit_slot t where t.scope = p_scope and t.task_id is not null order by t.n limit v_surplus);
    end if;
end $$;
comment on function rowbeat.fit_slots(text, integer, bigint[]) is 'Gives a limit as many slots as it allows.';

-- Promises: those of the tasks that still run will give slots back when they end. Called by: the triggers of task_definition and queue.
-- Locks: the task rows, without waiting: one that is being ended needs no slot.
create or replace function rowbeat.mark_running(p_tasks bigint[]) returns bigint[]
language sql volatile set search_path = '' as $$
    with running as (
        select t.id from rowbeat.task t where t.id = any (p_tasks) and t.state = 'running' for update skip locked
    ), marked as (
        update rowbeat.task t set slots = true from running r where t.id = r.id returning t.id
    )
    select coalesce(array_agg(m.id), '{}') from marked m
$$;
comment on function rowbeat.mark_running(bigint[]) is 'Marks running tasks as holders of slots; returns those that still run.';

-- The limits of a lane that are in force.
create or replace function rowbeat.lane_scopes(p_definition text, p_queue text) returns text[]
language sql stable set search_path = '' as $$
    select array_remove(array[
        (select 'concurrency/' || d.name from rowbeat.task_definition d where d.name = p_definition and d.concurrency is not null),
        (select 'rate/' || d.name from rowbeat.task_definition d where d.name = p_definition and d.rate is not null),
        (select 'queue/' || q.name from rowbeat.queue q where q.name = p_queue and q.concurrency is not null)], null)
$$;
comment on function rowbeat.lane_scopes(text, text) is 'The limits that hold for tasks of this definition in this queue.';

-- Promises: p_wanted free slots of the scope, or as many as there are, locked until the transaction ends; by n. They were free at p_now,
--   the time that the claim puts on record: one that was given back since then would show two tasks in one slot.
-- Called by: claim_tasks. Locks: those slots, waiting for nobody.
create or replace function rowbeat.lock_slots(p_scope text, p_wanted integer, p_now timestamptz) returns integer[]
language sql volatile set search_path = '' as $$
    select array(
        select s.n from rowbeat.limit_slot s
        where s.scope = p_scope and not s.retired and s.free_at <= p_now
            and (s.task_id is null or s.scope like 'rate/%')
        order by s.n limit p_wanted for update skip locked)
$$;
comment on function rowbeat.lock_slots(text, integer, timestamptz) is 'Locks free slots of a limit; fewer than wanted when there are no more.';

-- Promises: the tasks hold the locked slots, one each.
-- Called by: claim_tasks. p_period: for a rate, how long a slot stays taken.
create or replace function rowbeat.take_slots(p_scope text, p_slots integer[], p_tasks bigint[], p_period interval) returns void
language sql volatile set search_path = '' as $$
    update rowbeat.limit_slot s
    set task_id = taken.task_id, free_at = case when s.scope like 'rate/%' then rowbeat.now_() + p_period else s.free_at end
    from unnest(p_slots[1:cardinality(p_tasks)], p_tasks) taken (n, task_id)
    where s.scope = p_scope and s.n = taken.n
$$;
comment on function rowbeat.take_slots(text, integer[], bigint[], interval) is 'Gives locked slots of a limit to tasks.';

-- Promises: the task holds no slot of a concurrency limit any more, and who waits for one is told. A slot of a lowered limit goes
--   for good: this one, after a retired one was put back to use in its place.
-- Called by: the endings of attempts, under the task's row lock. Locks: the task's slots.
create or replace function rowbeat.release_slots(p_task_id bigint) returns void
language plpgsql volatile set search_path = '' as $$
declare
    v_slot  record;
begin
    for v_slot in
        select s.scope, s.n, s.retired from rowbeat.limit_slot s where s.task_id = p_task_id and s.scope not like 'rate/%' for update
    loop
        if not v_slot.retired then
            update rowbeat.limit_slot s set retired = false
            where s.scope = v_slot.scope and s.n = (
                select r.n from rowbeat.limit_slot r where r.scope = v_slot.scope and r.retired limit 1 for update skip locked);
            v_slot.retired := found;
        end if;
        if v_slot.retired then
            delete from rowbeat.limit_slot s where s.scope = v_slot.scope and s.n = v_slot.n;
        else
            update rowbeat.limit_slot s set task_id = null, free_at = rowbeat.now_() where s.scope = v_slot.scope and s.n = v_slot.n;
        end if;
    end loop;
    perform rowbeat.ring('task');
end $$;
comment on function rowbeat.release_slots(bigint) is 'Gives back the slots of concurrency limits that a task holds.';
