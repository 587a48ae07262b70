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
    if request #>> '{input,body}' is not null then
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
