-- Tasks as people use them: enqueue, cancel, retry, run now, pause, wait.
--
-- enqueue, enqueue_many and cancel are security definer: producers and plugins may call them (sql/functions/70_role.sql grants it) and
-- need no rights on the tables behind them. Nobody else may.

-- Promises: a waiting task with this unique key has the new values that p_replace names; its id, or null when none waits.
-- Called by: enqueue. Locks: the task row; waits for whoever changes it.
create or replace function rowbeat.replace_waiting(
    p_definition text, p_unique_key text, p_replace text[], p_payload jsonb, p_run_at timestamptz, p_priority integer
) returns bigint
language plpgsql volatile set search_path = '' as $$
declare
    v_id  bigint;
begin
    if p_replace <> '{}' then
        update rowbeat.task t
        set payload = case when 'payload' = any (p_replace) then coalesce(p_payload, '{}') else t.payload end,
            run_at = case when 'run_at' = any (p_replace) then coalesce(p_run_at, rowbeat.now_()) else t.run_at end,
            priority = case when 'priority' = any (p_replace) then coalesce(p_priority, t.priority) else t.priority end
        where t.definition = p_definition and t.unique_key = p_unique_key and t.state = 'waiting'
        returning t.id into v_id;
        if found then
            perform rowbeat.ring('task');
        end if;
    end if;
    return v_id;
end $$;
comment on function rowbeat.replace_waiting(text, text, text[], jsonb, timestamptz, integer) is 'Gives a waiting task with a unique key new values.';

-- Promises: the task that holds a unique key for a period, or null: it is held from now on, for p_for, by a task to be made.
-- Called by: enqueue. Locks: the key's row; waits for an uncommitted one.
create or replace function rowbeat.hold_key(p_definition text, p_unique_key text, p_for interval) returns bigint
language sql volatile set search_path = '' as $$
    insert into rowbeat.unique_hold as h (definition, unique_key, held_until)
    values (p_definition, p_unique_key, rowbeat.now_() + p_for)
    on conflict (definition, unique_key) do update
    set task_id = case when h.held_until > rowbeat.now_() then h.task_id end,
        held_until = case when h.held_until > rowbeat.now_() then h.held_until else excluded.held_until end
    returning task_id
$$;
comment on function rowbeat.hold_key(text, text, interval) is 'Holds a unique key for a period, or tells which task holds it.';

-- Promises: a live task of the definition exists when it returns, and its id is the answer. With a unique key that a live task already
--   holds, that task's id: a waiting one gets the new payload, run_at or priority if p_replace names them, else it is left alone. With
--   p_unique_for the key is held for so long, whatever becomes of the task: until then its id is the answer. Null in a trigger whose plugin was
--   removed, see rowbeat.outlived_plugin.
-- Called by: applications, in their own transaction.
-- Locks: the inserted or replaced row; with a unique key it waits for an uncommitted task of the same key.
-- Safe to repeat: only with a unique key. SQLSTATEs: RB001 (no such definition), 22023 (parameters that make no sense).
create or replace function rowbeat.enqueue(
    p_definition    text,
    p_payload       jsonb default '{}',
    p_run_at        timestamptz default null,
    p_queue         text default null,
    p_priority      integer default null,
    p_max_attempts  integer default null,
    p_timeout       interval default null,
    p_unique_key    text default null,
    p_replace       text[] default '{}',
    p_unique_for    interval default null,
    p_serial_key    text default null
) returns bigint
language plpgsql volatile security definer set search_path = '' as $$
declare
    v_id  bigint;
begin
    if p_unique_key is null and (p_unique_for is not null or p_replace <> '{}') or not p_replace <@ '{payload,run_at,priority}' then
        raise exception 'p_replace and p_unique_for need p_unique_key, and p_replace names payload, run_at or priority'
            using errcode = '22023';
    elsif p_unique_for is not null then
        v_id := rowbeat.hold_key(p_definition, p_unique_key, p_unique_for);
        if v_id is not null then
            perform rowbeat.replace_waiting(p_definition, p_unique_key, p_replace, p_payload, p_run_at, p_priority);
            return v_id;
        end if;
    end if;
    loop
        insert into rowbeat.task (definition, payload, run_at, queue, priority, max_attempts, timeout, unique_key, serial_key)
        values (p_definition, coalesce(p_payload, '{}'), p_run_at, p_queue, p_priority, p_max_attempts, p_timeout, p_unique_key, p_serial_key)
        on conflict (definition, unique_key) where unique_key is not null do nothing
        returning id into v_id;
        exit when found;
        v_id := rowbeat.replace_waiting(p_definition, p_unique_key, p_replace, p_payload, p_run_at, p_priority);
        exit when v_id is not null;
        -- The holder may end between the two statements: then the key is free again and the insert succeeds.
        select t.id into v_id from rowbeat.task t where t.definition = p_definition and t.unique_key = p_unique_key;
        exit when found or not exists (select from rowbeat.task_definition d where d.name = p_definition);
    end loop;
    if p_unique_for is not null then
        update rowbeat.unique_hold h set task_id = v_id where h.definition = p_definition and h.unique_key = p_unique_key;
    end if;
    return v_id;
end $$;
comment on function rowbeat.enqueue(text, jsonb, timestamptz, text, integer, integer, interval, text, text[], interval, text) is
    'Enqueues a task and returns its id; with a unique key, the id of the live task that holds it.';
revoke execute on function rowbeat.enqueue(text, jsonb, timestamptz, text, integer, integer, interval, text, text[], interval, text) from public;

-- Promises: each element of the array is enqueued as by enqueue, all in one round trip; the ids come in the order of the elements.
--   An element is {"definition", "payload", "run_at", "queue", "priority", "max_attempts", "timeout", "unique_key", "replace", "unique_for",
--   "serial_key"}; only the first is needed. Called by: applications. Locks, SQLSTATEs: as enqueue.
create or replace function rowbeat.enqueue_many(p_tasks jsonb) returns setof bigint
language plpgsql volatile security definer set search_path = '' as $$
declare
    v_unknown  text;
    v_task     record;
begin
    select k.key into v_unknown from jsonb_array_elements(p_tasks) e cross join lateral jsonb_object_keys(e) k (key)
    where k.key <> all ('{definition,payload,run_at,queue,priority,max_attempts,timeout,unique_key,replace,unique_for,serial_key}') limit 1;
    if found then
        raise exception 'a task has no "%"', v_unknown using errcode = '22023', hint = 'See rowbeat.enqueue for what it has.';
    elsif p_tasks @? '$[*].unique_key ? (@ != null)' then
        for v_task in
            select r.* from jsonb_array_elements(p_tasks) with ordinality e (task, n) cross join lateral jsonb_to_record(e.task) r (
                definition text, payload jsonb, run_at timestamptz, queue text, priority integer, max_attempts integer, timeout interval,
                unique_key text, replace text[], unique_for interval, serial_key text)
            order by e.n
        loop
            return next rowbeat.enqueue(v_task.definition, v_task.payload, v_task.run_at, v_task.queue, v_task.priority, v_task.max_attempts,
                v_task.timeout, v_task.unique_key, coalesce(v_task.replace, '{}'), v_task.unique_for, v_task.serial_key);
        end loop;
        return;
    end if;
    return query
    with enqueued as (
        insert into rowbeat.task (definition, payload, run_at, queue, priority, max_attempts, timeout, serial_key)
        select r.* from jsonb_to_recordset(p_tasks) r (definition text, payload jsonb, run_at timestamptz, queue text, priority integer,
            max_attempts integer, timeout interval, serial_key text)
        returning id
    )
    select e.id from enqueued e order by e.id;
end $$;
comment on function rowbeat.enqueue_many(jsonb) is 'Enqueues an array of tasks and returns their ids, in order.';
revoke execute on function rowbeat.enqueue_many(jsonb) from public;

-- Promises: the task does not start any more (cancelled at once), or its running attempt is told to stop (cancelling),
--   or it had ended before and stays as it is (its state is returned).
-- Called by: people. Locks: the task row; waits for its attempt's last write.
-- Safe to repeat. SQLSTATEs: RB004 (no such task).
create or replace function rowbeat.cancel(p_task_id bigint) returns text
language plpgsql volatile security definer set search_path = '' as $$
declare
    v_task   rowbeat.task;
    v_state  text;
begin
    loop
        select * into v_task from rowbeat.task t where t.id = p_task_id for update;
        exit when found;
        select f.state into v_state from rowbeat.finished_task f where f.id = p_task_id;
        if found then
            return v_state;
        end if;
        -- Somebody may have retried it between the two looks; one that sees both tables knows.
        perform from rowbeat.tasks t where t.id = p_task_id;
        if not found then
            perform rowbeat.refuse_unknown(p_task_id);
        end if;
    end loop;
    if v_task.state = 'running' then
        update rowbeat.task t set cancel_requested_at = rowbeat.now_()
        where t.id = p_task_id and t.cancel_requested_at is null;
        perform rowbeat.announce('cancel');
        return 'cancelling';
    end if;
    perform rowbeat.finish_task(v_task, 'cancelled', 'cancelled', null, v_task.last_error);
    return 'cancelled';
end $$;
comment on function rowbeat.cancel(bigint) is 'Cancels a task; returns cancelled, cancelling (it is running and was told) or the state it had already ended in.';
revoke execute on function rowbeat.cancel(bigint) from public;

-- The refusal of an id that no task has. SQLSTATEs: RB004, always.
create or replace function rowbeat.refuse_unknown(p_task_id bigint) returns void
language plpgsql stable set search_path = '' as $$
begin
    raise exception 'task % does not exist', p_task_id using errcode = 'RB004',
        hint = 'It may have been forgotten: see keep and keep_days of its definition.';
end $$;
comment on function rowbeat.refuse_unknown(bigint) is 'Refuses an id that no task has, with RB004.';

-- Promises: a waiting task is due now, whatever it waited for; limits, its turn and a pause still hold it back. A quarantined one is
--   trusted again. Called by: people, retry. Locks: the task row. Safe to repeat.
-- SQLSTATEs: RB004 (no such task), RB005 (it does not wait).
create or replace function rowbeat.run_now(p_task_id bigint) returns bigint
language plpgsql volatile set search_path = '' as $$
declare
    v_state  text;
begin
    update rowbeat.task t
    set run_at = least(t.run_at, rowbeat.now_()), deaths = case when t.parked = 'quarantined' then 0 else t.deaths end,
        parked = nullif(t.parked, 'quarantined')
    where t.id = p_task_id and t.state = 'waiting';
    if not found then
        select t.state into v_state from rowbeat.tasks t where t.id = p_task_id;
        if not found then
            perform rowbeat.refuse_unknown(p_task_id);
        end if;
        raise exception 'task % is %', p_task_id, v_state using errcode = 'RB005',
            hint = 'Only waiting tasks can be run now; rowbeat.retry brings failed and cancelled ones back.';
    end if;
    perform rowbeat.ring('task');
    return p_task_id;
end $$;
comment on function rowbeat.run_now(bigint) is 'Makes a waiting task due now; returns its id.';

-- Promises: the task is due now; an ended one is alive again under its old id, with all its attempts before it. A running or completed
--   one is refused, and an ended one whose payload was dropped.
-- Called by: people. Locks: the task row. Safe to repeat. SQLSTATEs: RB004 (no such task), RB005 (running, completed or redacted).
create or replace function rowbeat.retry(p_task_id bigint) returns bigint
language plpgsql volatile set search_path = '' as $$
declare
    v_task  record;
begin
    delete from rowbeat.finished_task f
    where f.id = p_task_id and f.state in ('failed', 'cancelled') and not f.redacted
    returning * into v_task;
    if found then
        insert into rowbeat.task (id, definition, payload, queue, priority, max_attempts, timeout, unique_key, serial_key, cause, attempt, last_error)
        values (v_task.id, v_task.definition, v_task.payload, v_task.queue, v_task.priority, v_task.max_attempts, v_task.timeout,
            v_task.unique_key, v_task.serial_key, v_task.cause, v_task.attempt, v_task.error);
        return p_task_id;
    elsif exists (select from rowbeat.finished_task f where f.id = p_task_id and f.redacted) then
        raise exception 'the payload of task % was dropped when it ended', p_task_id using errcode = 'RB005',
            hint = 'Its definition says redact; enqueue a new one instead.';
    end if;
    return rowbeat.run_now(p_task_id);
end $$;
comment on function rowbeat.retry(bigint) is 'Runs a waiting, failed or cancelled task now, an ended one with all its attempts before it; returns its id.';

-- Promises: up to p_limit failed tasks are alive again, the oldest first; how many. Called by: people. Locks: those rows.
create or replace function rowbeat.retry_failed(p_definition text default null, p_limit integer default 1000) returns bigint
language sql volatile set search_path = '' as $$
    select count(rowbeat.retry(f.id)) from (
        select t.id from rowbeat.finished_task t
        where t.state = 'failed' and not t.redacted and (p_definition is null or t.definition = p_definition)
        order by t.finished_at limit p_limit for update skip locked
    ) f
$$;
comment on function rowbeat.retry_failed(text, integer) is 'Runs failed tasks again, of one definition or all; returns how many.';

-- Promises: from the commit on none of its tasks is started; those that run go on. Called by: people. Locks: the row of the queue or
--   definition. Safe to repeat. SQLSTATEs: RB001 (no such definition), 22023 (not exactly one of the two is named).
create or replace function rowbeat.pause(p_definition text default null, p_queue text default null) returns void
language plpgsql volatile set search_path = '' as $$
begin
    perform rowbeat.set_paused(p_definition, p_queue, rowbeat.now_());
end $$;
comment on function rowbeat.pause(text, text) is 'Starts no more tasks of a definition or a queue, until resume.';

-- Promises: tasks of the queue or definition are started again. As pause.
create or replace function rowbeat.resume(p_definition text default null, p_queue text default null) returns void
language plpgsql volatile set search_path = '' as $$
begin
    perform rowbeat.set_paused(p_definition, p_queue, null);
    perform rowbeat.ring('task');
end $$;
comment on function rowbeat.resume(text, text) is 'Ends a pause.';

-- Called by: pause and resume.
create or replace function rowbeat.set_paused(p_definition text, p_queue text, p_at timestamptz) returns void
language plpgsql volatile set search_path = '' as $$
begin
    if (p_definition is null) = (p_queue is null) then
        raise exception 'name a definition or a queue' using errcode = '22023',
            hint = 'rowbeat.pause(p_definition => ...) or rowbeat.pause(p_queue => ...).';
    elsif p_queue is not null then
        insert into rowbeat.queue as q (name, paused_at) values (p_queue, p_at)
        on conflict (name) do update set paused_at = case when p_at is null then null else coalesce(q.paused_at, p_at) end;
        return;
    end if;
    update rowbeat.task_definition d set paused_at = case when p_at is null then null else coalesce(d.paused_at, p_at) end
    where d.name = p_definition;
    if not found then
        raise exception 'task definition "%" does not exist', p_definition using errcode = 'RB001',
            hint = 'See rowbeat.task_definition for those that do.';
    end if;
end $$;
comment on function rowbeat.set_paused(text, text, timestamptz) is 'Pauses or resumes a definition or a queue.';

-- Promises: returns when the task has ended, with its state and result, or when the time is over, with the state it is in then. A task
--   that ended and was not kept is `forgotten`. Commits between looks, so it cannot be called in a transaction.
-- Called by: people and scripts. Locks: nothing. SQLSTATEs: RB004 (no such task, now or when it began to wait), 22023 (no time).
create or replace procedure rowbeat.wait_for(
    p_task_id bigint, p_timeout interval, inout p_state text default null, inout p_result jsonb default null
)
language plpgsql as $$
declare
    v_until  timestamptz := clock_timestamp() + p_timeout;
    v_pause  double precision := 0.005;
    v_seen   boolean := false;
begin
    if p_timeout is null then
        raise exception 'how long to wait for task % is not said', p_task_id using errcode = '22023', hint = 'p_timeout is an interval.';
    end if;
    loop
        select t.state, t.result into p_state, p_result from rowbeat.tasks t where t.id = p_task_id;
        if not found then
            if not v_seen then
                perform rowbeat.refuse_unknown(p_task_id);
            end if;
            p_state := 'forgotten';
        end if;
        exit when p_state in ('completed', 'failed', 'cancelled', 'forgotten') or clock_timestamp() >= v_until;
        v_seen := true;
        commit;
        perform pg_sleep(least(v_pause, extract(epoch from v_until - clock_timestamp())));
        v_pause := least(v_pause * 1.5, 0.25);
    end loop;
end $$;
comment on procedure rowbeat.wait_for(bigint, interval, text, jsonb) is 'Waits until a task has ended, at most so long; gives its state and result.';
