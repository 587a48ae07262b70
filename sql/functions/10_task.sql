-- Tasks as people use them: enqueue, cancel, retry.

-- Promises: a live task of the definition exists when it returns, and its id is the answer. With a unique key that a
--   live task already holds, that task's id; its payload is left alone.
-- Called by: applications, in their own transaction.
-- Locks: the inserted row; with a unique key it waits for an uncommitted task of the same key.
-- Safe to repeat: only with a unique key. SQLSTATEs: RB001 (no such definition).
create or replace function rowbeat.enqueue(
    p_definition    text,
    p_payload       jsonb default '{}',
    p_run_at        timestamptz default null,
    p_queue         text default null,
    p_priority      integer default null,
    p_max_attempts  integer default null,
    p_timeout       interval default null,
    p_unique_key    text default null
) returns bigint
language plpgsql volatile set search_path = '' as $$
declare
    v_id bigint;
begin
    loop
        insert into rowbeat.task (definition, payload, run_at, queue, priority, max_attempts, timeout, unique_key)
        values (p_definition, coalesce(p_payload, '{}'), p_run_at, p_queue, p_priority, p_max_attempts, p_timeout, p_unique_key)
        on conflict (definition, unique_key) where unique_key is not null do nothing
        returning id into v_id;
        if found then
            return v_id;
        end if;
        -- The holder may end between the two statements: then the key is free again and the insert succeeds.
        select t.id into v_id from rowbeat.task t where t.definition = p_definition and t.unique_key = p_unique_key;
        if found then
            return v_id;
        end if;
    end loop;
end $$;
comment on function rowbeat.enqueue(text, jsonb, timestamptz, text, integer, integer, interval, text) is
    'Enqueues a task and returns its id; with a unique key, the id of the live task that holds it.';

-- Promises: the task does not start any more (cancelled at once), or its running attempt is told to stop (cancelling),
--   or it had ended before and stays as it is (its state is returned).
-- Called by: people. Locks: the task row; waits for its attempt's last write.
-- Safe to repeat. SQLSTATEs: RB004 (no such task).
create or replace function rowbeat.cancel(p_task_id bigint) returns text
language plpgsql volatile set search_path = '' as $$
declare
    v_task   rowbeat.task;
    v_state  text;
begin
    select * into v_task from rowbeat.task t where t.id = p_task_id for update;
    if not found then
        select f.state into v_state from rowbeat.finished_task f where f.id = p_task_id;
        if not found then
            raise exception 'task % does not exist', p_task_id using errcode = 'RB004',
                hint = 'It may have been forgotten: see keep and keep_days of its definition.';
        end if;
        return v_state;
    end if;
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

-- Promises: the task is due now with all its attempts before it again: a waiting one is only moved up, an ended one is
--   alive again under its old id. A running or completed one is refused.
-- Called by: people. Locks: the task row. Safe to repeat. SQLSTATEs: RB004 (no such task), RB005 (running or completed).
create or replace function rowbeat.retry(p_task_id bigint) returns bigint
language plpgsql volatile set search_path = '' as $$
declare
    v_state text;
begin
    update rowbeat.task t set run_at = rowbeat.now_() where t.id = p_task_id and t.state = 'waiting';
    if not found then
        with revived as (
            delete from rowbeat.finished_task f
            where f.id = p_task_id and f.state in ('failed', 'cancelled')
            returning *
        )
        insert into rowbeat.task (id, definition, payload, queue, priority, max_attempts, timeout, unique_key, cause, attempt, last_error)
        select r.id, r.definition, r.payload, r.queue, r.priority, r.max_attempts, r.timeout, r.unique_key, r.cause, r.attempt, r.error
        from revived r;
    end if;
    if not found then
        select t.state into v_state from rowbeat.tasks t where t.id = p_task_id;
        if not found then
            raise exception 'task % does not exist', p_task_id using errcode = 'RB004',
                hint = 'It may have been forgotten: see keep and keep_days of its definition.';
        elsif v_state in ('scheduled', 'available', 'retryable') then
            return p_task_id;  -- somebody else revived it at the same time
        end if;
        raise exception 'task % is %', p_task_id, v_state using errcode = 'RB005',
            hint = 'Only waiting, failed and cancelled tasks can be retried; enqueue a new one instead.';
    end if;
    perform rowbeat.ring('task');
    return p_task_id;
end $$;
comment on function rowbeat.retry(bigint) is 'Runs a waiting, failed or cancelled task now, with all its attempts before it; returns its id.';
