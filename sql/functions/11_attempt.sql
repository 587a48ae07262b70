-- Attempts as workers end them. Every write here is fenced by (task id, attempt, node): who no longer holds the claim is
-- refused with RB003.

-- Promises: the row moves from task to finished_task (or nowhere, if its definition keeps nothing); its steps go.
-- Called by: cancel and end_attempt, which hold the task's row lock.
create or replace function rowbeat.finish_task(
    p_task rowbeat.task, p_state text, p_outcome text, p_result jsonb, p_error jsonb
) returns void
language plpgsql volatile set search_path = '' as $$
declare
    v_now   timestamptz := rowbeat.now_();
    v_keep  text;
    v_days  smallint;
begin
    delete from rowbeat.task t where t.id = p_task.id;
    delete from rowbeat.step s where s.task_id = p_task.id;
    select d.keep, d.keep_days into v_keep, v_days from rowbeat.task_definition d where d.name = p_task.definition;
    if v_keep = 'none' or (v_keep = 'failures' and p_state <> 'failed') then
        return;
    end if;
    insert into rowbeat.finished_task (slot, id, definition, payload, queue, priority, cause, state, outcome, result, error,
        attempt, failures, max_attempts, timeout, unique_key, node, created_at, run_at, started_at, finished_at, expires_on)
    values (rowbeat.slot_of((v_now at time zone 'UTC')::date + v_days), p_task.id, p_task.definition, p_task.payload,
        p_task.queue, p_task.priority, p_task.cause, p_state, p_outcome, p_result, p_error, p_task.attempt, p_task.failures,
        p_task.max_attempts, p_task.timeout, p_task.unique_key, p_task.claimed_by, p_task.created_at, p_task.run_at,
        p_task.claimed_at, v_now, (v_now at time zone 'UTC')::date + v_days);
end $$;
comment on function rowbeat.finish_task(rowbeat.task, text, text, jsonb, jsonb) is 'Moves an ended task to where ended tasks are kept.';

-- The pause before the next attempt: backoff * 2^(failures - 1), at most backoff_max, varied by backoff_jitter.
create or replace function rowbeat.retry_delay(p_definition rowbeat.task_definition, p_failures integer) returns interval
language sql volatile as $$
    select least(p_definition.backoff_max, p_definition.backoff * power(2, least(greatest(p_failures, 1) - 1, 30)))
        * (1 + p_definition.backoff_jitter * (2 * random() - 1))
$$;
comment on function rowbeat.retry_delay(rowbeat.task_definition, integer) is 'The pause before the next attempt after this many failures.';

-- The task as plan and settle see it.
create or replace function rowbeat.task_document(p_task rowbeat.task) returns jsonb
language sql stable as $$
    select jsonb_build_object('id', p_task.id, 'definition', p_task.definition, 'payload', p_task.payload,
        'attempt', p_task.attempt, 'failures', p_task.failures, 'max_attempts', p_task.max_attempts,
        'cause', p_task.cause, 'created_at', p_task.created_at, 'run_at', p_task.run_at)
$$;
comment on function rowbeat.task_document(rowbeat.task) is 'The task as plan and settle get it: id, definition, payload, attempt, failures, max_attempts, cause, created_at, run_at.';

-- The one refusal of stale workers. SQLSTATEs: RB003, always.
create or replace function rowbeat.refuse_stale(p_task_id bigint, p_attempt integer) returns void
language plpgsql stable set search_path = '' as $$
begin
    raise exception 'attempt % of task % no longer holds its claim', p_attempt, p_task_id using errcode = 'RB003',
        hint = 'The task was cancelled, ended or taken over by another node; stop working on it.';
end $$;
comment on function rowbeat.refuse_stale(bigint, integer) is 'Refuses a worker that no longer holds its claim, with RB003.';

-- Promises: the task of a claim that is held at this moment, and the settings rowbeat.task_id, rowbeat.attempt and
--   rowbeat.cause of this transaction tell SQL functions whose task they run.
-- Locks: nothing, so that the task can be cancelled and taken over while a function works: what the function did is kept
--   only if end_attempt, at the end of the same transaction, finds the claim still held. SQLSTATEs: RB003.
create or replace function rowbeat.read_claim(p_task_id bigint, p_attempt integer, p_node bigint) returns rowbeat.task
language plpgsql volatile set search_path = '' as $$
declare
    v_task rowbeat.task;
begin
    select * into v_task from rowbeat.task t
    where t.id = p_task_id and t.attempt = p_attempt and t.claimed_by = p_node and t.state = 'running';
    if not found then
        perform rowbeat.refuse_stale(p_task_id, p_attempt);
    end if;
    perform set_config('rowbeat.task_id', p_task_id::text, true), set_config('rowbeat.attempt', p_attempt::text, true),
        set_config('rowbeat.cause', coalesce(v_task.cause::text, ''), true);
    return v_task;
end $$;
comment on function rowbeat.read_claim(bigint, integer, bigint) is 'The task of a claim that is held now, or RB003.';

-- Promises: as read_claim, and nobody takes the claim over until the transaction ends.
-- Locks: the task row, for update. SQLSTATEs: RB003.
create or replace function rowbeat.hold_claim(p_task_id bigint, p_attempt integer, p_node bigint) returns rowbeat.task
language plpgsql volatile set search_path = '' as $$
declare
    v_task rowbeat.task;
begin
    select * into v_task from rowbeat.task t
    where t.id = p_task_id and t.attempt = p_attempt and t.claimed_by = p_node and t.state = 'running'
    for update;
    if not found then
        perform rowbeat.refuse_stale(p_task_id, p_attempt);
    end if;
    return v_task;
end $$;
comment on function rowbeat.hold_claim(bigint, integer, bigint) is 'Locks the task of a claim that is still held, or refuses with RB003.';

-- Promises: the attempt has ended as p_outcome says, its settle function has run, and the task is where it belongs: the
--   one place where endings are recorded. Returns the task's state: completed, failed, cancelled, or waiting.
--   Outcomes: done · failed, timed_out, lost (retried while attempts are left) · rejected (failed for good) · cancelled ·
--   snoozed, interrupted (not counted; due again after p_retry_after, or at once).
-- Called by: workers; the rescuer, for the lost. Locks: the task row. SQLSTATEs: RB003.
-- A settle function that raises after success turns it into a failure (its steps are kept, so effects are not performed
--   again); one that raises after a failure only adds to the error.
create or replace function rowbeat.end_attempt(
    p_task_id bigint, p_attempt integer, p_node bigint, p_outcome text,
    p_result jsonb default null, p_error jsonb default null, p_retry_after interval default null
) returns text
language plpgsql volatile as $$
declare
    v_task        rowbeat.task := rowbeat.hold_claim(p_task_id, p_attempt, p_node);
    v_definition  rowbeat.task_definition;
    v_outcome     text := p_outcome;
    v_result      jsonb := p_result;
    v_error       jsonb := p_error;
    v_message     text;
    v_sqlstate    text;
begin
    select * into v_definition from rowbeat.task_definition d where d.name = v_task.definition;
    if v_task.cancel_requested_at is not null and v_outcome not in ('done', 'rejected') then
        v_outcome := 'cancelled';
    end if;
    if v_definition.settle_function is not null and v_outcome not in ('snoozed', 'interrupted') then
        begin
            v_result := coalesce(rowbeat.call_settle(v_definition.settle_function, v_task, v_outcome, v_result, v_error), v_result);
        exception when others then
            get stacked diagnostics v_message = message_text, v_sqlstate = returned_sqlstate;
            if v_outcome = 'done' then
                v_outcome := 'failed';
                v_error := jsonb_build_object('message', 'settle: ' || v_message, 'sqlstate', v_sqlstate);
            else
                v_error := coalesce(v_error, '{}') || jsonb_build_object('settle', v_message);
            end if;
        end;
    end if;
    if v_outcome = 'done' then
        perform rowbeat.finish_task(v_task, 'completed', v_outcome, v_result, null);
        return 'completed';
    elsif v_outcome = 'cancelled' then
        perform rowbeat.finish_task(v_task, 'cancelled', v_outcome, null, coalesce(v_error, v_task.last_error));
        return 'cancelled';
    end if;
    if v_outcome not in ('snoozed', 'interrupted') then
        v_task.failures := v_task.failures + 1;
        if v_outcome = 'rejected' or v_task.failures >= v_task.max_attempts then
            perform rowbeat.finish_task(v_task, 'failed', v_outcome, null, v_error);
            return 'failed';
        end if;
    end if;
    perform rowbeat.reschedule_task(v_task, v_definition, v_outcome, v_error, p_retry_after);
    return 'waiting';
end $$;
comment on function rowbeat.end_attempt(bigint, integer, bigint, text, jsonb, jsonb, interval) is
    'Ends an attempt as done, failed, rejected, timed_out, lost, cancelled, snoozed or interrupted; returns the task''s state.';

-- Promises: the task waits again, due after its pause, and its ended attempt is on record.
-- Called by: end_attempt, which holds the row lock.
create or replace function rowbeat.reschedule_task(
    p_task rowbeat.task, p_definition rowbeat.task_definition, p_outcome text, p_error jsonb, p_retry_after interval
) returns void
language plpgsql volatile set search_path = '' as $$
declare
    v_now     timestamptz := rowbeat.now_();
    v_today   date := (v_now at time zone 'UTC')::date;
    v_run_at  timestamptz := v_now + coalesce(p_retry_after,
        case when p_outcome in ('snoozed', 'interrupted') then interval '0' else rowbeat.retry_delay(p_definition, p_task.failures) end);
begin
    update rowbeat.task t
    set state = 'waiting', claimed_by = null, run_at = v_run_at, failures = p_task.failures,
        last_error = coalesce(p_error, t.last_error)
    where t.id = p_task.id;
    insert into rowbeat.attempt (slot, task_id, attempt, definition, outcome, error, node, started_at, ended_at, retry_at, expires_on)
    values (rowbeat.slot_of(v_today + 30), p_task.id, p_task.attempt, p_task.definition, p_outcome, p_error,
        p_task.claimed_by, p_task.claimed_at, v_now, v_run_at, v_today + 30);
    perform rowbeat.ring('task');
end $$;
comment on function rowbeat.reschedule_task(rowbeat.task, rowbeat.task_definition, text, jsonb, interval) is 'Puts a task back to wait and records its ended attempt.';

-- Promises: running tasks of nodes whose lease ran out are ended as lost, and those nodes are marked. Returns how many.
-- Called by: every daemon, now and then. Locks: node rows without waiting, then their task rows.
-- Safe in any number of copies.
create or replace function rowbeat.rescue_lost() returns bigint
language plpgsql volatile as $$
declare
    v_node   record;
    v_task   record;
    v_count  bigint := 0;
begin
    for v_node in
        select n.id, n.name, n.heartbeat_at from rowbeat.node n
        where n.stopped_at is null and n.lost_at is null and n.heartbeat_at < rowbeat.now_() - n.lease
        for update skip locked
    loop
        update rowbeat.node n set lost_at = rowbeat.now_() where n.id = v_node.id;
        for v_task in
            select t.id, t.attempt from rowbeat.task t where t.claimed_by = v_node.id and t.state = 'running'
        loop
            begin
                perform rowbeat.end_attempt(v_task.id, v_task.attempt, v_node.id, 'lost', null, jsonb_build_object(
                    'message', format('node %s (%s) gave no sign of life since %s', v_node.name, v_node.id, v_node.heartbeat_at)));
                v_count := v_count + 1;
            exception when sqlstate 'RB003' then
                null;  -- the slow worker recorded its ending at the last moment
            end;
        end loop;
    end loop;
    return v_count;
end $$;
comment on function rowbeat.rescue_lost() is 'Ends the attempts of nodes whose lease ran out; their tasks are retried.';
