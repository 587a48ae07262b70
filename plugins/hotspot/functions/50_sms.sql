-- Short messages. A task's payload is the message's id and nothing else; the text is read from the table when it is sent, and is kept nowhere with the task.

-- Promises: the message is written, and its task enqueued; once per sale and kind, once a day and number for a low balance. Called by: all who send.
create or replace function hotspot.add_sms(
    p_kind text, p_phone_number text, p_text text, p_sale_id uuid default null, p_checkout_token uuid default null, p_day date default null
) returns uuid language plpgsql volatile as $$
declare
    v_id  uuid;
begin
    insert into hotspot.sms (sale_id, checkout_token, kind, day, phone_number, text) values (p_sale_id, p_checkout_token, p_kind, p_day, p_phone_number, p_text)
    on conflict do nothing returning id into v_id;
    if found then
        perform rowbeat.enqueue(case p_kind when 'voucher' then 'hotspot.send_voucher_sms' else 'hotspot.send_sms' end, jsonb_build_object('sms', v_id),
            p_unique_key => v_id::text);
    end if;
    return v_id;
end $$;
comment on function hotspot.add_sms(text, text, text, uuid, uuid, date) is 'Writes a message and sends it.';

-- The four lines that a customer gets.
create or replace function hotspot.sms_text(p_sale_id uuid) returns text language sql stable as $$
    select format(E'You have successfully purchased %s at GHc%s.\nHotspot Username : %s\nHotspot Password : %s\nTransaction ID : %s', hotspot.data_text(s.data_label),
        trim_scale(s.amount), s.hotspot_username, s.hotspot_password, s.mtn_transaction_id)
    from hotspot.sale s where s.id = p_sale_id
$$;
comment on function hotspot.sms_text(uuid) is 'The text of a voucher''s SMS.';

-- One request, with the message's id as idempotency key; nothing, when it was sent, its code is over or its sale refunded.
create or replace function hotspot.plan_sms(task jsonb, responses jsonb[]) returns jsonb language sql stable as $$
    select jsonb_build_object('method', 'POST', 'path', rowbeat.read_setting('hotspot', 'sms_path'), 'secret', '["request", "response"]'::jsonb,
        'headers', jsonb_build_object('Idempotency-Key', m.id), 'body', jsonb_build_object('to', m.phone_number, 'text', m.text))
    from hotspot.sms m left join hotspot.sale s on s.id = m.sale_id
    where m.id = (task #>> '{payload,sms}')::uuid and cardinality(responses) = 0 and m.sent_at is null and m.text is not null
        and s.status is distinct from 'refunded' and (m.kind <> 'otp' or hotspot.is_open(m.checkout_token))
$$;
comment on function hotspot.plan_sms(jsonb, jsonb[]) is 'Plans an SMS.';

-- Promises: the attempt is on record. A one-time code that was sent, or will never be, is forgotten.
create or replace function hotspot.settle_sms(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb language plpgsql volatile as $$
declare
    v_done  boolean := outcome ->> 'outcome' = 'done';
    v_sent  boolean := v_done and cardinality(responses) > 0;
    v_over  boolean := v_done or outcome ->> 'outcome' in ('rejected', 'cancelled') or (task ->> 'failures')::integer + 1 >= (task ->> 'max_attempts')::integer;
begin
    update hotspot.sms m set attempts = m.attempts + 1, sent_at = case when v_sent then coalesce(m.sent_at, rowbeat.now_()) else m.sent_at end,
        last_error = case when not v_done then coalesce(outcome #>> '{error,message}', outcome ->> 'outcome') end,
        text = case when m.kind <> 'otp' or not v_over then m.text end
    where m.id = (task #>> '{payload,sms}')::uuid;
    return jsonb_build_object('sent', v_sent);
end $$;
comment on function hotspot.settle_sms(jsonb, jsonb, jsonb[]) is 'Records an attempt at an SMS.';

create or replace function hotspot.plan_balance(task jsonb, responses jsonb[]) returns jsonb language sql stable as $$
    select jsonb_build_object('method', 'GET', 'path', rowbeat.read_setting('hotspot', 'sms_balance_path')) where cardinality(responses) = 0
$$;
comment on function hotspot.plan_balance(jsonb, jsonb[]) is 'Plans a look at the SMS balance.';

-- Promises: with 100 or less left every active staff member with a number is told, once a day. The balance is {"balance": n}, or just n.
create or replace function hotspot.settle_balance(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb language plpgsql volatile as $$
declare
    v_text     text := coalesce(responses[1] #>> '{body,balance}', responses[1] ->> 'body');
    v_balance  numeric := case when v_text ~ '^-?[0-9]+(\.[0-9]+)?$' then v_text::numeric end;
begin
    if outcome ->> 'outcome' <> 'done' then
        return null;
    elsif v_balance is null then
        perform hotspot.refuse('RP400', 'The SMS provider told no balance.');
    elsif v_balance <= 100 then
        perform hotspot.add_sms('balance', s.phone_number, format('Balance running low .Please top-up .Remaining Balance : %s', trim_scale(v_balance)),
            p_day => (rowbeat.now_() at time zone hotspot.zone())::date)
        from hotspot.staff s where s.is_active and s.phone_number is not null;
    end if;
    return jsonb_build_object('balance', v_balance);
end $$;
comment on function hotspot.settle_balance(jsonb, jsonb, jsonb[]) is 'Tells staff of a low SMS balance.';
