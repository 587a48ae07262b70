-- Conditional logic: values are data, compared as their type, and never part of a statement.

-- Promises: returns when the logic makes sense. SQLSTATEs: RP400, naming the condition.
create or replace function freight.check_conditions(p_logic jsonb) returns void language plpgsql immutable as $$
declare
    v_condition  jsonb;
    v_operation  text;
    v_kind       text;
    v_problem    text;
    v_value      jsonb;
begin
    if p_logic is null then
        return;
    elsif jsonb_typeof(p_logic) <> 'object' or jsonb_typeof(p_logic -> 'conditions') is distinct from 'array' then
        raise exception using errcode = 'RP400', message = 'Conditional logic is an object with name, description and a list of conditions.';
    end if;
    for v_condition in select c from jsonb_array_elements(p_logic -> 'conditions') c loop
        if jsonb_typeof(v_condition) <> 'object' then
            raise exception using errcode = 'RP400', message = format('Condition %s is not an object.', v_condition);
        end if;
        v_operation := coalesce(v_condition ->> 'operation', '');
        v_kind := coalesce(jsonb_typeof(v_condition -> 'value'), 'null');
        v_value := case when v_kind = 'array' then v_condition -> 'value' else jsonb_build_array(v_condition -> 'value') end;
        v_problem := case
            when coalesce(v_condition ->> 'id', '') = '' then 'has no id'
            when coalesce(v_condition ->> 'column', '') = '' then 'names no column'
            when v_operation <> all ('{eq,ne,gt,gte,lt,lte,contains,icontains,in,not_in,isnull,not_isnull}') then format('has an unknown operation: %s', v_operation)
            when coalesce(v_condition ->> 'data_type', '') <> all ('{string,number,boolean,date}') then format('has an unknown data_type: %s', v_condition ->> 'data_type')
            when v_operation in ('in', 'not_in') and v_kind <> 'array' then format('needs a list for %s', v_operation)
            when v_operation in ('contains', 'icontains') and v_kind <> 'string' then format('needs a string for %s', v_operation)
            when v_operation in ('isnull', 'not_isnull') and v_kind <> 'null' then format('needs a null value for %s', v_operation)
            when v_operation in ('eq', 'ne', 'gt', 'gte', 'lt', 'lte') and v_kind not in ('string', 'number', 'boolean') then format('needs one value for %s', v_operation)
        end;
        if v_problem is null and v_operation not in ('contains', 'icontains', 'isnull', 'not_isnull') then
            v_problem := (select format('has a value that is no %s: %s', v_condition ->> 'data_type', e)
                from jsonb_array_elements(v_value) e where not freight.is_of_type(e #>> '{}', v_condition ->> 'data_type') limit 1);
        end if;
        if v_problem is not null then
            raise exception using errcode = 'RP400', message = format('Condition %s %s.', coalesce(v_condition ->> 'id', v_condition::text), v_problem);
        end if;
    end loop;
end $$;
comment on function freight.check_conditions(jsonb) is 'Refuses conditional logic that makes no sense.';

-- Whether a text can be read as a type; null cannot.
create or replace function freight.is_of_type(p_text text, p_type text) returns boolean language plpgsql immutable as $$
begin
    if p_text is null then
        return false;
    end if;
    case p_type
        when 'number' then perform p_text::numeric;
        when 'boolean' then perform p_text::boolean;
        when 'date' then return p_text ~ '^\d{4,}-\d\d-\d\d' and p_text::date is not null;
        else null;
    end case;
    return true;
exception when data_exception then
    return false;
end $$;
comment on function freight.is_of_type(text, text) is 'Whether a text can be read as a value of a type.';

-- -1, 0 or 1; null when one of them is null.
create or replace function freight.compare(p_left text, p_right text, p_type text) returns integer language sql immutable as $$
    select case p_type
        when 'number' then sign(p_left::numeric - p_right::numeric)::integer
        when 'boolean' then p_left::boolean::integer - p_right::boolean::integer
        when 'date' then sign(left(p_left, 10)::date - left(p_right, 10)::date)::integer
        else case when p_left is null or p_right is null then null when p_left = p_right then 0 when p_left < p_right collate "C" then -1 else 1 end
    end
$$;
comment on function freight.compare(text, text, text) is 'Compares two values of a type, which are written as texts.';

-- Promises: whether a condition holds on a row, and what is wrong with it; it never raises. What is null fits nothing but isnull.
create or replace function freight.judge_condition(p_condition jsonb, p_row jsonb, out holds boolean, out problem text) language plpgsql immutable as $$
declare
    v_column  text := p_condition ->> 'column';
    v_type    text := p_condition ->> 'data_type';
    v_actual  text := p_row ->> v_column;
    v_value   jsonb := p_condition -> 'value';
    v_text    text := v_value #>> '{}';
begin
    holds := false;
    if not coalesce(p_row ? v_column, false) then
        problem := format('condition %s: the table has no column %s', p_condition ->> 'id', v_column);
        return;
    end if;
    holds := coalesce(case p_condition ->> 'operation'
        when 'isnull' then v_actual is null
        when 'not_isnull' then v_actual is not null
        when 'contains' then position(v_text in v_actual) > 0
        when 'icontains' then position(lower(v_text) in lower(v_actual)) > 0
        when 'in' then exists (select from jsonb_array_elements_text(v_value) e where freight.compare(v_actual, e, v_type) = 0)
        when 'not_in' then v_actual is not null and not exists (select from jsonb_array_elements_text(v_value) e where freight.compare(v_actual, e, v_type) = 0)
        when 'eq' then freight.compare(v_actual, v_text, v_type) = 0
        when 'ne' then freight.compare(v_actual, v_text, v_type) <> 0
        when 'gt' then freight.compare(v_actual, v_text, v_type) > 0
        when 'gte' then freight.compare(v_actual, v_text, v_type) >= 0
        when 'lt' then freight.compare(v_actual, v_text, v_type) < 0
        when 'lte' then freight.compare(v_actual, v_text, v_type) <= 0
    end, false);
exception when others then
    holds := false;
    problem := format('condition %s: %s', p_condition ->> 'id', sqlerrm);
end $$;
comment on function freight.judge_condition(jsonb, jsonb) is 'Whether a condition holds on a row, or what is wrong.';

-- Whether all conditions hold, and the first problem.
create or replace function freight.judge_conditions(p_logic jsonb, p_row jsonb, out holds boolean, out problem text) language sql immutable as $$
    select coalesce(bool_and(j.holds), true), (array_agg(j.problem order by c.n) filter (where j.problem is not null))[1]
    from jsonb_array_elements(p_logic -> 'conditions') with ordinality c (condition, n)
    cross join lateral freight.judge_condition(c.condition, p_row) j
$$;
comment on function freight.judge_conditions(jsonb, jsonb) is 'Whether all conditions hold on a row, and the first problem with them.';
