-- Foreign workers: programs in any language that perform tasks of definitions with executor 'external', by SQL alone. All of these can
-- be called inside the caller's own transaction: complete, beside what the task did in the same database, makes it exactly once.
-- Every write is fenced by (task id, attempt): whoever has lost the claim, or never had one (a daemon's task), gets RB003 and stops.

-- The refusal of a time that makes no sense: without an end the claim of a dead worker would be held for ever.
-- Called by: heartbeat, snooze. SQLSTATEs: 22023, always.
create or replace function rowbeat.refuse_time(p_function text, p_parameter text) returns void
language plpgsql stable set search_path = '' as $$
begin
    raise exception '% of rowbeat.% is no time to come', p_parameter, p_function using errcode = '22023',
        hint = format('rowbeat.%s(task_id, attempt, %s => ''1 minute'').', p_function, p_parameter);
end $$;
comment on function rowbeat.refuse_time(text, text) is 'Refuses a time that makes no sense, with 22023.';

-- Promises: up to p_limit due tasks are the worker's until p_lease from now; heartbeat prolongs it. Limits, pauses, serial keys and
--   features hold as for daemons.
-- Called by: foreign workers; p_worker tells people who has it. Locks: as claim_tasks; the worker's own row.
-- SQLSTATEs: 22023, RB007 (the database is a copy).
create or replace function rowbeat.claim(
    p_worker text, p_limit integer default 1, p_definitions text[] default null, p_queues text[] default '{*}',
    p_lease interval default '1 minute'
) returns table (id bigint, attempt integer, definition text, payload jsonb, cause jsonb, timeout interval, lease_until timestamptz)
language plpgsql volatile set search_path = '' as $$
declare
    v_node  bigint;
    v_seen  timestamptz;
begin
    if (p_worker <> '' and p_limit >= 1 and p_lease > '0' and p_queues is not null) is not true then
        raise exception 'a worker claims under a name, at least one task, from some queues, for some time' using errcode = '22023',
            hint = 'rowbeat.claim(''worker-1'', p_limit => 1, p_lease => ''1 minute'').';
    end if;
    select n.id, n.heartbeat_at into v_node, v_seen from rowbeat.node n where n.name = p_worker and n.kind = 'worker';
    -- Now and then only: asking costs a little.
    if coalesce(v_seen, '-infinity') < rowbeat.now_() - interval '10 seconds' then
        perform rowbeat.refuse_copy();
    end if;
    if v_node is null then
        insert into rowbeat.node as n (name, version, process_id, started_at, heartbeat_at, lease, kind, queues)
        values (p_worker, '', 0, rowbeat.now_(), rowbeat.now_(), p_lease, 'worker', p_queues)
        on conflict (name) where kind = 'worker' do update set name = excluded.name
        returning n.id into v_node;
    end if;
    -- A sign of life for people, now and then; two claims under one name do not wait for each other.
    update rowbeat.node n set heartbeat_at = rowbeat.now_(), lease = p_lease, queues = p_queues
    where n.id in (select w.id from rowbeat.node w
        where w.id = v_node and w.heartbeat_at < rowbeat.now_() - interval '10 seconds' for update skip locked);
    return query
    select c.id, c.attempt, c.definition, c.payload, c.cause, c.timeout, c.lease_until
    from rowbeat.claim_tasks(v_node, p_limit, p_limit, p_queues, '{}', null, p_definitions, true, p_lease) c
    order by c.priority, c.run_at, c.id;
end $$;
comment on function rowbeat.claim(text, integer, text[], text[], interval) is 'Claims due tasks of external definitions for a foreign worker.';

-- Promises: the claim holds until p_lease from now; true: somebody wants the task cancelled, so stop and call fail.
-- Called by: foreign workers, well before the lease ends. Locks: the task row. SQLSTATEs: RB003, 22023.
create or replace function rowbeat.heartbeat(p_task_id bigint, p_attempt integer, p_lease interval default '1 minute') returns boolean
language plpgsql volatile set search_path = '' as $$
declare
    v_task  rowbeat.task := rowbeat.hold_claim(p_task_id, p_attempt, null);
begin
    if (p_lease > '0') is not true then
        perform rowbeat.refuse_time('heartbeat', 'p_lease');
    end if;
    update rowbeat.task t set lease_until = rowbeat.now_() + p_lease where t.id = p_task_id;
    return v_task.cancel_requested_at is not null;
end $$;
comment on function rowbeat.heartbeat(bigint, integer, interval) is 'Prolongs a foreign worker''s claim; true: the task is to be cancelled.';

-- Promises: the attempt is done, with this result. Returns the task's state. SQLSTATEs: RB003.
create or replace function rowbeat.complete(p_task_id bigint, p_attempt integer, p_result jsonb default null) returns text
language sql volatile as $$
    select rowbeat.end_attempt(p_task_id, p_attempt, null, 'done', p_result)
$$;
comment on function rowbeat.complete(bigint, integer, jsonb) is 'Ends a foreign worker''s attempt as done.';

-- Promises: the attempt failed: the task is retried by its definition's policy, or after p_retry_after; p_for_good: never. Returns the
--   task's state (waiting, failed or cancelled). SQLSTATEs: RB003.
create or replace function rowbeat.fail(
    p_task_id bigint, p_attempt integer, p_error jsonb default null, p_retry_after interval default null, p_for_good boolean default false
) returns text
language sql volatile as $$
    select rowbeat.end_attempt(p_task_id, p_attempt, null, case when p_for_good then 'rejected' else 'failed' end, null, p_error, p_retry_after)
$$;
comment on function rowbeat.fail(bigint, integer, jsonb, interval, boolean) is 'Ends a foreign worker''s attempt as failed.';

-- Promises: the task is tried again after p_for; the attempt does not count. Returns the task's state. SQLSTATEs: RB003, 22023.
create or replace function rowbeat.snooze(p_task_id bigint, p_attempt integer, p_for interval) returns text
language plpgsql volatile as $$
begin
    if (p_for >= '0') is not true then
        perform rowbeat.refuse_time('snooze', 'p_for');
    end if;
    return rowbeat.end_attempt(p_task_id, p_attempt, null, 'snoozed', null, null, p_for);
end $$;
comment on function rowbeat.snooze(bigint, integer, interval) is 'Puts a foreign worker''s task off; the attempt does not count.';
