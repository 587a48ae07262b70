-- Calling the functions that definitions name: the only dynamic SQL on the way of a task. The text is resolved to a
-- function first (RB002 if there is none), and only the resolved, quoted name is put into the statement. These functions,
-- and those that call them, set no search_path of their own: a definition's function sees the session's, as anybody would expect.

-- Promises: the function the text names, or a clear refusal. SQLSTATEs: RB002, RB005 (a plugin's function that no longer runs as its role).
create or replace function rowbeat.resolve_function(p_function text, p_arguments text) returns regprocedure
language plpgsql stable as $$
declare
    v_function regprocedure;
begin
    begin
        v_function := to_regprocedure(p_function || p_arguments);
    exception when others then
        v_function := null;
    end;
    if v_function is null then
        raise exception using errcode = 'RB002', message = format('function %s%s does not exist', p_function, p_arguments),
            hint = 'Create it, or correct its schema-qualified name in rowbeat.task_definition.';
    end if;
    perform rowbeat.refuse_unsealed(v_function);
    return v_function;
end $$;
comment on function rowbeat.resolve_function(text, text) is 'The function a definition names, with these argument types, or RB002.';

-- Promises: what a sql function makes of the task's payload, as JSON; null for a void one. The settings rowbeat.task_id, rowbeat.attempt
--   and rowbeat.cause tell it whose task it runs. SQLSTATEs: whatever the function raises.
create or replace function rowbeat.call_sql(p_function regprocedure, p_task rowbeat.task) returns jsonb
language plpgsql volatile as $$
declare
    v_path    text := current_setting('search_path');
    v_result  jsonb;
begin
    perform set_config('rowbeat.task_id', p_task.id::text, true), set_config('rowbeat.attempt', p_task.attempt::text, true),
        set_config('rowbeat.cause', coalesce(p_task.cause::text, ''), true);
    if (select p.prorettype = 'void'::regtype from pg_catalog.pg_proc p where p.oid = p_function) then
        execute format('select %s($1)', p_function::regproc) using p_task.payload;
    else
        execute format('select to_jsonb(%s($1))', p_function::regproc) into v_result using p_task.payload;
    end if;
    -- What the function did to the search path must not decide which functions the engine calls next.
    perform pg_catalog.set_config('search_path', v_path, false);
    return v_result;
end $$;
comment on function rowbeat.call_sql(regprocedure, rowbeat.task) is 'Calls a sql task''s function.';

-- Promises: a sql task has run and is recorded as done, both in this transaction or neither: exactly once. Whoever lost the
--   claim meanwhile is refused in the end, and what its function did is rolled back; also when its settle function raises, for then
--   the function runs again.
-- Called by: the sql executor, alone in its transaction. Locks: what the function locks, then the task row.
-- SQLSTATEs: RB002, RB003, P0001 for what settle raised, and whatever the function raises.
create or replace function rowbeat.perform_sql(p_task_id bigint, p_attempt integer, p_node bigint) returns void
language plpgsql volatile as $$
declare
    v_task     rowbeat.task := rowbeat.read_claim(p_task_id, p_attempt, p_node);
    v_result   jsonb;
    v_state    text;
    v_message  text;
begin
    select rowbeat.call_sql(rowbeat.resolve_function(d.function, '(jsonb)'), v_task) into v_result
    from rowbeat.task_definition d where d.name = v_task.definition;
    v_state := rowbeat.end_attempt(p_task_id, p_attempt, p_node, 'done', v_result);
    if v_state in ('failed', 'waiting') and not exists (select from rowbeat.attempt a
            where a.task_id = p_task_id and a.attempt = p_attempt and a.outcome = 'snoozed') then
        select t.error ->> 'message' into v_message from rowbeat.tasks t where t.id = p_task_id;
        raise exception '%', coalesce(v_message, 'settle: refused');
    end if;
end $$;
comment on function rowbeat.perform_sql(bigint, integer, bigint) is 'Runs a sql task''s function and records it, in one transaction.';

-- Promises: what perform_sql does, as one statement for the tasks of this definition as it is now. $1 task · $2 attempt · $3 node. It is planned
--   once a session and does nothing that the definition does not ask for: a fraction of the cost. Null: the function does not exist, a
--   settle function wants more, or it runs as a plugin's role and is looked at before each call.
-- Called by: every daemon, when it reads the definitions; a task whose claim saw another revision goes to perform_sql. SQLSTATEs of the
--   statement: RB003, and whatever the function raises. Locks: as perform_sql.
create or replace function rowbeat.sql_statement(p_definition rowbeat.task_definition) returns text
language plpgsql stable set search_path = '' as $$
declare
    v_function  regprocedure;
    v_result    text;
    v_kept      text := '';
    v_after     text := '';
begin
    if p_definition.executor <> 'sql' or p_definition.settle_function is not null then
        return null;
    end if;
    v_function := rowbeat.resolve_function(p_definition.function, '(jsonb)');
    if exists (select from pg_catalog.pg_proc f join rowbeat.plugin p on to_regnamespace(quote_ident(p.name)) = f.pronamespace
            where f.oid = v_function and p.role_name is not null) then
        return null;
    end if;
    if p_definition.keep = 'all' then
        select case when f.prorettype = 'void'::regtype or p_definition.redact then 'null' else 'to_jsonb(done.value)' end
        into v_result from pg_catalog.pg_proc f where f.oid = v_function;
        v_kept := format($statement$, kept as (
            insert into rowbeat.finished_task (slot, id, definition, payload, queue, priority, cause, state, outcome, result, attempt, failures,
                max_attempts, timeout, unique_key, serial_key, node, created_at, run_at, started_at, finished_at, expires_on, redacted)
            select rowbeat.slot_of(n.today + %1$s), done.id, done.definition, %2$s, done.queue,
                done.priority, done.cause, 'completed', 'done', %3$s, done.attempt, done.failures,
                done.max_attempts, done.timeout, done.unique_key, done.serial_key, done.claimed_by, done.created_at, done.run_at, done.claimed_at,
                n.at, n.today + %1$s, %4$L
            from done
            cross join (select now_.at, (now_.at at time zone 'UTC')::date as today from (select rowbeat.now_() as at) now_) n
            returning 1
        )$statement$, p_definition.keep_days, case when p_definition.redact then $empty$'{}'$empty$ else 'done.payload' end, v_result,
            p_definition.redact);
        v_after := ' cross join (select count(*) from kept) recorded';
    end if;
    return format($statement$
        with done as (
            delete from rowbeat.task t
            using (
                select set_config('rowbeat.task_id', r.id::text, true), set_config('rowbeat.attempt', r.attempt::text, true),
                    case when r.cause is not null then set_config('rowbeat.cause', r.cause::text, true) end, %1$s(r.payload) as value
                from rowbeat.task r where r.id = $1 and r.attempt = $2 and r.claimed_by = $3 and r.state = 'running' offset 0
            ) called
            where t.id = $1 and t.attempt = $2 and t.claimed_by = $3 and t.state = 'running'
            returning t.*, called.value
        )%2$s
        select case when done.id is null then rowbeat.refuse_stale($1, $2) end, case when done.slots then rowbeat.release_slots($1) end,
            case when done.serial_key is not null then rowbeat.release_serial($1, done.serial_key) end, pg_advisory_unlock_all()
        from (values (1)) one left join done on true%3$s$statement$, v_function::regproc, v_kept, v_after);
exception when sqlstate 'RB002' or sqlstate 'RB005' then
    return null;
end $$;
comment on function rowbeat.sql_statement(rowbeat.task_definition) is 'The one statement that runs and records a plain sql task of a definition.';

-- Promises: sql tasks of one definition have run, each in a savepoint of its own, and are recorded, all in this transaction: a failing
--   one is rolled back and recorded alone. Returns those that were left out: somebody holds them, or their claim is gone.
-- Called by: the sql executor, alone in its transaction. Locks: the task rows from the start, without waiting (so they cannot be
--   cancelled meanwhile), then what the functions lock. SQLSTATEs: RB002.
create or replace function rowbeat.perform_sql_batch(p_tasks bigint[], p_attempts integer[], p_node bigint) returns setof bigint
language plpgsql volatile as $$
declare
    v_task      rowbeat.task;
    v_function  regprocedure;
    v_done      bigint[] := '{}';
    v_attempts  integer[] := '{}';
    v_results   jsonb[] := '{}';
    v_result    jsonb;
    v_held      bigint[];
    v_sqlstate  text;
    v_message   text;
    v_detail    text;
    v_hint      text;
    v_context   text;
begin
    v_held := array(
        select h.id from unnest(p_tasks, p_attempts) u (id, attempt) cross join lateral (
            select t.id from rowbeat.task t
            where t.id = u.id and t.attempt = u.attempt and t.claimed_by = p_node and t.state = 'running' for update skip locked
        ) h);
    for v_task in select t.* from unnest(v_held) with ordinality u (id, n) join rowbeat.task t on t.id = u.id order by u.n loop
        begin
            v_function := coalesce(v_function, (select rowbeat.resolve_function(d.function, '(jsonb)')
                from rowbeat.task_definition d where d.name = v_task.definition));
            v_result := rowbeat.call_sql(v_function, v_task);
            v_done := v_done || v_task.id;
            v_attempts := v_attempts || v_task.attempt;
            v_results := v_results || v_result;
        exception when others then
            get stacked diagnostics v_sqlstate = returned_sqlstate, v_message = message_text, v_detail = pg_exception_detail,
                v_hint = pg_exception_hint, v_context = pg_exception_context;
            perform rowbeat.end_raised(v_task, v_sqlstate, v_message, v_detail, v_hint, v_context);
        end;
    end loop;
    perform rowbeat.complete_tasks(v_done, v_attempts, array_fill(p_node, array[cardinality(v_done)]), v_results);
    return query select u.id from unnest(p_tasks) u (id) where u.id <> all (v_held);
end $$;
comment on function rowbeat.perform_sql_batch(bigint[], integer[], bigint) is 'Runs and records sql tasks of one definition in one transaction.';

-- Promises: what a plan or settle function says in place of an effect or a result, when it is {"snooze": seconds} or {"cancel": reason}:
--   the outcome of the attempt, its error and its pause. Nulls: it says neither. SQLSTATEs: 22023 (this is no pause).
-- Called by: call_plan, settle_attempt; every daemon, to see that a plan has ended the attempt.
create or replace function rowbeat.read_verdict(p_answer jsonb, out outcome text, out error jsonb, out pause interval)
language plpgsql immutable set search_path = '' as $$
begin
    if p_answer = jsonb_build_object('cancel', p_answer -> 'cancel') then
        outcome := 'cancelled';
        error := jsonb_build_object('message', p_answer ->> 'cancel');
    elsif p_answer = jsonb_build_object('snooze', p_answer -> 'snooze') then
        if not (case when jsonb_typeof(p_answer -> 'snooze') = 'number' then (p_answer ->> 'snooze')::numeric between 0 and 1e9 else false end) then
            raise exception using errcode = '22023', message = format('snooze is a number of seconds from 0, not %s', p_answer -> 'snooze');
        end if;
        outcome := 'snoozed';
        pause := make_interval(secs => (p_answer ->> 'snooze')::double precision);
    end if;
end $$;
comment on function rowbeat.read_verdict(jsonb) is 'Whether a plan or settle function asks to snooze or to cancel its task.';

-- Promises: the next effect of a planned task, or null. A plan that asks to snooze or to cancel has its attempt ended, in the same
--   transaction: what it wrote and the ending are kept together. Locks: then the task row. SQLSTATEs: 22023, RB002, RB003.
create or replace function rowbeat.call_plan(p_task_id bigint, p_attempt integer, p_node bigint) returns jsonb
language plpgsql volatile as $$
declare
    v_path      text := current_setting('search_path');
    v_task      rowbeat.task := rowbeat.read_claim(p_task_id, p_attempt, p_node);
    v_function  regprocedure;
    v_effect    jsonb;
    v_verdict   record;
begin
    select rowbeat.resolve_function(d.plan_function, '(jsonb,jsonb[])') into v_function
    from rowbeat.task_definition d where d.name = v_task.definition;
    execute format('select %s($1, $2)', v_function::regproc) into v_effect
    using rowbeat.task_document(v_task), rowbeat.responses(p_task_id);
    perform pg_catalog.set_config('search_path', v_path, false);
    select * into v_verdict from rowbeat.read_verdict(v_effect);
    if v_verdict.outcome is not null then
        perform rowbeat.end_attempt(p_task_id, p_attempt, p_node, v_verdict.outcome, null, v_verdict.error, v_verdict.pause);
    end if;
    return v_effect;
end $$;
comment on function rowbeat.call_plan(bigint, integer, bigint) is 'Asks a task''s plan function for the next effect.';

-- Called by: settle_attempt. SQLSTATEs: RB002 and whatever the function raises.
create or replace function rowbeat.call_settle(
    p_function text, p_task rowbeat.task, p_outcome text, p_result jsonb, p_error jsonb
) returns jsonb
language plpgsql volatile as $$
declare
    v_path      text := current_setting('search_path');
    v_function  regprocedure := rowbeat.resolve_function(p_function, '(jsonb,jsonb,jsonb[])');
    v_settled   jsonb;
begin
    execute format('select %s($1, $2, $3)', v_function::regproc) into v_settled
    using rowbeat.task_document(p_task),
        jsonb_build_object('outcome', p_outcome, 'result', p_result, 'error', p_error),
        rowbeat.responses(p_task.id);
    perform pg_catalog.set_config('search_path', v_path, false);
    return v_settled;
end $$;
comment on function rowbeat.call_settle(text, rowbeat.task, text, jsonb, jsonb) is 'Runs a settle function with the outcome and the responses.';

-- Promises: the settle function has run, and the ending is what it made of it; it never raises. One that raises after success turns it into a
--   failure (its steps are kept, so effects are not performed again); one that raises after a failure only adds to the error. One that asks to
--   snooze or to cancel decides so, unless the task is being cancelled: what was done last is done again after the pause, so its response is forgotten.
--   After a failure it may say {"retry_after": seconds}: the pause, if attempts are left; then a rejection is a failure like others.
-- Called by: end_attempt, which holds the task's row lock.
create or replace function rowbeat.settle_attempt(
    p_function text, p_task rowbeat.task, inout outcome text, inout result jsonb, inout error jsonb, inout pause interval
) language plpgsql volatile as $$
declare
    v_settled   jsonb;
    v_verdict   record;
    v_message   text;
    v_sqlstate  text;
begin
    v_settled := rowbeat.call_settle(p_function, p_task, outcome, result, error);
    if outcome not in ('done', 'cancelled') and v_settled = jsonb_build_object('retry_after', v_settled -> 'retry_after') then
        pause := make_interval(secs => (v_settled ->> 'retry_after')::double precision);
        outcome := case outcome when 'rejected' then 'failed' else outcome end;
        return;
    end if;
    select * into v_verdict from rowbeat.read_verdict(v_settled);
    if v_verdict.outcome is null or outcome = 'cancelled' then
        result := coalesce(v_settled, result);
        return;
    end if;
    delete from rowbeat.step s where settle_attempt.outcome = 'done' and s.task_id = p_task.id
        and s.step = (select max(l.step) from rowbeat.step l where l.task_id = p_task.id);
    outcome := v_verdict.outcome;
    error := coalesce(v_verdict.error, error);
    pause := v_verdict.pause;
exception when others then
    get stacked diagnostics v_message = message_text, v_sqlstate = returned_sqlstate;
    if outcome = 'done' then
        outcome := 'failed';
        error := jsonb_build_object('message', 'settle: ' || v_message, 'sqlstate', v_sqlstate);
    else
        error := coalesce(error, '{}') || jsonb_build_object('settle', v_message);
    end if;
end $$;
comment on function rowbeat.settle_attempt(text, rowbeat.task, text, jsonb, jsonb, interval) is 'What an attempt''s ending becomes by its settle function.';

-- The stored responses of a task, in order; an empty array before the first.
create or replace function rowbeat.responses(p_task_id bigint) returns jsonb[]
language sql stable as $$
    select coalesce(array_agg(s.response order by s.step), '{}') from rowbeat.step s where s.task_id = p_task_id
$$;
comment on function rowbeat.responses(bigint) is 'Responses of a task''s performed steps, in order.';
