-- HTTP: what the endpoints answer. The actor is the operator whom the daemon let in; a user of that name acts.

create or replace function freight.answer(p_status integer, p_body jsonb) returns jsonb language sql immutable as $$
    select jsonb_build_object('status', p_status, 'kind', 'json', 'body', p_body)
$$;
comment on function freight.answer(integer, jsonb) is 'An answer in JSON.';

create or replace function freight.refuse(p_status integer, p_message text) returns jsonb language sql immutable as $$
    select freight.answer(p_status, jsonb_build_object('message', p_message))
$$;
comment on function freight.refuse(integer, text) is 'A refusal.';

-- A text or a list of texts as an array; null when there is nothing in it.
create or replace function freight.texts(p_value jsonb) returns text[] language sql immutable as $$
    select nullif(array(select t from jsonb_array_elements_text(case jsonb_typeof(p_value)
        when 'array' then p_value when 'string' then jsonb_build_array(p_value) else '[]' end) t where trim(t) <> ''), '{}')
$$;
comment on function freight.texts(jsonb) is 'The texts of a JSON value.';

-- Enqueues a billing task for a user, once for the same arguments while one lives, and says so.
create or replace function freight.start_task(p_definition text, p_user freight.app_user, p_arguments jsonb, p_message text) returns jsonb language sql volatile as $$
    select freight.answer(200, jsonb_build_object('message', p_message, 'task_id', rowbeat.enqueue(p_definition,
        p_arguments || jsonb_build_object('user_id', p_user.id), p_unique_key => p_user.id || md5(p_arguments::text))))
$$;
comment on function freight.start_task(text, freight.app_user, jsonb, text) is 'Enqueues a billing task and answers.';

create or replace function freight.no_user(request jsonb) returns jsonb language sql immutable as $$
    select freight.refuse(404, format('User %s does not exist.', request ->> 'actor'))
$$;
comment on function freight.no_user(jsonb) is 'The answer to an operator who is no user.';

create or replace function freight.post_bill_invoice(request jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_user  freight.app_user := freight.user_of(request ->> 'actor');
    v_id    text := nullif(trim(request #>> '{input,invoice_id}'), '');
begin
    if v_id is null then
        return freight.refuse(400, 'Invoice ID is required. Please Try Again.');
    elsif v_user.id is null then
        return freight.no_user(request);
    elsif not exists (select from freight.billing_queue q where q.id::text = lower(v_id) and q.organization_id = v_user.organization_id) then
        return freight.refuse(404, format('Invoice %s is not in the billing queue.', v_id));
    end if;
    return freight.start_task('bill_invoice_task', v_user, jsonb_build_object('invoice_id', lower(v_id)), 'Billing task started.');
end $$;
comment on function freight.post_bill_invoice(jsonb) is 'POST /api/bill_invoice/';

create or replace function freight.post_mass_bill_orders(request jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_user  freight.app_user := freight.user_of(request ->> 'actor');
begin
    if coalesce(request #> '{input,*}', 'null') <> 'null' then
        return freight.refuse(400, 'Mass billing does not accept any data. Please Try Again.');
    elsif v_user.id is null then
        return freight.no_user(request);
    end if;
    return freight.start_task('mass_order_billing_task', v_user, '{}', 'Mass Billing task started.');
end $$;
comment on function freight.post_mass_bill_orders(jsonb) is 'POST /api/mass_bill_orders/';

create or replace function freight.post_transfer_to_billing(request jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_user  freight.app_user := freight.user_of(request ->> 'actor');
    v_pros  text[] := freight.texts(request #> '{input,order_pros}');
begin
    if v_pros is null then
        return freight.refuse(400, 'Order Pro(s) is required. Please Try Again.');
    elsif v_user.id is null then
        return freight.no_user(request);
    end if;
    return freight.start_task('transfer_to_billing_task', v_user, jsonb_build_object('order_pros', v_pros), 'Transfer to billing task started.');
end $$;
comment on function freight.post_transfer_to_billing(jsonb) is 'POST /api/transfer_to_billing/';

create or replace function freight.post_untransfer_invoice(request jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_user     freight.app_user := freight.user_of(request ->> 'actor');
    v_numbers  text[] := freight.texts(request #> '{input,invoice_numbers}');
begin
    if v_numbers is null then
        return freight.answer(400, '{"error": "No invoice numbers provided."}');
    elsif v_user.id is null then
        return freight.no_user(request);
    elsif freight.untransfer(v_user.organization_id, v_numbers) = 0 then
        return freight.answer(404, '{"error": "Invoice numbers not found."}');
    end if;
    return freight.answer(200, '{"success": "Orders untransferred successfully."}');
end $$;
comment on function freight.post_untransfer_invoice(jsonb) is 'POST /api/untransfer_invoice/';

-- The triggers of the database, from the catalogue: information_schema shows a role only those of its own tables.
create or replace view freight.database_trigger as
select current_database()::text as trigger_catalog, n.nspname::text as trigger_schema, t.tgname::text as trigger_name, e.event_manipulation,
    current_database()::text as event_object_catalog, n.nspname::text as event_object_schema, c.relname::text as event_object_table,
    row_number() over (partition by t.tgrelid, e.event_manipulation, t.tgtype & 67 order by t.tgname)::integer as action_order,
    case when t.tgqual is not null then (regexp_match(pg_get_triggerdef(t.oid), ' WHEN \((.+)\) EXECUTE FUNCTION'))[1] end as action_condition,
    format('EXECUTE FUNCTION %I.%I(%s)', (select m.nspname from pg_catalog.pg_namespace m where m.oid = f.pronamespace), f.proname,
        (regexp_match(pg_get_triggerdef(t.oid), ' EXECUTE FUNCTION [^(]*\((.*)\)$'))[1]) as action_statement,
    case when t.tgtype & 1 = 1 then 'ROW' else 'STATEMENT' end as action_orientation,
    case when t.tgtype & 2 = 2 then 'BEFORE' when t.tgtype & 64 = 64 then 'INSTEAD OF' else 'AFTER' end as action_timing
from pg_catalog.pg_trigger t
join pg_catalog.pg_class c on c.oid = t.tgrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_proc f on f.oid = t.tgfoid
join (values (4, 'INSERT'), (8, 'DELETE'), (16, 'UPDATE')) e (bit, event_manipulation) on t.tgtype & e.bit > 0
where not t.tgisinternal and n.nspname !~ '^pg_temp';
comment on view freight.database_trigger is 'Triggers of the database, as information_schema.triggers has them.';

create or replace function freight.get_active_triggers(request jsonb) returns jsonb language sql stable as $$
    select freight.answer(200, coalesce((select jsonb_agg(to_jsonb(t) order by t.event_object_schema, t.event_object_table, t.trigger_name, t.event_manipulation)
        from freight.database_trigger t), '[]'))
$$;
comment on function freight.get_active_triggers(jsonb) is 'GET /api/active_triggers/';

-- What the database can tell. That it answers is the database's health; a full disk shows as a database that takes no writes.
create or replace function freight.get_system_health(request jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_begun  timestamptz := clock_timestamp();
    v_waits  timestamptz := (select c.waits_since from rowbeat.consumers c where c.name = 'router');
    v_due    timestamptz := (select min(t.run_at) from rowbeat.own_task t where t.state = 'available' and t.parked is null);
    v_alive  boolean := exists (select from rowbeat.nodes n where n.state = 'alive');
    v_kafka  boolean := exists (select from rowbeat.nodes n where n.state = 'alive' and not 'freight.produce_event' = any (n.lacks));
    v_slow   constant interval := '1 minute';
begin
    return freight.answer(200, jsonb_build_object(
        'database', jsonb_build_object('status', case when clock_timestamp() - v_begun > interval '2 seconds' then 'slow' else 'working' end),
        'tasks', jsonb_build_object('status', case when not v_alive then 'offline' when v_due < rowbeat.now_() - v_slow then 'slow' else 'working' end),
        'listener', jsonb_build_object('status', case when not v_alive then 'offline' when v_waits < rowbeat.now_() - v_slow then 'slow' else 'working' end),
        'disk_usage', jsonb_build_object('status', case when pg_is_in_recovery() or current_setting('transaction_read_only')::boolean then 'offline' else 'working' end),
        'kafka', jsonb_build_object('status', case when v_kafka then 'working' else 'offline' end)));
end $$;
comment on function freight.get_system_health(jsonb) is 'GET /api/system_health/';
