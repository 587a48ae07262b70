-- Asking for money, and hearing what became of it. Each plan looks at the sale first: what is settled is not asked for again.

-- The sale that a task is about.
create or replace function hotspot.sale_of(task jsonb) returns uuid language sql immutable as $$
    select (task #>> '{payload,sale}')::uuid
$$;
comment on function hotspot.sale_of(jsonb) is 'The sale of a task.';

-- The customer's number as the gateway wants it.
create or replace function hotspot.payer(p_phone_number text) returns text language sql immutable as $$
    select '233' || substr(p_phone_number, 2)
$$;
comment on function hotspot.payer(text) is 'A phone number with the country''s code.';

-- What the gateway says of a number: {"result": true}, or just true; 404: it knows no such number. Anything else is no answer (a page of a proxy), and
-- raised: the request is tried again. SQLSTATEs: RP409.
create or replace function hotspot.is_account(p_response jsonb) returns boolean language plpgsql immutable as $$
declare
    v_said  text := lower(coalesce(p_response #>> '{body,result}', p_response ->> 'body'));
begin
    if p_response ->> 'status' = '404' then
        return false;
    elsif v_said is null or v_said not in ('true', 'false') then
        perform hotspot.refuse('RP409', 'The gateway did not say whether the number is active.');
    end if;
    return v_said = 'true';
end $$;
comment on function hotspot.is_account(jsonb) is 'Whether a number is registered and active.';

-- First whether the number has an account, then the request. The reference was stored with the sale, so a request that is repeated is answered
-- 409, and that is as good as 202.
create or replace function hotspot.plan_request(task jsonb, responses jsonb[]) returns jsonb language sql stable as $$
    select case cardinality(responses)
        when 0 then jsonb_build_object('method', 'GET', 'path', format('/collection/v1_0/accountholder/msisdn/%s/active', hotspot.payer(s.phone_number)),
            'ok', '[404]'::jsonb)
        when 1 then case when hotspot.is_account(responses[1]) then jsonb_build_object('method', 'POST', 'path', '/collection/v1_0/requesttopay',
            'headers', jsonb_build_object('X-Reference-Id', s.reference), 'ok', '[409]'::jsonb,
            'body', jsonb_build_object('amount', trim_scale(s.amount)::text, 'currency', 'GHS', 'externalId', s.external_id,
                'payer', jsonb_build_object('partyIdType', 'MSISDN', 'partyId', hotspot.payer(s.phone_number)),
                'payerMessage', 'Payment', 'payeeNote', 'pay me')) end end
    from hotspot.sale s where s.id = hotspot.sale_of(task) and s.status = 'requested'
$$;
comment on function hotspot.plan_request(jsonb, jsonb[]) is 'Plans the request for a payment.';

-- Promises: pending, and polled, when the gateway took the request; failed when there is nobody to pay or it was refused, and no earlier attempt can
--   have reached the gateway; else requested as before, and the reconciliation finds out. That none has is known while each failed before it
--   asked, which stands in last_error. Locks: the sale.
create or replace function hotspot.settle_request(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb language plpgsql volatile as $$
declare
    v_sale    hotspot.sale;
    v_error   text := coalesce(outcome #>> '{error,message}', outcome ->> 'outcome');
    v_before  constant text := 'Not asked for money yet: ';
    v_first   boolean;
begin
    select * into v_sale from hotspot.sale s where s.id = hotspot.sale_of(task) for update;
    v_first := (task ->> 'attempt')::integer = 1 or coalesce(starts_with(v_sale.last_error, v_before), false);
    if v_sale.status in ('requested', 'failed') and outcome ->> 'outcome' = 'done' and cardinality(responses) = 2 then
        update hotspot.sale s set status = 'pending', last_error = null where s.id = v_sale.id;
        perform rowbeat.enqueue('hotspot.poll_payment', jsonb_build_object('sale', v_sale.id), p_unique_key => v_sale.id::text);
    elsif v_sale.status = 'requested' and outcome ->> 'outcome' = 'done' and cardinality(responses) = 1 and v_first then
        update hotspot.sale s set status = 'failed', last_error = hotspot.payer(s.phone_number) || ' is neither registered nor active' where s.id = v_sale.id;
    elsif v_sale.status = 'requested' and outcome ->> 'outcome' = 'rejected' and v_first then
        update hotspot.sale s set status = 'failed', last_error = v_error where s.id = v_sale.id;
    elsif v_sale.status = 'requested' and outcome ->> 'outcome' <> 'done' then
        update hotspot.sale s set last_error = case when v_first and coalesce(cardinality(responses), 0) = 0 and outcome ->> 'outcome' = 'failed'
            then v_before || v_error else v_error end where s.id = v_sale.id;
    end if;
    return (select jsonb_build_object('status', s.status) from hotspot.sale s where s.id = v_sale.id);
end $$;
comment on function hotspot.settle_request(jsonb, jsonb, jsonb[]) is 'Records what became of a request for a payment.';

-- Whether a sale's request for payment is still to be made.
create or replace function hotspot.is_being_requested(p_sale_id uuid) returns boolean language sql stable as $$
    select exists (select from rowbeat.own_task t where t.definition = 'hotspot.request_payment' and t.unique_key = p_sale_id::text
        and t.state in ('scheduled', 'available', 'retryable', 'running'))
$$;
comment on function hotspot.is_being_requested(uuid) is 'Whether the request for a sale''s payment is still to be made.';

create or replace function hotspot.plan_poll(task jsonb, responses jsonb[]) returns jsonb language sql stable as $$
    select jsonb_build_object('method', 'GET', 'path', '/collection/v1_0/requesttopay/' || s.reference, 'ok', '[404]'::jsonb)
    from hotspot.sale s where s.id = hotspot.sale_of(task) and cardinality(responses) = 0 and s.status in ('requested', 'pending', 'failed')
$$;
comment on function hotspot.plan_poll(jsonb, jsonb[]) is 'Plans a look at a payment.';

-- Promises: what the gateway says is recorded; while it says nothing final the task is put off: 5 seconds, after ten minutes 5 minutes, and after a
--   day the sale has failed. A request that the gateway does not know may still be on its way: while its
--   task lives, and for ten minutes. One that it took (pending) it has not forgotten: that is no answer.
create or replace function hotspot.settle_poll(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb language plpgsql volatile as $$
declare
    v_sale    hotspot.sale;
    v_reply   jsonb := responses[cardinality(responses)];
    v_unknown boolean := coalesce(v_reply ->> 'status' = '404', false);
    v_status  text := case when not v_unknown then upper(v_reply #>> '{body,status}') end;
    v_reason  text := coalesce(v_reply #>> '{body,reason,message}', v_reply #>> '{body,reason,code}', v_reply #>> '{body,reason}', v_reply #>> '{body,message}');
    v_age     interval;
begin
    select * into v_sale from hotspot.sale s where s.id = hotspot.sale_of(task) for update;
    v_age := rowbeat.now_() - v_sale.created_at;
    if v_sale.id is null then
        return null;
    elsif v_reply is null or outcome ->> 'outcome' <> 'done' then
        update hotspot.sale s set last_error = coalesce(outcome #>> '{error,message}', outcome ->> 'outcome')
        where s.id = v_sale.id and s.status in ('requested', 'pending') and outcome ->> 'outcome' <> 'done';
        return null;
    elsif v_unknown and v_sale.status = 'requested' and (v_age < interval '10 minutes' or hotspot.is_being_requested(v_sale.id)) then
        return jsonb_build_object('snooze', 5);
    elsif v_unknown and v_sale.status <> 'pending' then
        return jsonb_build_object('status', hotspot.record_payment(v_sale.id, 'FAILED', null, coalesce(v_reason, 'The gateway knows no such payment.')));
    elsif coalesce(v_status, 'PENDING') <> 'PENDING' then
        return jsonb_build_object('status', hotspot.record_payment(v_sale.id, v_status, v_reply #>> '{body,financialTransactionId}', v_reason));
    elsif v_age >= interval '24 hours' then
        return jsonb_build_object('status', hotspot.record_payment(v_sale.id, 'FAILED', null, 'timeout'));
    end if;
    perform hotspot.record_payment(v_sale.id, 'PENDING', null, null);
    return jsonb_build_object('snooze', case when v_age < interval '10 minutes' then 5 else 300 end);
end $$;
comment on function hotspot.settle_poll(jsonb, jsonb, jsonb[]) is 'Records what the gateway says of a payment, or asks again later.';

-- Promises: the sale is what the gateway reports, and its status is returned: paid (and its delivery enqueued), pending or failed. A report for a sale
--   that has been paid changes nothing. A financial id of another sale is refused: it stands in last_error and in the log.
-- Safe to repeat. Locks: the sale. SQLSTATEs: RP404. Called by: settle_poll.
create or replace function hotspot.record_payment(p_sale_id uuid, p_status text, p_financial_id text, p_reason text) returns text language plpgsql volatile as $$
declare
    v_sale    hotspot.sale;
    v_status  text := coalesce(upper(p_status), '');
    v_id      text := nullif(trim(p_financial_id), '');
begin
    select * into v_sale from hotspot.sale s where s.id = p_sale_id for update;
    if not found then
        perform hotspot.refuse('RP404', format('Sale %s does not exist.', p_sale_id));
    elsif v_sale.status in ('paid', 'delivered', 'refunded') then
        return v_sale.status;
    elsif v_status like 'SUCCESS%' then
        begin
            update hotspot.sale s set status = 'paid', paid_at = rowbeat.now_(), mtn_transaction_id = left(v_id, 40), last_error = null where s.id = p_sale_id;
        exception when unique_violation then
            if v_sale.last_error is distinct from hotspot.foreign_id(v_id) then
                update hotspot.sale s set last_error = hotspot.foreign_id(v_id) where s.id = p_sale_id;
                perform hotspot.add_log('gateway', 'change', 'sale', p_sale_id::text, v_sale.full_name, hotspot.foreign_id(v_id));
            end if;
            return v_sale.status;
        end;
        perform hotspot.start_delivery(p_sale_id);
    elsif v_status = 'PENDING' then
        update hotspot.sale s set status = 'pending', last_error = null where s.id = p_sale_id and s.status = 'requested';
    elsif v_sale.status <> 'failed' then
        update hotspot.sale s set status = 'failed', last_error = coalesce(nullif(p_reason, ''), nullif(p_status, ''), 'The gateway gave no reason.') where s.id = p_sale_id;
    end if;
    return (select s.status from hotspot.sale s where s.id = p_sale_id);
end $$;
comment on function hotspot.record_payment(uuid, text, text, text) is 'Records what the gateway reports of a sale.';

create or replace function hotspot.foreign_id(p_financial_id text) returns text language sql immutable as $$
    select format('Financial transaction %s belongs to another sale.', p_financial_id)
$$;
comment on function hotspot.foreign_id(text) is 'What is said of a payment that pays another sale.';

-- Promises: the sales whose payment is open and that have no live task are polled. A live poll holds the sale's unique key. The dashboard has the
--   days of today, also when nothing was sold yet. Called by: the task hotspot.reconcile_payments, every 5 minutes.
create or replace function hotspot.reconcile_payments(payload jsonb) returns jsonb language plpgsql volatile as $$
begin
    perform hotspot.refresh_dashboard() from hotspot.dashboard d
    where (d.payload #>> '{days,-1,day}', d.payload ->> 'zone') is distinct from (((rowbeat.now_() at time zone hotspot.zone())::date)::text, hotspot.zone());
    return (select jsonb_build_object('polled', count(rowbeat.enqueue('hotspot.poll_payment', jsonb_build_object('sale', s.id), p_unique_key => s.id::text)))
        from (select s.id from hotspot.sale s
            where s.status = 'pending' or s.status = 'requested' and not hotspot.is_being_requested(s.id) order by s.created_at) s);
end $$;
comment on function hotspot.reconcile_payments(jsonb) is 'Polls every open payment.';

-- Those of the texts that are UUIDs.
create or replace function hotspot.uuids(p_texts text[]) returns uuid[] language sql immutable as $$
    select array(select t::uuid from unnest(p_texts) t where t ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$')
$$;
comment on function hotspot.uuids(text[]) is 'Those of the texts that are UUIDs.';

-- The gateway's callback proves nothing: it only makes the poll come now. Whoever calls learns nothing.
create or replace function hotspot.receive_callback(request jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_body  jsonb := case jsonb_typeof(request #> '{input,*}') when 'object' then request #> '{input,*}' else '{}' end;
    v_said  text[] := array_remove(array[lower(request #>> '{input,reference}'), lower(v_body ->> 'referenceId'), lower(v_body ->> 'reference'),
        lower(v_body ->> 'externalId')], null);
    v_sale  uuid;
begin
    for v_sale in select s.id from hotspot.sale s
        where (s.reference = any (hotspot.uuids(v_said)) or s.external_id = any (hotspot.uuids(v_said))) and s.status in ('requested', 'pending', 'failed')
    loop
        perform rowbeat.enqueue('hotspot.poll_payment', jsonb_build_object('sale', v_sale), p_unique_key => v_sale::text, p_replace => '{run_at}');
    end loop;
    return jsonb_build_object('status', 200, 'body', '{}'::jsonb);
end $$;
comment on function hotspot.receive_callback(jsonb) is 'POST and PUT /transactions/callback/';
