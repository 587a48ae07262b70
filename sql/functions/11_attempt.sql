-- Attempts as workers end them. Every write here is fenced by (task id, attempt, node): who no longer holds the claim is
-- refused with RB003.

-- Promises: the row moves from task to finished_task (or nowhere, if its definition keeps nothing); its steps go, its slots and the
--   turn of its serial key are passed on.
-- Called by: cancel and end_attempt, which hold the task's row lock.
create or replace function rowbeat.finish_task(
    p_task rowbeat.task, p_state text, p_outcome text, p_result jsonb, p_error jsonb
) returns void
language plpgsql volatile set search_path = '' as $$
declare
    v_now         timestamptz := rowbeat.now_();
    v_definition  rowbeat.task_definition;
    v_expires     date;
begin
    delete from rowbeat.task t where t.id = p_task.id;
    delete from rowbeat.step s where s.task_id = p_task.id;
    if p_task.slots then
        perform rowbeat.release_slots(p_task.id);
    end if;
    if p_task.serial_key is not null then
        perform rowbeat.release_serial(p_task.id, p_task.serial_key);
    end if;
    select * into v_definition from rowbeat.task_definition d where d.name = p_task.definition;
    if v_definition.keep = 'none' or (v_definition.keep = 'failures' and p_state <> 'failed') then
        return;
    end if;
    v_expires := coalesce((v_now at time zone 'UTC')::date
        + case p_state when 'failed' then v_definition.keep_failed_days else v_definition.keep_days end, 'infinity');
    insert into rowbeat.finished_task (slot, id, definition, payload, queue, priority, cause, state, outcome, result, error, attempt, failures,
        max_attempts, timeout, unique_key, serial_key, node, created_at, run_at, started_at, finished_at, expires_on, redacted)
    values (case v_expires when 'infinity' then -1 else rowbeat.slot_of(v_expires) end, p_task.id, p_task.definition,
        case when v_definition.redact then '{}' else p_task.payload end, p_task.queue, p_task.priority, p_task.cause, p_state, p_outcome,
        case when not v_definition.redact then p_result end, p_error, p_task.attempt, p_task.failures, p_task.max_attempts,
        p_task.timeout, p_task.unique_key, p_task.serial_key, p_task.claimed_by, p_task.created_at, p_task.run_at, p_task.claimed_at,
        v_now, v_expires, v_definition.redact);
end $$;
comment on function rowbeat.finish_task(rowbeat.task, text, text, jsonb, jsonb) is 'Moves an ended task to where ended tasks are kept.';

-- The pause before the next attempt: from backoff_list (the last one repeated) if there is one, else backoff * 2^(failures - 1),
-- at most backoff_max, varied by backoff_jitter.
create or replace function rowbeat.retry_delay(p_definition rowbeat.task_definition, p_failures integer) returns interval
language sql volatile as $$
    select coalesce(
        p_definition.backoff_list[least(greatest(p_failures, 1), cardinality(p_definition.backoff_list))],
        least(p_definition.backoff_max, p_definition.backoff * power(2, least(greatest(p_failures, 1) - 1, 30)))
            * (1 + p_definition.backoff_jitter * (2 * random() - 1)))
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

-- Promises: as read_claim, and nobody takes the claim over until the transaction ends. p_node null: a foreign worker's claim, whoever
--   holds it (they are fenced by task and attempt alone); never a daemon's.
-- Locks: the task row, for update. SQLSTATEs: RB003.
create or replace function rowbeat.hold_claim(p_task_id bigint, p_attempt integer, p_node bigint) returns rowbeat.task
language plpgsql volatile set search_path = '' as $$
declare
    v_task rowbeat.task;
begin
    select * into v_task from rowbeat.task t
    where t.id = p_task_id and t.attempt = p_attempt and t.state = 'running'
        and (t.claimed_by = p_node or p_node is null and t.lease_until is not null)
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
--   When its node died, an attempt that may not have begun is not counted; a task that had two nodes die in a row runs alone the next
--   time, and is quarantined if that node dies too.
-- Called by: workers; the rescuer, for the lost. Locks: the task row. SQLSTATEs: RB003.
create or replace function rowbeat.end_attempt(
    p_task_id bigint, p_attempt integer, p_node bigint, p_outcome text,
    p_result jsonb default null, p_error jsonb default null, p_retry_after interval default null, p_node_died boolean default false
) returns text
language plpgsql volatile as $$
declare
    v_task        rowbeat.task := rowbeat.hold_claim(p_task_id, p_attempt, p_node);
    v_definition  rowbeat.task_definition;
    v_outcome     text := p_outcome;
    v_result      jsonb := p_result;
    v_error       jsonb := p_error;
    v_pause       interval := p_retry_after;
begin
    select * into v_definition from rowbeat.task_definition d where d.name = v_task.definition;
    if v_task.cancel_requested_at is not null and v_outcome not in ('done', 'rejected') then
        v_outcome := 'cancelled';
    end if;
    if v_definition.settle_function is not null and v_outcome not in ('snoozed', 'interrupted') then
        select * into v_outcome, v_result, v_error, v_pause
        from rowbeat.settle_attempt(v_definition.settle_function, v_task, v_outcome, v_result, v_error, v_pause);
    end if;
    -- Whatever settle made of it: a task that is being cancelled does not come again.
    if v_task.cancel_requested_at is not null and v_outcome not in ('done', 'rejected') then
        v_outcome := 'cancelled';
    end if;
    if v_outcome = 'done' then
        perform rowbeat.finish_task(v_task, 'completed', v_outcome, v_result, null);
        return 'completed';
    elsif v_outcome = 'cancelled' then
        perform rowbeat.finish_task(v_task, 'cancelled', v_outcome, null, coalesce(v_error, v_task.last_error));
        return 'cancelled';
    end if;
    v_task.deaths := case when p_node_died then v_task.deaths + 1 else 0 end;
    if v_outcome not in ('snoozed', 'interrupted') and (v_task.begun or not p_node_died) then
        v_task.failures := v_task.failures + 1;
        if v_outcome = 'rejected' or v_task.failures >= v_task.max_attempts then
            perform rowbeat.finish_task(v_task, 'failed', v_outcome, null, v_error);
            return 'failed';
        end if;
    end if;
    perform rowbeat.reschedule_task(v_task, v_definition, v_outcome, v_error, v_pause);
    return 'waiting';
end $$;
comment on function rowbeat.end_attempt(bigint, integer, bigint, text, jsonb, jsonb, interval, boolean) is
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
    set state = 'waiting', claimed_by = null, run_at = v_run_at, failures = p_task.failures, last_error = coalesce(p_error, t.last_error),
        slots = false, lease_until = null, deaths = p_task.deaths,
        parked = case when p_task.deaths = 2 then 'isolated' when p_task.deaths > 2 then 'quarantined' end
    where t.id = p_task.id;
    if p_task.slots then
        perform rowbeat.release_slots(p_task.id);
    end if;
    insert into rowbeat.attempt (slot, task_id, attempt, definition, outcome, error, node, started_at, ended_at, retry_at, expires_on)
    values (rowbeat.slot_of(v_today + 30), p_task.id, p_task.attempt, p_task.definition, p_outcome, p_error,
        p_task.claimed_by, p_task.claimed_at, v_now, v_run_at, v_today + 30);
    perform rowbeat.ring('task');
end $$;
comment on function rowbeat.reschedule_task(rowbeat.task, rowbeat.task_definition, text, jsonb, interval) is 'Puts a task back to wait and records its ended attempt.';

-- Promises: done attempts have ended, many at a time. Returns their ids; one that is missing is locked by somebody at this moment, or has
--   lost its claim. Tasks of a definition with a settle function end by end_attempt.
-- Called by: the completer; perform_sql_batch. Locks: the task rows, without waiting. By ctid, like the claim: a join would be planned as
--   a hash over the whole table. The record (and its time) comes first, then the slots are given back.
create or replace function rowbeat.complete_tasks(p_tasks bigint[], p_attempts integer[], p_nodes bigint[], p_results jsonb[])
returns setof bigint
language plpgsql volatile as $$
begin
    return query
    with c as materialized (
        select * from unnest(p_tasks, p_attempts, p_nodes, p_results) as u (id, attempt, node, result)
    ), done as (
        delete from rowbeat.task t where t.ctid = any (array(
            select held.tid from c cross join lateral (
                select s.ctid as tid from rowbeat.task s
                where s.id = c.id and s.attempt = c.attempt and s.claimed_by = c.node and s.state = 'running'
                for update skip locked
            ) held
        ))
        returning t.*
    ), kept as (
        insert into rowbeat.finished_task (slot, id, definition, payload, queue, priority, cause, state, outcome, result, attempt, failures,
            max_attempts, timeout, unique_key, serial_key, node, created_at, run_at, started_at, finished_at, expires_on, redacted)
        select rowbeat.slot_of(n.today + d.keep_days), done.id, done.definition, case when d.redact then '{}' else done.payload end, done.queue,
            done.priority, done.cause, 'completed', 'done', case when not d.redact then c.result end, done.attempt, done.failures,
            done.max_attempts, done.timeout, done.unique_key, done.serial_key, done.claimed_by, done.created_at, done.run_at, done.claimed_at,
            n.at, n.today + d.keep_days, d.redact
        from done
        join c on c.id = done.id
        join rowbeat.task_definition d on d.name = done.definition and d.keep = 'all'
        cross join (select now_.at, (now_.at at time zone 'UTC')::date as today from (select rowbeat.now_() as at) now_) n
        returning 1
    ), passed_on as materialized (
        select done.id, case when done.slots then rowbeat.release_slots(done.id) end,
            case when done.serial_key is not null then rowbeat.release_serial(done.id, done.serial_key) end
        from done cross join (select count(*) from kept) recorded
    )
    select p.id from passed_on p;
end $$;
comment on function rowbeat.complete_tasks(bigint[], integer[], bigint[], jsonb[]) is 'Ends done attempts, many at a time; returns those it has ended.';

-- Promises: the attempt has failed with the error that is being handled. Called by: perform_sql_batch, in an exception handler.
create or replace function rowbeat.end_raised(p_task rowbeat.task, p_sqlstate text, p_message text, p_detail text, p_hint text, p_context text)
returns void
language sql volatile as $$
    select rowbeat.end_attempt(p_task.id, p_task.attempt, p_task.claimed_by, 'failed', null, jsonb_strip_nulls(jsonb_build_object(
        'message', p_message, 'sqlstate', p_sqlstate, 'detail', nullif(p_detail, ''), 'hint', nullif(p_hint, ''), 'context', nullif(p_context, ''))))
$$;
comment on function rowbeat.end_raised(rowbeat.task, text, text, text, text, text) is 'Ends an attempt as failed, with what the server said.';

-- Promises: the running tasks of a dead node are ended as lost, and then it is on record as lost. A task that somebody holds locked
--   (a cancellation in a long transaction, a worker that was stopped just before its commit) is left for the next time, and so is the
--   record: it must not hold up the others. Returns how many. Called by: rescue_lost, take_over. Locks: the task rows, waiting for nobody.
create or replace function rowbeat.bury_node(p_node bigint, p_why text) returns bigint
language plpgsql volatile as $$
declare
    v_task   record;
    v_count  bigint := 0;
begin
    for v_task in
        select t.id, t.attempt from rowbeat.task t where t.claimed_by = p_node and t.state = 'running' for update skip locked
    loop
        perform rowbeat.end_attempt(v_task.id, v_task.attempt, p_node, 'lost', null,
            jsonb_build_object('message', p_why), p_node_died => true);
        v_count := v_count + 1;
    end loop;
    update rowbeat.node n set lost_at = coalesce(n.lost_at, rowbeat.now_())
    where n.id = p_node and n.stopped_at is null and not exists (select from rowbeat.task t where t.claimed_by = p_node and t.state = 'running');
    return v_count;
end $$;
comment on function rowbeat.bury_node(bigint, text) is 'Ends the attempts of a dead node; their tasks are retried.';

-- Promises: nodes whose lease ran out are buried, and tasks whose foreign worker let its lease run out are ended as lost; those count
--   as failures and are never isolated: a foreign worker that must not share its fate with others claims one task at a time. A node that
--   still holds its session lock (it is cut off or stopped, not dead) gets a third of its lease on top. Returns how many tasks.
-- Called by: every daemon, when its heartbeat tells of somebody. Locks: node rows, then their task rows, waiting for nobody. Safe in any
--   number of copies.
create or replace function rowbeat.rescue_lost() returns bigint
language plpgsql volatile as $$
declare
    v_node   record;
    v_task   record;
    v_count  bigint := 0;
begin
    for v_node in
        select n.id, n.name, n.heartbeat_at from rowbeat.node n
        where n.kind = 'node' and n.stopped_at is null and n.lost_at is null and n.heartbeat_at < rowbeat.now_() - n.lease
            and (n.heartbeat_at < rowbeat.now_() - n.lease * 4 / 3 or not rowbeat.holds_session(n.id))
        for update skip locked
    loop
        v_count := v_count + rowbeat.bury_node(v_node.id,
            format('node %s (%s) gave no sign of life since %s', v_node.name, v_node.id, v_node.heartbeat_at));
    end loop;
    for v_task in
        select t.id, t.attempt, t.lease_until from rowbeat.task t
        where t.lease_until < rowbeat.now_() and t.state = 'running' for update skip locked
    loop
        perform rowbeat.end_attempt(v_task.id, v_task.attempt, null, 'lost', null,
            jsonb_build_object('message', format('its worker let the lease run out at %s', v_task.lease_until)));
        v_count := v_count + 1;
    end loop;
    return v_count;
end $$;
comment on function rowbeat.rescue_lost() is 'Ends the attempts of nodes and workers whose lease ran out; their tasks are retried.';

-- Promises: tasks of nodes that are gone already are ended as lost, too: a claim may have committed after its node was given up, and its
--   answer got lost. Returns how many. Called by: every daemon, now and then; it reads all live tasks.
create or replace function rowbeat.rescue_forgotten() returns bigint
language sql volatile as $$
    select coalesce(sum(rowbeat.bury_node(g.id, format('node %s (%s) was gone when it claimed', g.name, g.id))), 0)
    from (select n.id, n.name from rowbeat.node n
        where coalesce(n.lost_at, n.stopped_at) < rowbeat.now_() - interval '1 minute'
            and n.id in (select t.claimed_by from rowbeat.task t where t.state = 'running')
        for update of n skip locked) g
$$;
comment on function rowbeat.rescue_forgotten() is 'Ends the attempts of nodes that were gone when they claimed.';

-- Promises: earlier incarnations that held the same locked file are buried at once: who holds the file now is the only one alive.
-- Called by: a daemon that has just registered and holds its file's lock. Returns how many tasks.
create or replace function rowbeat.take_over(p_node bigint, p_host_key text) returns bigint
language plpgsql volatile as $$
declare
    v_node   record;
    v_count  bigint := 0;
begin
    for v_node in
        select n.id, n.name from rowbeat.node n
        where n.host_key = p_host_key and n.id < p_node and n.stopped_at is null and n.lost_at is null
        for update skip locked
    loop
        v_count := v_count + rowbeat.bury_node(v_node.id, format('node %s (%s) died and was started again', v_node.name, v_node.id));
    end loop;
    return v_count;
end $$;
comment on function rowbeat.take_over(bigint, text) is 'Ends the attempts of this node''s earlier incarnations, after a crash.';

-- Whether a node's session lock is held: it goes with the connection, when a process dies.
create or replace function rowbeat.holds_session(p_node bigint) returns boolean
language sql stable set search_path = '' as $$
    select exists (
        select from pg_catalog.pg_locks l
        where l.locktype = 'advisory' and l.classid = 1919907683 and l.objid = p_node::oid and l.objsubid = 2
            and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database()))
$$;
comment on function rowbeat.holds_session(bigint) is 'Whether a node is connected, by its session lock.';
