-- From money to voucher: an attempt at a time, under the sale's row lock. A refund takes the same lock, so the two exclude each other.

-- Promises: the sale's delivery is enqueued, or waits already. Called by: record_payment, retry_deliveries. Locks: what enqueue locks.
create or replace function hotspot.start_delivery(p_sale_id uuid) returns bigint language plpgsql volatile as $$
declare
    v_task  bigint := rowbeat.enqueue('hotspot.deliver_voucher', jsonb_build_object('sale', p_sale_id), p_unique_key => p_sale_id::text);
begin
    insert into hotspot.delivery as d (sale_id, task_id) values (p_sale_id, v_task)
    on conflict (sale_id) do update set task_id = excluded.task_id where d.task_id is distinct from excluded.task_id;
    return v_task;
end $$;
comment on function hotspot.start_delivery(uuid) is 'Enqueues the delivery of a paid sale.';

-- Whether an attempt is at work: it marked itself, and its task is still in that attempt. (A mark alone may be a dead daemon's.)
create or replace function hotspot.is_being_delivered(p_sale_id uuid) returns boolean language sql stable as $$
    select exists (select from hotspot.delivery d join rowbeat.own_task t on t.id = d.task_id
        where d.sale_id = p_sale_id and d.attempt = t.attempt and t.state = 'running')
$$;
comment on function hotspot.is_being_delivered(uuid) is 'Whether an attempt at delivering a sale is at work.';

-- Promises: only a paid sale is worked on, and the attempt is marked; then the router's next step, or nothing when the pool delivers.
-- Locks: the sale. SQLSTATEs: RP409 (no profile, or several; a read-back that shows nothing).
create or replace function hotspot.plan_delivery(task jsonb, responses jsonb[]) returns jsonb language plpgsql volatile as $$
declare
    v_sale  hotspot.sale;
begin
    select * into v_sale from hotspot.sale s where s.id = hotspot.sale_of(task) for update;
    if v_sale.status is distinct from 'paid' then
        return null;
    end if;
    insert into hotspot.delivery as d (sale_id, task_id, attempt) values (v_sale.id, (task ->> 'id')::bigint, (task ->> 'attempt')::integer)
    on conflict (sale_id) do update set task_id = excluded.task_id, attempt = excluded.attempt;
    return case when not hotspot.uses_pool(v_sale.id) then hotspot.plan_router(v_sale, responses, (task ->> 'failures')::integer) end;
end $$;
comment on function hotspot.plan_delivery(jsonb, jsonb[]) is 'Plans the delivery of a sale.';

-- Whether a sale is served by the pool alone: by setting, or because it has its voucher already.
create or replace function hotspot.uses_pool(p_sale_id uuid) returns boolean language sql stable as $$
    select rowbeat.read_setting('hotspot', 'delivery') = 'pool' or exists (select from hotspot.voucher v where v.sale_id = p_sale_id)
$$;
comment on function hotspot.uses_pool(uuid) is 'Whether the pool serves a sale.';

-- Promises: delivered, with its SMS on its way, or still paid, with the reason in last_error. With router_then_pool a failed attempt at the router
--   is followed by the pool at once. Locks: the sale, then a voucher.
create or replace function hotspot.settle_delivery(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb language plpgsql volatile as $$
declare
    v_sale     hotspot.sale;
    v_done     boolean := outcome ->> 'outcome' = 'done';
    v_voucher  hotspot.voucher;
begin
    select * into v_sale from hotspot.sale s where s.id = hotspot.sale_of(task) for update;
    update hotspot.delivery d set attempt = null where d.sale_id = v_sale.id;
    if v_sale.status is distinct from 'paid' or outcome ->> 'outcome' = 'cancelled' then
        return null;
    elsif v_done and hotspot.read_back(responses[cardinality(responses)]) is not null then
        perform hotspot.deliver(v_sale.id, v_sale.hotspot_username, v_sale.hotspot_password);
        return jsonb_build_object('bundle', v_sale.bundle_code, 'shared', hotspot.read_back(responses[cardinality(responses)]) -> 'shared-users', 'active', true);
    elsif hotspot.uses_pool(v_sale.id) or not v_done and rowbeat.read_setting('hotspot', 'delivery') = 'router_then_pool' then
        select v.* into v_voucher from hotspot.voucher v where v.id = hotspot.claim_voucher(v_sale.id);
        if found then
            perform hotspot.revoke(v_sale.id);
            perform hotspot.deliver(v_sale.id, v_voucher.username, v_voucher.password);
            return jsonb_build_object('voucher', v_voucher.id);
        end if;
        update hotspot.sale s set last_error = 'No voucher is left in the pool.' where s.id = v_sale.id;
        return jsonb_build_object('waits', true);
    end if;
    update hotspot.sale s set last_error = coalesce(outcome #>> '{error,message}', nullif(outcome ->> 'outcome', 'done'), s.last_error) where s.id = v_sale.id;
    return null;
end $$;
comment on function hotspot.settle_delivery(jsonb, jsonb, jsonb[]) is 'Records what became of an attempt at a delivery.';

-- Promises: the sale is delivered with these credentials, and its SMS is on its way. Called by: settle_delivery, which holds the sale.
create or replace function hotspot.deliver(p_sale_id uuid, p_username text, p_password text) returns void language plpgsql volatile as $$
begin
    update hotspot.sale s set status = 'delivered', delivered_at = rowbeat.now_(), hotspot_username = p_username, hotspot_password = p_password,
        voucher_code = p_username || ' - ' || p_password, last_error = null
    where s.id = p_sale_id;
    perform hotspot.add_sms('voucher', s.phone_number, hotspot.sms_text(s.id), p_sale_id => s.id) from hotspot.sale s where s.id = p_sale_id;
end $$;
comment on function hotspot.deliver(uuid, text, text) is 'Records a delivery.';

-- Promises: the voucher of the sale: the one it has, else an unclaimed one for its bundle, else one for any; the oldest first. Null: none is left
--   (or others are just taking the last). One owner each: parallel buyers pass by what another one is taking.
-- Safe to repeat. Locks: the sale, then the voucher. SQLSTATEs: RP404, RP409 (only a paid sale can claim).
create or replace function hotspot.claim_voucher(p_sale_id uuid) returns uuid language plpgsql volatile as $$
declare
    v_sale     hotspot.sale;
    v_voucher  uuid;
begin
    select * into v_sale from hotspot.sale s where s.id = p_sale_id for update;
    if not found then
        perform hotspot.refuse('RP404', format('Sale %s does not exist.', p_sale_id));
    end if;
    select v.id into v_voucher from hotspot.voucher v where v.sale_id = p_sale_id and v_sale.status in ('paid', 'delivered');
    if found then
        return v_voucher;
    elsif v_sale.status <> 'paid' then
        perform hotspot.refuse('RP409', 'Only a paid transaction can claim a voucher.');
    end if;
    update hotspot.voucher v set claimed = true, claimed_at = rowbeat.now_(), sale_id = p_sale_id
    where v.id = coalesce(
        (select f.id from hotspot.voucher f where not f.claimed and f.bundle_code = v_sale.bundle_code
            order by f.created_at, f.id limit 1 for update skip locked),
        (select f.id from hotspot.voucher f where not f.claimed and f.bundle_code is null
            order by f.created_at, f.id limit 1 for update skip locked))
    returning v.id into v_voucher;
    return v_voucher;
end $$;
comment on function hotspot.claim_voucher(uuid) is 'Ties an unclaimed voucher to a paid sale; null when none is left.';

-- Promises: every paid sale has a live delivery, the longest waiting first; staff are told of those that have waited for 15 minutes, once of each.
-- Called by: the task hotspot.retry_deliveries, every 5 minutes and when vouchers arrive.
create or replace function hotspot.retry_deliveries(payload jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_tried  bigint;
    v_told   bigint;
begin
    select count(hotspot.start_delivery(s.id)) into v_tried from (select s.id from hotspot.sale s where s.status = 'paid' order by s.paid_at) s;
    with told as (
        update hotspot.delivery d set mailed_at = rowbeat.now_()
        from hotspot.sale s
        where d.sale_id = s.id and s.status = 'paid' and s.paid_at <= rowbeat.now_() - interval '15 minutes' and d.mailed_at is null
            and hotspot.staff_addresses() is not null
        returning s.id
    )
    select count(rowbeat.enqueue('hotspot.mail_staff', jsonb_build_object('sale', t.id), p_unique_key => t.id::text)) into v_told from told t;
    return jsonb_build_object('tried', v_tried, 'told', v_told);
end $$;
comment on function hotspot.retry_deliveries(jsonb) is 'Tries again to deliver what has been paid, and tells staff what waits.';

-- Addresses of active staff; null: there are none.
create or replace function hotspot.staff_addresses() returns jsonb language sql stable as $$
    select jsonb_agg(s.email order by s.username) from hotspot.staff s where s.is_active and s.email like '%_@_%'
$$;
comment on function hotspot.staff_addresses() is 'Mail addresses of active staff.';

-- A mail to staff about a sale that waits. It has no credentials.
create or replace function hotspot.plan_mail(task jsonb, responses jsonb[]) returns jsonb language sql stable as $$
    select jsonb_build_object('connection', rowbeat.read_setting('hotspot', 'mail_connection'), 'to', hotspot.staff_addresses(),
        'subject', rowbeat.read_setting('hotspot', 'email_subject_prefix') || 'Paid and not delivered: ' || regexp_replace(s.full_name, '[[:cntrl:]]+', ' ', 'g'),
        'text', format(E'%s (%s) paid GHc%s for %s at %s and has got no voucher yet.\n%s\n\nTransaction ID: %s\nSale: %s\n', s.full_name, s.phone_number,
            trim_scale(s.amount), hotspot.data_text(s.data_label), to_char(s.paid_at at time zone hotspot.zone(), 'YYYY-MM-DD HH24:MI:SS'),
            coalesce('What went wrong: ' || s.last_error, ''), coalesce(s.mtn_transaction_id, '-'), s.id))
    from hotspot.sale s where s.id = hotspot.sale_of(task) and s.status = 'paid' and cardinality(responses) = 0 and hotspot.staff_addresses() is not null
$$;
comment on function hotspot.plan_mail(jsonb, jsonb[]) is 'Plans the mail about a sale that waits.';
