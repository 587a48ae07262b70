-- Calling the functions that definitions name: the only dynamic SQL on the way of a task. The text is resolved to a
-- function first (RB002 if there is none), and only the resolved, quoted name is put into the statement. These functions,
-- and those that call them, set no search_path of their own: a definition's function sees the session's, as anybody would expect.

-- Promises: the function the text names, or a clear refusal. SQLSTATEs: RB002.
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
    return v_function;
end $$;
comment on function rowbeat.resolve_function(text, text) is 'The function a definition names, with these argument types, or RB002.';

-- Promises: a sql task has run and is recorded, both in this transaction or neither: exactly once. Whoever lost the
--   claim meanwhile is refused in the end, and what its function did is rolled back.
-- Called by: the sql executor, alone in its transaction. Locks: what the function locks, then the task row.
-- SQLSTATEs: RB002, RB003, and whatever the function raises.
create or replace function rowbeat.perform_sql(p_task_id bigint, p_attempt integer, p_node bigint) returns void
language plpgsql volatile as $$
declare
    v_task      rowbeat.task := rowbeat.read_claim(p_task_id, p_attempt, p_node);
    v_function  regprocedure;
    v_result    jsonb;
begin
    select rowbeat.resolve_function(d.function, '(jsonb)') into v_function
    from rowbeat.task_definition d where d.name = v_task.definition;
    if (select p.prorettype = 'void'::regtype from pg_catalog.pg_proc p where p.oid = v_function) then
        execute format('select %s($1)', v_function::regproc) using v_task.payload;
    else
        execute format('select to_jsonb(%s($1))', v_function::regproc) into v_result using v_task.payload;
    end if;
    perform rowbeat.end_attempt(p_task_id, p_attempt, p_node, 'done', v_result);
end $$;
comment on function rowbeat.perform_sql(bigint, integer, bigint) is 'Runs a sql task''s function and records it, in one transaction.';

-- Promises: the next effect of a planned task, or null. Locks nothing itself. SQLSTATEs: RB002, RB003.
create or replace function rowbeat.call_plan(p_task_id bigint, p_attempt integer, p_node bigint) returns jsonb
language plpgsql volatile as $$
declare
    v_task      rowbeat.task := rowbeat.read_claim(p_task_id, p_attempt, p_node);
    v_function  regprocedure;
    v_effect    jsonb;
begin
    select rowbeat.resolve_function(d.plan_function, '(jsonb,jsonb[])') into v_function
    from rowbeat.task_definition d where d.name = v_task.definition;
    execute format('select %s($1, $2)', v_function::regproc) into v_effect
    using rowbeat.task_document(v_task), rowbeat.responses(p_task_id);
    return v_effect;
end $$;
comment on function rowbeat.call_plan(bigint, integer, bigint) is 'Asks a task''s plan function for the next effect.';

-- Called by: end_attempt. SQLSTATEs: RB002 and whatever the function raises.
create or replace function rowbeat.call_settle(
    p_function text, p_task rowbeat.task, p_outcome text, p_result jsonb, p_error jsonb
) returns jsonb
language plpgsql volatile as $$
declare
    v_function  regprocedure := rowbeat.resolve_function(p_function, '(jsonb,jsonb,jsonb[])');
    v_settled   jsonb;
begin
    execute format('select %s($1, $2, $3)', v_function::regproc) into v_settled
    using rowbeat.task_document(p_task),
        jsonb_build_object('outcome', p_outcome, 'result', p_result, 'error', p_error),
        rowbeat.responses(p_task.id);
    return v_settled;
end $$;
comment on function rowbeat.call_settle(text, rowbeat.task, text, jsonb, jsonb) is 'Runs a settle function with the outcome and the responses.';

-- The stored responses of a task, in order; an empty array before the first.
create or replace function rowbeat.responses(p_task_id bigint) returns jsonb[]
language sql stable as $$
    select coalesce(array_agg(s.response order by s.step), '{}') from rowbeat.step s where s.task_id = p_task_id
$$;
comment on function rowbeat.responses(bigint) is 'Responses of a task''s performed steps, in order.';
